"""Training: the merges are those of the definition and of Hugging Face's trainer, ties included."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import regex
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from plain_trainer import plain_merges
from references import any_text, is_pinned
from tokenizers import models, pre_tokenizers, trainers

from bpe import InputError, Tokenizer, _core, train
from bpe.formats.huggingface import byte_characters
from bpe.patterns import GPT2, LLAMA3
from bpe.trainer import Progress, Trained

TieBreak = Literal["bytes", "huggingface"]

ORDERS: dict[TieBreak, list[int]] = {
    "bytes": list(range(256)),
    "huggingface": sorted(range(256), key=lambda byte: byte_characters()[byte]),
}


def learned(tokenizer: Tokenizer) -> list[bytes]:
    """The tokens beyond the single bytes, in the order in which they were learned."""
    return list(tokenizer.mergeable_ranks)[256:]


def learn(text: str, merges: int = 1000, pattern: str = r"\S+|\s", **options: object) -> list[bytes]:
    """What training on one document learns, as many merges as there are."""
    tokenizer = train([[text]], 256 + merges, pattern, (), allow_smaller=True, **options)  # type: ignore[arg-type]
    return learned(tokenizer)


# Few letters, so that counts tie and tokens overlap with themselves; no two classes, so that all splits are at spaces.
tying_text = st.lists(
    st.one_of(
        st.text("ab", min_size=1, max_size=12),
        st.text("abcd", min_size=1, max_size=8),
        st.sampled_from(["aaaa", "aaaaa", "ababab", "abaaba", "aabaab", "é", "éé", "日日日", "\0\0\0"]),
    ),
    min_size=1,
    max_size=10,
).map(" ".join)


@given(
    text=tying_text,
    tie_break=st.sampled_from(list(ORDERS)),
    min_frequency=st.integers(1, 4),
    max_token_length=st.none() | st.integers(2, 6),
)
@example(text="aaaa aaaaa aaa", tie_break="bytes", min_frequency=1, max_token_length=None)
@example(text="ababab babab", tie_break="bytes", min_frequency=1, max_token_length=3)
def test_merges_are_those_of_the_definition(
    text: str, tie_break: TieBreak, min_frequency: int, max_token_length: int | None
) -> None:
    words = [word.encode() for word in regex.findall(r"\S+|\s", text)]
    expected = plain_merges(
        words, 1000, byte_order=ORDERS[tie_break], min_frequency=min_frequency, max_token_length=max_token_length
    )
    options = {"tie_break": tie_break, "min_frequency": min_frequency, "max_token_length": max_token_length}
    assert learn(text, **options) == expected


@given(text=any_text.filter(lambda text: text != "" and is_pinned(text)), merges=st.integers(0, 60))
def test_any_text_is_trained_on_as_the_pattern_cuts_it(text: str, merges: int) -> None:
    words = [word.encode() for word in regex.findall(LLAMA3, text)]
    assert learn(text, merges, "llama3") == plain_merges(words, merges)


def test_300_merges_on_two_sample_texts_are_those_of_the_definition(
    corpora: Path, corpus_texts: dict[str, str]
) -> None:
    text = corpus_texts["sentences/de.txt"] + corpus_texts["sentences/ja.txt"]
    words = [word.encode() for word in regex.findall(GPT2, text)]
    tokenizer = train([str(corpora / "sentences" / f"{name}.txt") for name in ("de", "ja")], 256 + 300, "gpt2", ())
    # Two documents, but no pretoken stands across their seam.
    assert learned(tokenizer) == plain_merges(words, 300)


def test_each_merge_is_counted_as_often_as_it_stood_in_the_text() -> None:
    told: list[Trained] = []
    train([[b"aaa aaa ab"] * 2], 259, r"\S+|\s", (), trained=told.append)
    assert told[0].pairs.tolist() == [[97, 97], [256, 97], [97, 98]]
    assert told[0].counts.tolist() == [8, 4, 2]
    assert {id: n for id, n in enumerate(told[0].uses) if n} == {32: 4, 257: 4, 258: 2}


# Hugging Face's trainer


def train_with_tokenizers(
    files: list[str], vocab_size: int, pattern: str, min_frequency: int = 0
) -> tokenizers.Tokenizer:
    """What Hugging Face's trainer makes of the same files."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([Path(file).read_bytes().decode() for file in files], trainer)
    return tokenizer


@pytest.mark.parametrize(("pattern", "text"), [("gpt2", GPT2), ("llama3", LLAMA3)])
def test_all_ranks_are_those_of_hugging_face_s_trainer(corpora: Path, pattern: str, text: str) -> None:
    # unicode.txt holds characters on whose class the Unicode versions of the two differ.
    files = [str(file) for file in sorted(corpora.rglob("*.*")) if file.name != "unicode.txt"]
    theirs = train_with_tokenizers(files, 6000, text)
    ours = train(files, 6000, pattern, (), tie_break="huggingface")
    characters = byte_characters()
    tokens = {token.decode("latin-1").translate(characters): rank for token, rank in ours.mergeable_ranks.items()}
    assert tokens == theirs.get_vocab()


def test_min_frequency_ends_training_where_hugging_face_s_ends(corpora: Path) -> None:
    files = [str(corpora / "sentences" / "en.txt"), str(corpora / "sentences" / "fi.txt")]
    theirs = train_with_tokenizers(files, 6000, GPT2, min_frequency=3)
    ours = train(files, 6000, "gpt2", (), tie_break="huggingface", min_frequency=3, allow_smaller=True)
    assert ours.n_vocab == theirs.get_vocab_size() < 6000


# Special tokens


def test_special_tokens_are_boundaries_come_last_and_are_not_counted() -> None:
    text = "ab<|x|>ab<|x|>ab<|long|>"
    for pattern in ("llama3", "gpt2", r"\S+|\s"):
        tokenizer = train([[text]], 256 + 1 + 2, pattern, ["<|x|>", "<|long|>"])
        assert learned(tokenizer) == [b"ab"]
        assert tokenizer.special_tokens == {"<|x|>": 257, "<|long|>": 258}
        assert tokenizer.encode(text, allowed_special="all") == [256, 257, 256, 257, 256, 258]


def test_no_merge_crosses_a_special_token() -> None:
    for pattern in ("gpt2", r"\S+|\s"):
        assert learned(train([["a|a|a|a"]], 999, pattern, ["|"], allow_smaller=True)) == []


def test_of_overlapping_special_tokens_the_longest_is_the_boundary() -> None:
    for pattern in ("gpt2", r"\S+|\s"):
        assert learned(train([["ab<><>!ab<>!"]], 999, pattern, ["<>", "<><>!"], allow_smaller=True)) == [b"ab"]


def test_without_a_word_on_them_the_special_tokens_are_the_pattern_s() -> None:
    assert train([["ab"]], 256 + 1 + 256).special_tokens["<|begin_of_text|>"] == 257
    assert train([["ab"]], 256 + 1 + 1, "gpt2").special_tokens == {"<|endoftext|>": 257}


# How it is asked for


def test_the_result_does_not_depend_on_threads_or_on_how_documents_are_batched(
    corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ranks(threads: int) -> dict[bytes, int]:
        return train(str(corpora), 1500, threads=threads).mergeable_ranks

    expected = ranks(1)
    assert list(ranks(2)) == list(ranks(7)) == list(expected)
    monkeypatch.setattr("bpe.trainer.BATCH_BYTES", 1000)
    assert list(ranks(3)) == list(expected)


@given(texts=st.lists(any_text, max_size=6), threads=st.integers(1, 8), weight=st.integers(1, 5))
def test_pretokens_are_counted_alike_on_any_number_of_threads(texts: list[str], threads: int, weight: int) -> None:
    expected: dict[bytes, int] = {}
    for text in texts:
        content = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        begin = 0
        for end in _core.scan(2, content).tolist():
            expected[content[begin:end]] = expected.get(content[begin:end], 0) + weight
            begin = end
    counter = _core.Counter(2, _core.SpecialTokens({}))
    counter.add(texts, weight, threads)
    words, offsets, counts = counter.counts()
    ends = offsets.tolist()
    found = {words[a:b]: count for a, b, count in zip(ends, ends[1:], counts.tolist(), strict=False)}
    assert found == expected
    assert len(counter) == len(expected)


def test_more_threads_than_a_machine_can_have_are_no_harm() -> None:
    texts = ["ab"] * 50_000
    assert learned(train([texts], 257, "gpt2", (), threads=10**6)) == [b"ab"]


@given(text=tying_text)
def test_str_and_bytes_documents_and_one_or_several_sources_train_alike(text: str) -> None:
    expected = learn(text, pattern="gpt2")
    for sources in ([[text.encode()]], [iter([text])], [[], [text]]):
        assert learned(train(sources, 1256, "gpt2", (), allow_smaller=True)) == expected


def test_lone_surrogates_and_broken_utf8_are_trained_on() -> None:
    assert learn("\ud800\ud800 \ud83d\ude00", pattern="gpt2")[0] == b"\xbf\xbd"  # of U+FFFD
    for pattern in ("gpt2", r"(?s).+"):
        told: list[Trained] = []
        tokenizer = train([[b"\xff\xfe\xff\xfe"]], 258, pattern, (), trained=told.append)
        assert learned(tokenizer) == [b"\xbf\xbd", b"\xef\xbf\xbd"]
        assert told[0].invalid[0].sequences == 4


def test_a_vocabulary_too_small_for_bytes_and_special_tokens_is_refused() -> None:
    for size in (-1, 0, 255, 256):
        with pytest.raises(InputError, match="too small: 256 bytes and 1 special tokens need at least 257"):
            train([["text"]], size, "gpt2")
    assert train([["text"]], 257, "gpt2").n_vocab == 257


def test_a_vocabulary_larger_than_the_text_gives_is_refused_or_smaller() -> None:
    with pytest.raises(InputError, match=r"gives 258 tokens, not 300.*allow_smaller"):
        train([["abc"]], 300, "gpt2", ())
    tokenizer = train([["abc"]], 300, "gpt2", ["<|x|>"], allow_smaller=True)
    assert (tokenizer.n_vocab, tokenizer.special_tokens) == (259, {"<|x|>": 258})


def test_no_text_is_refused() -> None:
    for sources in ([[]], [[""]], [["", b""]], [["<|endoftext|>"]]):
        with pytest.raises(InputError, match="no text"):
            train(sources, 300, "gpt2")


def test_options_out_of_range_are_refused_by_name() -> None:
    for option, value in [("min_frequency", 0), ("max_token_length", 1), ("tie_break", "random"), ("threads", -1)]:
        with pytest.raises(InputError, match=option):
            train([["text"]], 257, "gpt2", (), **{option: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="twice"):
        train([["text"]], 300, "gpt2", ["<|x|>", "<|x|>"])
    with pytest.raises(InputError, match="special_tokens"):
        train([["text"]], 300, "gpt2", "<|x|>")
    with pytest.raises(InputError, match="empty"):
        train([["text"]], 300, "gpt2", [""])


def test_a_pattern_that_does_not_compile_is_refused_before_reading() -> None:
    with pytest.raises(ValueError, match="does not compile"):
        train([["text"]], 300, "(", ())


def test_progress_is_told_and_can_stop_training(corpora: Path) -> None:
    told: list[Progress] = []
    train(str(corpora / "prose.txt"), 1300, progress=told.append)
    size = (corpora / "prose.txt").stat().st_size
    assert told[0] == Progress("count", 1, size, size, size, 0, 1300 - 512)
    merges = [so_far.merges for so_far in told if so_far.phase == "merge"]
    assert merges == sorted(merges)
    assert 0 < merges[0] <= merges[-1] == 1300 - 512

    def stop(so_far: Progress) -> None:
        if so_far.phase == "merge":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(str(corpora / "prose.txt"), 1300, progress=stop)


def test_a_million_equal_letters_are_trained_on_in_linear_time() -> None:
    tokens = learn("a" * 1_000_000, merges=30, pattern="gpt2")
    assert tokens[:4] == [b"a" * 2, b"a" * 4, b"a" * 8, b"a" * 16]

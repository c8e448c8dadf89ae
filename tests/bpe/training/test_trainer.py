"""Test that merges equal those of the definition, of Hugging Face's trainer and of rustbpe, ties included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import pytest
import regex
import rustbpe
from hypothesis import example, given
from hypothesis import strategies as st

from bpe import InputError, Tokenizer, train, train_from_iterator
from bpe.formats.byte_level import byte_characters
from bpe.published_patterns import GPT2, LLAMA3
from bpe.training.settings import MergeStep, Trained, TrainingProgress
from support.plain_trainer import plain_encode, plain_merges, plain_training
from support.reference_trainers import train_with_tokenizers
from support.references import any_text, encoding_of, is_pinned
from support.training import train_on

TieBreak = Literal["bytes", "huggingface"]

BYTES = [bytes([byte]) for byte in range(256)]
ORDERS: dict[TieBreak, list[bytes]] = {
    "bytes": BYTES,
    "huggingface": sorted(BYTES, key=lambda byte: byte_characters()[byte[0]]),
}


def learned(tokenizer: Tokenizer) -> list[bytes]:
    """Return the tokens after the single bytes, in the order in which they were learned."""
    return list(tokenizer.mergeable_ranks)[256:]


def learn(text: str, merges: int = 1000, pattern: str = r"\S+|\s", **options: object) -> list[bytes]:
    """Return the tokens that training on one document learns, at most `merges`."""
    tokenizer = train_from_iterator([text], 256 + merges, pattern, (), allow_smaller=True, **options)  # type: ignore[arg-type]
    return learned(tokenizer)


# Few letters, so that counts tie and tokens overlap with themselves. Only letters, so that all splits are at spaces.
tying_text = st.lists(
    st.one_of(
        st.text("ab", min_size=1, max_size=12),
        st.text("abcd", min_size=1, max_size=8),
        st.sampled_from(["aaaa", "aaaaa", "ababab", "abaaba", "aabaab", "é", "éé", "日日日", "\0\0\0"]),
    ),
    min_size=1,
    max_size=10,
).map(" ".join)


WORDS = regex.compile(rb"\S+|\s")


def uses_of(trained: Trained) -> Counter[bytes]:
    """Return how often each token is used, as training reports it."""
    return Counter({trained.tokenizer.decode_single_token_bytes(id): n for id, n in enumerate(trained.uses) if n})


def uses_in(tokenizer: Tokenizer, texts: Sequence[str]) -> Counter[bytes]:
    """Return how often each token is used in the encoded texts, after checking that tiktoken gives the same ids."""
    ids = [tokenizer.encode_ordinary(text) for text in texts]
    assert ids == encoding_of(tokenizer).encode_ordinary_batch(list(texts))
    return Counter(tokenizer.decode_single_token_bytes(id) for each in ids for id in each)


@given(
    text=tying_text,
    tie_break=st.sampled_from(list(ORDERS)),
    min_frequency=st.integers(1, 4),
    max_token_length=st.none() | st.integers(2, 6),
)
@example(text="aaaa aaaaa aaa", tie_break="bytes", min_frequency=1, max_token_length=None)
@example(text="ababab babab", tie_break="bytes", min_frequency=1, max_token_length=3)
def test_merges_equal_those_of_the_definition(
    text: str, tie_break: TieBreak, min_frequency: int, max_token_length: int | None
) -> None:
    words = [word.encode() for word in regex.findall(r"\S+|\s", text)]
    expected = plain_merges(
        words, 1000, base=ORDERS[tie_break], min_frequency=min_frequency, max_token_length=max_token_length
    )
    options = {"tie_break": tie_break, "min_frequency": min_frequency, "max_token_length": max_token_length}
    assert learn(text, **options) == expected


@pytest.mark.slow
@given(text=any_text.filter(lambda text: text != "" and is_pinned(text)), merges=st.integers(0, 60))
def test_merges_on_any_text_split_by_the_pattern_equal_those_of_the_definition(text: str, merges: int) -> None:
    words = [word.encode() for word in regex.findall(LLAMA3, text)]
    assert learn(text, merges, "llama3") == plain_merges(words, merges)


def test_300_merges_on_two_sample_texts_equal_those_of_the_definition(
    corpora: Path, corpus_texts: dict[str, str]
) -> None:
    text = corpus_texts["sentences/de.txt"] + corpus_texts["sentences/ja.txt"]
    words = [word.encode() for word in regex.findall(GPT2, text)]
    tokenizer = train([str(corpora / "sentences" / f"{name}.txt") for name in ("de", "ja")], 256 + 300, "gpt2", ())
    # The definition trains on the joined texts: no pretoken crosses the boundary of the two documents.
    assert learned(tokenizer) == plain_merges(words, 300)


@pytest.mark.slow
@given(text=tying_text)
def test_training_reports_the_counts_of_merges_and_the_uses_of_tokens(text: str) -> None:
    expected = plain_training(WORDS.findall(text.encode()), 1000)
    results: list[Trained] = []
    tokenizer = train_from_iterator(
        [text], 1256, WORDS.pattern.decode(), (), allow_smaller=True, trained=results.append
    )
    assert results[0].pairs.tolist() == [[merge.left, merge.right] for merge in expected.merges]
    assert results[0].counts.tolist() == [merge.count for merge in expected.merges]
    assert uses_of(results[0]) == expected.uses == uses_in(tokenizer, [text])


@pytest.mark.slow
@given(text=tying_text, trace=st.integers(0, 8))
def test_each_traced_merge_shows_a_most_frequent_word(text: str, trace: int) -> None:
    expected = plain_training(WORDS.findall(text.encode()), 1000)
    steps: list[MergeStep] = []
    train_from_iterator([text], 1256, WORDS.pattern.decode(), (), allow_smaller=True, trace=trace, traced=steps.append)
    assert len(steps) == min(trace, len(expected.merges))
    for rank, (step, merge) in enumerate(zip(steps, expected.merges, strict=False), 256):
        assert (step.rank, step.times) == (rank, merge.count)
        assert step.left + step.right == expected.tokens[rank - 256]
        assert tuple(step.word) in merge.words
        assert step.word[step.place : step.place + 2] == [step.left, step.right]


# Other trainers


def test_all_ranks_equal_those_of_rustbpe(corpora: Path) -> None:
    files = [str(file) for file in sorted(corpora.rglob("*.*"))]
    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator([Path(file).read_bytes().decode() for file in files], 8192, pattern=LLAMA3)
    ours = train(files, 8192, "llama3", ())
    assert list(ours.mergeable_ranks.items()) == [(bytes(token), rank) for token, rank in theirs.get_mergeable_ranks()]


@pytest.mark.parametrize(("pattern", "text"), [("gpt2", GPT2), ("llama3", LLAMA3)])
def test_all_ranks_equal_those_of_hugging_face_s_trainer(corpora: Path, pattern: str, text: str) -> None:
    # unicode.txt contains characters whose class differs between the Unicode versions of the two.
    files = [str(file) for file in sorted(corpora.rglob("*.*")) if file.name != "unicode.txt"]
    theirs = train_with_tokenizers(files, 6000, text)
    ours = train(files, 6000, pattern, (), tie_break="huggingface")
    characters = byte_characters()
    tokens = {token.decode("latin-1").translate(characters): rank for token, rank in ours.mergeable_ranks.items()}
    assert tokens == theirs.get_vocab()


def test_min_frequency_ends_training_where_hugging_face_s_trainer_ends(corpora: Path) -> None:
    files = [str(corpora / "sentences" / "en.txt"), str(corpora / "sentences" / "fi.txt")]
    theirs = train_with_tokenizers(files, 6000, GPT2, min_frequency=3)
    ours = train(files, 6000, "gpt2", (), tie_break="huggingface", min_frequency=3, allow_smaller=True)
    assert ours.n_vocab == theirs.get_vocab_size() < 6000


# Weights


@pytest.mark.slow
@given(
    texts=st.lists(tying_text, min_size=1, max_size=3),
    times=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    parts=st.sampled_from([1, 2, 3, 7, 8, 100]),
    min_frequency=st.integers(1, 3),
)
def test_weighted_counts_are_exact(texts: list[str], times: list[int], parts: int, min_frequency: int) -> None:
    repeated = [[text] * n for text, n in zip(texts, times, strict=False)]
    expected = plain_training(
        [word for each in repeated for text in each for word in WORDS.findall(text.encode())],
        1000,
        min_frequency=min_frequency * parts,
    )
    results: list[Trained] = []
    tokenizer = train_on(
        [[text] for text in texts],
        1256,
        WORDS.pattern.decode(),
        (),
        weights=[Fraction(n, parts) for n, _ in zip(times, texts, strict=False)],
        min_frequency=min_frequency,
        allow_smaller=True,
        trained=results.append,
    )
    assert learned(tokenizer) == expected.tokens
    assert results[0].counts.tolist() == [merge.count / parts for merge in expected.merges]
    assert uses_of(results[0]) == {token: n / parts for token, n in expected.uses.items()}


def test_decimal_weights_are_exact() -> None:
    # In binary floating point, 0.1 + 0.2 is not 0.3, so "ab" and "cd" would not tie.
    sources = [["ab"], ["ab"], ["cd"]]
    tokenizer = train_on(sources, 257, "gpt2", (), weights=[0.1, "0.2", 0.3], allow_smaller=True)
    assert learned(tokenizer) == []  # the count of each is 0.3
    tokenizer = train_on([["ab ab ab ab"], ["cd cd cd"]], 257, r"\S+|\s", (), weights=[0.3, 0.4])
    assert learned(tokenizer) == [b"ab"]  # the count of both is 1.2


@pytest.mark.slow
@given(
    texts=st.lists(tying_text, min_size=2, max_size=2),
    weights=st.lists(st.sampled_from([1, 2, 3, 2**31, 2**32 - 2, 2**32 - 1]), min_size=2, max_size=2),
)
def test_counts_beyond_32_bits_are_exact(texts: list[str], weights: list[int]) -> None:
    words: Counter[bytes] = Counter()
    for text, weight in zip(texts, weights, strict=True):
        for word in WORDS.findall(text.encode()):
            words[word] += weight
    expected = plain_training(words, 1000)
    results: list[Trained] = []
    sources = [[text] for text in texts]
    train_on(sources, 1256, WORDS.pattern.decode(), (), weights=weights, allow_smaller=True, trained=results.append)
    assert learned(results[0].tokenizer) == expected.tokens
    assert results[0].counts.tolist() == [merge.count for merge in expected.merges]


def test_counts_beyond_53_bits_are_compared_exactly() -> None:
    # As floating-point numbers, these two counts are equal.
    count = 2**20 * 4 * (2**32 - 1)
    assert float(count) == float(count + 1)
    sources = [[" ab" * 2**20] * 4, [" cd" * 2**20] * 4, ["cd"]]
    tokenizer = train_on(sources, 257, "gpt2", (), weights=[2**32 - 1, 2**32 - 1, 1])
    assert learned(tokenizer) == [b"cd"]


def test_many_pairs_with_counts_of_32_bits_are_learned_in_order() -> None:
    # The sketch of counts saturates at 32 bits: for these pairs, it only shows that the counts are large.
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    words = [a + b for a in letters for b in letters]
    tokenizer = train_on([[" ".join(words)], ["!!"]], 256 + 300, r"\S+|\s", (), weights=["4.1", "0.000000001"])
    assert learned(tokenizer) == [word.encode() for word in sorted(words)[:300]]


def test_unusable_weights_are_refused() -> None:
    sources = [["ab"], ["cd"]]
    for weights, words in [
        ([1], "1 weights for 2 sources"),
        ([1, 0], "a weight is 0;"),
        ([1, "-0.5"], "a weight is -0.5;"),
        ([1, "x"], "not a number"),
        ([1, "1/0"], "not a number"),
        ([1, float("nan")], "not a number"),
        ([1, float("inf")], "not a number"),
        ([1, 1e-30], "too many digits"),
        ([1e10, 1], "too many digits"),
    ]:
        with pytest.raises(InputError, match=words):
            train_on(sources, 300, "gpt2", (), weights=weights, allow_smaller=True)  # type: ignore[arg-type]


# Required tokens


def required_after(learned: list[bytes], required: list[bytes], room: int) -> tuple[list[bytes], list[bytes]] | None:
    """Return the merges to keep, as many as possible, and the tokens to add; None if the required tokens do not fit."""
    for kept in range(min(len(learned), room), -1, -1):
        ranks = {token: rank for rank, token in enumerate(BYTES + learned[:kept])}
        known = len(ranks)
        for token in required:
            parts = plain_encode(token, ranks)
            for i in range(2, len(parts) + 1):
                ranks.setdefault(b"".join(parts[:i]), len(ranks))
        if len(ranks) - known + kept <= room:
            return learned[:kept], list(ranks)[known:]
    return None


@given(
    text=tying_text,
    required=st.lists(st.text("abcdé", min_size=1, max_size=9).map(str.encode), max_size=4),
    room=st.integers(0, 30),
)
@example(text="aaaa aaaa bb", required=[b"xy"], room=2)  # the pair (aa, aa) makes room
@example(text="aa", required=["aéabééé".encode(), "abaaé".encode()], room=13)  # fewer are missing without the merge
def test_the_vocabulary_has_the_required_tokens_and_all_merges_that_fit_beside_them(
    text: str, required: list[bytes], room: int
) -> None:
    expected = required_after(plain_merges(WORDS.findall(text.encode()), room), required, room)
    results: list[Trained] = []

    def grown() -> Tokenizer:
        return train_on(
            [[text]],
            256 + room,
            WORDS.pattern.decode(),
            (),
            required_tokens=required,
            allow_smaller=True,
            trained=results.append,
        )

    if expected is None:
        with pytest.raises(InputError, match="the required tokens need"):
            grown()
        return
    tokenizer = grown()
    kept, added = expected
    assert learned(tokenizer) == kept + added
    assert results[0].pairs.shape == (len(kept), 2)
    assert uses_of(results[0]) == uses_in(tokenizer, [text])
    for token in required:
        assert tokenizer.encode_single_token(token) in tokenizer.mergeable_ranks.values()
        assert tokenizer.vocabulary.encoder.merge_plain(token) == [tokenizer.encode_single_token(token)]


def test_required_tokens_may_be_partial_characters_and_may_leave_a_vocabulary_unfilled() -> None:
    tokenizer = train_from_iterator(["日日 日"], 400, "llama3", (), required_tokens=[b"\xe6\x97", "日本", " ab"])
    assert {b"\xe6\x97", "日本".encode(), b" ab"} <= set(tokenizer.mergeable_ranks)
    assert tokenizer.n_vocab < 400


def test_required_tokens_that_are_not_one_pretoken_are_refused() -> None:
    for pattern, tokens in [
        ("gpt2", ["a b"]),
        ("gpt2", [""]),
        ("gpt2", ["ab", "12a"]),
        (r"\S+|\s", ["a b"]),
        (r"\w+", ["a!"]),
        (r"\w+", ["!"]),
        (r"\w+", [b""]),
    ]:
        with pytest.raises(InputError, match="the required token"):
            train_from_iterator(["text"], 300, pattern, (), required_tokens=tokens)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a list"):
        train_from_iterator(["text"], 300, "gpt2", (), required_tokens="ab")


# Special tokens


def test_special_tokens_split_the_text_come_last_and_are_not_counted() -> None:
    text = "ab<|x|>ab<|x|>ab<|long|>"
    for pattern in ("llama3", "gpt2", r"\S+|\s"):
        tokenizer = train_from_iterator([text], 256 + 1 + 2, pattern, ["<|x|>", "<|long|>"])
        assert learned(tokenizer) == [b"ab"]
        assert tokenizer.special_tokens == {"<|x|>": 257, "<|long|>": 258}
        assert tokenizer.encode(text, allowed_special="all") == [256, 257, 256, 257, 256, 258]


def test_no_merge_crosses_a_special_token() -> None:
    for pattern in ("gpt2", r"\S+|\s"):
        assert learned(train_from_iterator(["a|a|a|a"], 999, pattern, ["|"], allow_smaller=True)) == []


def test_the_longest_of_overlapping_special_tokens_splits_the_text() -> None:
    for pattern in ("gpt2", r"\S+|\s"):
        assert learned(train_from_iterator(["ab<><>!ab<>!"], 999, pattern, ["<>", "<><>!"], allow_smaller=True)) == [
            b"ab"
        ]


def test_special_tokens_default_to_those_of_the_pattern() -> None:
    assert train_from_iterator(["ab"], 256 + 1 + 256).special_tokens["<|begin_of_text|>"] == 257
    assert train_from_iterator(["ab"], 256 + 1 + 1, "gpt2").special_tokens == {"<|endoftext|>": 257}


# Arguments


def test_the_result_does_not_depend_on_threads_or_batches_of_documents(
    corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ranks(threads: int) -> dict[bytes, int]:
        return train(str(corpora), 1500, threads=threads).mergeable_ranks

    expected = ranks(1)
    assert list(ranks(2)) == list(ranks(7)) == list(expected)
    monkeypatch.setattr("bpe.training.trainer.BATCH_BYTES", 1000)
    assert list(ranks(3)) == list(expected)


def test_a_million_threads_may_be_requested() -> None:
    texts = ["ab"] * 50_000
    assert learned(train_from_iterator(texts, 257, "gpt2", (), threads=10**6)) == [b"ab"]


@given(text=tying_text)
def test_str_and_bytes_documents_and_one_or_several_sources_give_the_same_merges(text: str) -> None:
    expected = learn(text, pattern="gpt2")
    for sources in ([[text.encode()]], [iter([text])], [[], [text]]):
        assert learned(train_on(sources, 1256, "gpt2", (), allow_smaller=True)) == expected


def test_lone_surrogates_and_broken_utf8_are_trained_on() -> None:
    assert learn("\ud800\ud800 \ud83d\ude00", pattern="gpt2")[0] == b"\xbf\xbd"  # the end of U+FFFD
    for pattern in ("gpt2", r"(?s).+"):
        results: list[Trained] = []
        tokenizer = train_from_iterator([b"\xff\xfe\xff\xfe"], 258, pattern, (), trained=results.append)
        assert learned(tokenizer) == [b"\xbf\xbd", b"\xef\xbf\xbd"]
        assert results[0].invalid[0].sequences == 4


def test_a_vocabulary_too_small_for_bytes_and_special_tokens_is_refused() -> None:
    for size in (-1, 0, 255, 256):
        with pytest.raises(InputError, match="too small: 256 bytes and 1 special tokens need at least 257"):
            train_from_iterator(["text"], size, "gpt2")
    assert train_from_iterator(["text"], 257, "gpt2").n_vocab == 257


def test_a_vocabulary_size_beyond_what_the_text_gives_is_refused_unless_smaller_is_allowed() -> None:
    with pytest.raises(InputError, match=r"gives 258 tokens, not 300.*allow_smaller"):
        train_from_iterator(["abc"], 300, "gpt2", ())
    tokenizer = train_from_iterator(["abc"], 300, "gpt2", ["<|x|>"], allow_smaller=True)
    assert (tokenizer.n_vocab, tokenizer.special_tokens) == (259, {"<|x|>": 258})


def test_a_huge_vocabulary_size_takes_no_more_memory_than_the_text() -> None:
    for size in (10**12, 10**30):
        assert learned(train_from_iterator(["abc"], size, "gpt2", (), allow_smaller=True)) == [b"ab", b"abc"]


def test_no_merge_is_learned_when_no_pair_reaches_min_frequency() -> None:
    for weight in (1, "1/4000000000"):
        options = {"min_frequency": 2**32 - 1, "weights": [weight]}
        assert learned(train_on([["abab"]], 300, "gpt2", (), allow_smaller=True, **options)) == []  # type: ignore[arg-type]


def test_training_on_empty_text_is_refused() -> None:
    for sources in ([[]], [[""]], [["", b""]], [["<|endoftext|>"]]):
        with pytest.raises(InputError, match="no text"):
            train_on(sources, 300, "gpt2")


def test_options_out_of_range_are_refused_and_named() -> None:
    for option, value in [
        *(("min_frequency", 0), ("max_token_length", 1), ("tie_break", "random"), ("threads", -1), ("trace", -1)),
        *(("min_frequency", 2**32), ("max_token_length", 2**64), ("threads", 10**30)),
    ]:
        with pytest.raises(InputError, match=option):
            train_from_iterator(["text"], 257, "gpt2", (), **{option: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="twice"):
        train_from_iterator(["text"], 300, "gpt2", ["<|x|>", "<|x|>"])
    with pytest.raises(InputError, match="special_tokens"):
        train_from_iterator(["text"], 300, "gpt2", "<|x|>")
    with pytest.raises(InputError, match="empty"):
        train_from_iterator(["text"], 300, "gpt2", [""])


def test_a_pattern_that_does_not_compile_is_refused_before_reading() -> None:
    with pytest.raises(ValueError, match="the split pattern"):
        train_from_iterator(["text"], 300, "(", ())


def test_progress_is_reported_and_can_stop_training(corpora: Path) -> None:
    reports: list[TrainingProgress] = []
    train(str(corpora / "prose.txt"), 1300, progress=reports.append)
    size = (corpora / "prose.txt").stat().st_size
    assert reports[0] == TrainingProgress("count", 1, size, size, size, 0, 1300 - 512)
    merges = [so_far.merges for so_far in reports if so_far.phase == "merge"]
    assert merges == sorted(merges)
    assert 0 < merges[0] <= merges[-1] == 1300 - 512

    def stop(so_far: TrainingProgress) -> None:
        if so_far.phase == "merge":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(str(corpora / "prose.txt"), 1300, progress=stop)


def test_a_run_of_a_million_equal_letters_is_trained_on() -> None:
    """Training in quadratic time would not finish."""
    tokens = learn("a" * 1_000_000, merges=30, pattern="gpt2")
    assert tokens[:4] == [b"a" * 2, b"a" * 4, b"a" * 8, b"a" * 16]


def test_an_exception_from_a_callback_propagates() -> None:
    def failing(_: object) -> None:
        raise ValueError("mine")

    for options in ({"progress": failing}, {"trace": 1, "traced": failing}, {"trained": failing}):
        with pytest.raises(ValueError, match="^mine$") as raised:
            train_from_iterator(["abab"], 257, "gpt2", (), **options)  # type: ignore[arg-type]
        assert not isinstance(raised.value, InputError)

"""How a vocabulary is used on a text, held against counting by hand and against vocabularies that are really cut."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from bpe import InputError, Tokenizer, train
from bpe.analysis import usage
from bpe.analysis.usage import CLASSES, Vocabulary, total, usage_of, usages_of, without_special_tokens, word_spans
from support.references import BYTE_RANKS, any_text, broken_bytes, byte_tokenizer, without_surrogates


def cut(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """A tokenizer with the lowest ranks alone, so many of them."""
    ranks = dict(list(tokenizer.mergeable_ranks.items())[:size])
    return Tokenizer("cut", pat_str=tokenizer.pattern.text, mergeable_ranks=ranks, special_tokens={})


def growth(tokenizer: Tokenizer, *documents: bytes) -> list[int]:
    """Tokens of the documents by size of the vocabulary, from one encoding."""
    grown: list[int] = Vocabulary(tokenizer).growth(usage_of(tokenizer, documents, "text").counts).tolist()
    return grown


# --- the curve ---


@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        ("gpt2", {}),
        ("llama3", {"tie_break": "huggingface"}),
        ("o200k", {"max_token_length": 5}),
        (r"\w+|\W", {"min_frequency": 3}),
    ],
)
def test_growth_is_what_vocabularies_cut_short_give(
    corpora: Path, corpus_texts: dict[str, str], pattern: str, options: dict[str, object]
) -> None:
    tokenizer = train(
        str(corpora / "sentences"), 900, pattern, special_tokens=(), allow_smaller=True, **options  # type: ignore[arg-type]
    )  # fmt: skip
    text = "".join(corpus_texts.values())[:60_000].encode()
    grown = growth(tokenizer, text)
    assert len(grown) == len(tokenizer.mergeable_ranks) - 255
    for size in (256, 257, 258, 300, 511, 777, len(tokenizer.mergeable_ranks)):
        assert grown[size - 256] == cut(tokenizer, size).count(text), size


@settings(max_examples=20)
@given(st.integers(0, 10**9))
def test_growth_is_exact_at_every_size_for_any_trained_vocabulary(seed: int) -> None:
    """Few letters in long words give merges that overlap and compete."""
    generator = random.Random(seed)
    words = ["".join(generator.choices("ab cé", k=generator.randint(1, 60))) for _ in range(8)]
    tokenizer = train([words[:5]], 290, "gpt2", special_tokens=(), allow_smaller=True)
    text = " ".join(words).encode()
    grown = growth(tokenizer, text)
    assert grown == [cut(tokenizer, 256 + merges).count(text) for merges in range(len(grown))]


@pytest.mark.parametrize(
    ("size", "off"),
    [(256, 0), (1000, 0), (30_000, 0), (100_256, 0), (105_000, 4), (110_000, 4), (127_999, 0), (128_000, 0)],
)
def test_growth_holds_for_llama_3_with_its_tokens_that_merging_does_not_reach(
    llama3: Tokenizer, corpus_texts: dict[str, str], size: int, off: int
) -> None:
    """Off by some of 100,000 where a token is made of halves that are younger than itself, as the docstring says."""
    reached = set(llama3._core.pairs().reshape(-1, 3)[:, 2].tolist())
    not_reached = [token for token, id in llama3.mergeable_ranks.items() if id > 255 and id not in reached]
    assert len(not_reached) == 588
    documents = [*not_reached, *(text.encode() for text in corpus_texts.values())]
    assert sum(map(cut(llama3, size).count, documents)) - growth(llama3, *documents)[size - 256] == off


def test_growth_of_a_token_that_is_found_only_whole_begins_at_its_rank() -> None:
    tokenizer = byte_tokenizer(ab=256, wxyz=257, abcd=258)
    assert growth(tokenizer, b"abcd") == [4, 3, 3, 1]
    assert growth(tokenizer, b"wxyz", b"wxyzs") == [9, 9, 6, 6]


def test_growth_of_a_token_that_is_older_than_its_halves_is_exact_where_it_stands_alone() -> None:
    tokenizer = byte_tokenizer(abcd=256, ab=257, cd=258)
    assert growth(tokenizer, b"abcd") == [4, 1, 1, 1]
    assert growth(tokenizer, b"abcde")[-1] == tokenizer.count(b"abcde") == 2


def test_growth_passes_over_ids_that_are_not_used() -> None:
    ranks = BYTE_RANKS | {b"ab": 1000, b"abc": 5000}
    tokenizer = Tokenizer("gaps", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={"<|x|>": 3000})
    assert growth(tokenizer, b"abc ab") == [6, 4, 3]


# --- words ---


def words_by_hand(tokenizer: Tokenizer, documents: Sequence[str]) -> tuple[int, int, Counter[int]]:
    """Words, tokens in words, and the tokens that hold a word, by the regex module and one token at a time."""
    letter = r"[\p{L}&&[\p{WB=ALetter}\p{WB=Hebrew_Letter}]]"
    words, tokens, whole = 0, 0, Counter[int]()
    for document in documents:
        ids, spans = tokenizer.encode_with_offsets(document, unit="bytes")
        for match in regex.finditer(rf"(?V1)(?<!\p{{M}}){letter}[{letter}\p{{M}}]*", document):
            begin, end = (len(document[:place].encode()) for place in match.span())
            within = [id for id, (first, last) in zip(ids, spans, strict=True) if first < end and last > begin]
            words, tokens = words + 1, tokens + len(within)
            if len(within) == 1:
                whole[within[0]] += 1
    return words, tokens, whole


@pytest.mark.parametrize("batch", [64, 1000, 4 << 20])
def test_words_are_those_that_are_counted_one_at_a_time(
    gpt2: Tokenizer, llama3: Tokenizer, corpus_texts: dict[str, str], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(usage, "BATCH_BYTES", batch)
    documents = [corpus_texts[name][:3000] for name in corpus_texts if "sentences" in name or "code" in name]
    usages = usages_of([gpt2, llama3], [document.encode() for document in documents], "text")
    for tokenizer, found in zip((gpt2, llama3), usages, strict=True):
        words, tokens, whole = words_by_hand(tokenizer, documents)
        assert found.words is not None
        assert (found.words.count, found.words.tokens) == (words, tokens)
        assert {id: count for id, count in enumerate(found.words.whole.tolist()) if count} == whole


@given(st.lists(any_text, max_size=5))
def test_words_of_any_text_are_those_that_are_counted_one_at_a_time(texts: list[str]) -> None:
    tokenizer = byte_tokenizer(ab=256, aZ=257)
    documents = [without_surrogates(text) for text in ["a", *texts]]
    # A mark that follows no letter of ours makes no word of the letters behind it, here as there.
    documents = [regex.sub(r"(?V1)(?<![\p{L}\p{M}])\p{M}+", "", document) for document in documents]
    found = usage_of(tokenizer, [document.encode() for document in documents], "text").words
    words, tokens, whole = words_by_hand(tokenizer, documents)
    assert found is not None
    assert (found.count, found.tokens, int(found.whole.sum())) == (words, tokens, whole.total())


@given(st.binary(max_size=40) | broken_bytes())
def test_words_lie_within_any_bytes_in_order(content: bytes) -> None:
    begins, ends = word_spans(content)
    edges = np.stack([begins, ends], axis=1).ravel()
    assert np.all(np.diff(edges) > 0)
    assert len(edges) == 0 or (edges[0] >= 0 and edges[-1] <= len(content))
    for begin, end in zip(begins, ends, strict=True):
        assert not regex.search(r"[\p{C}\p{Z}]", content[begin:end].decode())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one two", ["one", "two"]),
        ("don't stop_me x2y", ["don", "t", "stop", "me", "x", "y"]),
        ("nai\u0308ve हिन्दी 한국어 עברית", ["nai\u0308ve", "हिन्दी", "한국어", "עברית"]),
        ("日本語のテキスト ไทยกี่ ភាសា မြန်မာ", []),
        ("中abc中", ["abc"]),
        ("1 \u0301 !?", []),
        ("", []),
    ],
)
def test_words_are_runs_of_letters_of_scripts_that_set_words_apart(text: str, words: list[str]) -> None:
    content = text.encode()
    begins, ends = word_spans(content)
    assert [content[begin:end].decode() for begin, end in zip(begins, ends, strict=True)] == words


# --- counts ---


def test_counts_are_those_of_tiktokens_ids(
    pair: tuple[Tokenizer, tiktoken.Encoding], corpus_texts: dict[str, str]
) -> None:
    tokenizer, reference = pair
    counted = Counter(id for text in corpus_texts.values() for id in reference.encode_ordinary(text))
    found = usage_of(tokenizer, (text.encode() for text in corpus_texts.values()), "text")
    assert {id: count for id, count in enumerate(found.counts.tolist()) if count} == counted
    assert found.documents == len(corpus_texts)


def test_blocks_hold_the_tokens_that_begin_in_them(gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "BATCH_BYTES", 5000)
    documents = [b"", b"a tale of two tails " * 150, b"x", b"", b"\xff" * 1000, b"tale" * 400]
    blocks = usage_of(gpt2, documents, "text").blocks
    expected = []
    for number, document in enumerate(documents):
        starts = np.cumsum([0, *(len(token) for token in gpt2.decode_tokens_bytes(gpt2.encode_ordinary(document)))])[
            :-1
        ]
        for begin in range(0, len(document), 1000):
            end = min(begin + 1000, len(document))
            expected.append([number, end - begin, int(np.sum((starts >= begin) & (starts < end)))])
    assert blocks is not None
    assert blocks.T.tolist() == expected


def test_special_tokens_are_text_unless_the_text_is_cut_there() -> None:
    tokenizer = byte_tokenizer(special_tokens={"<|end|>": 300, "<|end|>er": 301})
    documents = [b"<|end|>one<|end|><|end|>er", b"two"]
    assert usage_of(tokenizer, documents, "text").counts.sum() == sum(map(len, documents))
    assert list(without_special_tokens(tokenizer, documents)) == [b"one", b"two"]
    assert list(without_special_tokens(byte_tokenizer(), documents)) == documents


def test_a_total_adds_up_and_knows_no_words_where_one_part_does_not() -> None:
    tokenizer = byte_tokenizer(ab=256)
    parts = [usage_of(tokenizer, texts, "part") for texts in ([b"ab ab"], [b"abc", b"x"])]
    whole, together = total(parts, "all"), usage_of(tokenizer, [b"ab ab", b"abc", b"x"], "all")
    assert whole.counts.tolist() == together.counts.tolist()
    assert whole.words is not None
    assert together.words is not None
    assert (whole.words.count, whole.words.tokens) == (together.words.count, together.words.tokens) == (4, 5)
    assert whole.words.whole.tolist() == together.words.whole.tolist()
    assert whole.documents == 3
    unknown = usage.Usage("training", parts[0].counts)
    assert total([unknown, parts[1]], "all").words is None
    assert total([unknown, parts[1]], "all").documents is None


@pytest.mark.parametrize("documents", [[], [b""], [b"", b""]])
def test_no_text_is_refused_by_name(documents: list[bytes]) -> None:
    with pytest.raises(InputError, match=r"held\.txt: no text to measure"):
        usage_of(byte_tokenizer(), documents, "held.txt")


# --- classes ---


def test_each_token_has_the_class_of_what_it_is() -> None:
    expected = {
        " word": "Latin",
        "(ſ²": "Latin",
        "Ж1": "Cyrillic",
        "日本": "Han",
        "。": "punctuation, symbols",
        "のテ": "several scripts",
        " \u0394E": "several scripts",
        "हि": "Devanagari",
        "٣٤": "Arabic",
        " 12": "numbers",
        "1\ufe0f\u20e3": "punctuation, symbols",
        " \u0301": "punctuation, symbols",
        "½": "numbers",
        "1.": "punctuation, symbols",
        "👩\u200d💻": "punctuation, symbols",
        "\u0301": "punctuation, symbols",
        " \u3000\n": "white space",
        "ᚠ": "other scripts",
        "한": "Hangul",
        "ー": "punctuation, symbols",
        "ܐ": "other scripts",
    }  # fmt: skip
    tokens = {token.encode(): 256 + number for number, token in enumerate(expected)}
    tokens |= {b"\xe6\x97": 400, b" \xff": 401, b"a\x80": 402}
    tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=BYTE_RANKS | tokens, special_tokens={})
    vocabulary = Vocabulary(tokenizer)
    found = {token: CLASSES[vocabulary.classes[id]] for token, id in tokens.items()}
    assert found == {token.encode(): name for token, name in expected.items()} | dict.fromkeys(
        (b"\xe6\x97", b" \xff", b"a\x80"), "parts of characters"
    )
    assert [CLASSES[vocabulary.classes[byte]] for byte in b"a1.\n\x80"] == [
        *("Latin", "numbers", "punctuation, symbols", "white space", "parts of characters"),
    ]


def test_the_classes_of_llama_3_are_those_of_one_token_at_a_time(llama3: Tokenizer) -> None:
    vocabulary = Vocabulary(llama3)
    for id in range(0, 128_000, 97):
        name = CLASSES[vocabulary.classes[id]]
        try:
            text = vocabulary.tokens[id].decode()
        except UnicodeDecodeError:
            assert name == "parts of characters"
            continue
        scripts = {script for script in usage.SCRIPTS if regex.search(rf"\p{{Script={script}}}", text)}
        others = regex.search(r"(?V1)[^\p{Script=Common}\p{Script=Inherited}]", text)
        if scripts:
            assert name == (scripts.pop() if len(scripts) == 1 else "several scripts"), text
        elif others:
            assert name == "other scripts", text
        elif not text.strip():
            assert name == "white space", text
        else:
            assert name == ("numbers" if regex.fullmatch(r"[\p{N}\s]+", text) else "punctuation, symbols"), text


def test_characters_begin_in_one_token_each(llama3: Tokenizer, corpus_texts: dict[str, str]) -> None:
    vocabulary = Vocabulary(llama3)
    for text in corpus_texts.values():
        counts = usage_of(llama3, [text.encode()], "text").counts
        assert counts @ vocabulary.characters == len(text)
        assert counts @ vocabulary.sizes == len(text.encode())

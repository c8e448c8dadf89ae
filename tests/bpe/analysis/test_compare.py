"""Tokenizers side by side: their numbers, and intervals held against plain counting and against theory."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bpe import InputError, Tokenizer
from bpe.analysis import bootstrap
from bpe.analysis.compare import compare, comparison_table
from bpe.formats import sentencepiece
from support.pieces import trained
from support.references import BYTE_RANKS, byte_tokenizer, encoding_of


def test_measures_equal_those_of_tiktokens_ids(
    llama3: Tokenizer, o200k: Tokenizer, corpus_texts: dict[str, str]
) -> None:
    texts = list(corpus_texts.values())
    found = compare([("a", llama3), ("b", o200k)], [text.encode() for text in texts])
    references = [encoding_of(llama3), encoding_of(o200k)]
    ids = [[id for text in texts for id in reference.encode_ordinary(text)] for reference in references]
    size = sum(len(text.encode()) for text in texts)
    assert (found["documents"], found["bytes"]) == (len(texts), size)
    for row, tokenizer, theirs in zip(found["tokenizers"], (llama3, o200k), ids, strict=True):
        assert row["tokens"] == len(theirs)
        assert row["bytes_per_token"] == size / len(theirs)
        assert row["tokens_relative"] == len(theirs) / len(ids[0])
        assert row["never_used"] == len(tokenizer.mergeable_ranks) - len(set(theirs))
        assert row["vocabulary"] == encoding_of(tokenizer).n_vocab - gaps(tokenizer)
    assert [row["name"] for row in found["tokenizers"]] == ["a", "b"]


def gaps(tokenizer: Tokenizer) -> int:
    """Return how many ids below the highest are unused."""
    return tokenizer.n_vocab - len(tokenizer.mergeable_ranks) - len(tokenizer.special_tokens)


def test_intervals_equal_those_of_documents_drawn_one_by_one() -> None:
    few, many = byte_tokenizer(), byte_tokenizer(ab=256, abab=257)
    generator = np.random.default_rng(5)
    documents = [b"ab" * int(n) + b"c" * int(m) for n, m in generator.integers(1, 30, (150, 2))]
    found = compare([("few", few), ("many", many)], documents, samples=200, seed=7)
    assert (found["unit"], found["units"]) == ("documents", 150)
    sizes = [(len(document), few.count(document), many.count(document)) for document in documents]
    draws = np.random.default_rng(7)
    ratios, compressions = [], []
    for _ in range(200):
        drawn = [sizes[place] for place in draws.integers(0, 150, 150)]
        size, first, second = (sum(column) for column in zip(*drawn, strict=True))
        ratios.append(second / first)
        compressions.append(size / second)
    row = found["tokenizers"][1]
    assert row["tokens_relative_interval"] == pytest.approx(np.percentile(ratios, (2.5, 97.5)))
    assert row["bytes_per_token_interval"] == pytest.approx(np.percentile(compressions, (2.5, 97.5)))


def test_intervals_agree_with_the_standard_error_of_a_ratio() -> None:
    """The linearised variance of a ratio of sums (Cochran, Sampling Techniques, section 2.11)."""
    few, many = byte_tokenizer(), byte_tokenizer(ab=256)
    generator = np.random.default_rng(1)
    documents = [b"ab" * int(n) + b"c" * int(m) for n, m in generator.integers(0, 40, (3000, 2)) + 1]
    row = compare([("few", few), ("many", many)], documents, samples=4000)["tokenizers"][1]
    x, y = (np.array([tokenizer.count(document) for document in documents]) for tokenizer in (few, many))
    ratio = y.sum() / x.sum()
    error = np.std(y - ratio * x) / np.sqrt(len(x)) / x.mean()
    low, high = row["tokens_relative_interval"]
    assert low == pytest.approx(ratio - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(ratio + 1.96 * error, abs=0.1 * error)


def test_few_documents_are_drawn_in_blocks_and_a_short_text_has_no_intervals(gpt2: Tokenizer) -> None:
    long = compare([("a", gpt2), ("b", gpt2)], [b"one tale " * 2000, b"another " * 300])
    assert (long["units"], long["unit"]) == (18 + 3, "blocks of 1,000 bytes")
    short = compare([("a", gpt2), ("b", gpt2)], [b"one tale " * 1000])
    assert short["units"] == 9
    assert short["tokenizers"][1]["tokens_relative_interval"] is None
    assert "–" in comparison_table(short).text()


def test_tokenizer_beside_itself_has_an_interval_of_exactly_1(gpt2: Tokenizer, corpus_texts: dict[str, str]) -> None:
    found = compare([("one", gpt2), ("one", gpt2)], [text.encode() for text in corpus_texts.values()])
    assert len(found["tokenizers"]) == 2
    assert found["tokenizers"][1]["tokens_relative_interval"] == (1.0, 1.0)


def test_same_seed_gives_the_same_intervals(gpt2: Tokenizer, llama3: Tokenizer) -> None:
    def intervals(seed: int) -> Any:
        found = compare([("a", gpt2), ("b", llama3)], documents, seed=seed)
        return found["tokenizers"][1]["tokens_relative_interval"]

    documents = [f"tale {n} of {'many ' * (n % 7)}".encode() for n in range(200)]
    assert intervals(1) == intervals(1) != intervals(2)


def test_neighbours_of_very_many_documents_are_drawn_together(gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [f"tale {n} of {'many ' * (n % 7)}".encode() for n in range(1000)]
    apart = compare([("a", byte_tokenizer()), ("b", gpt2)], documents)["tokenizers"][1]
    monkeypatch.setattr(bootstrap, "MOST_UNITS", 300)
    together = compare([("a", byte_tokenizer()), ("b", gpt2)], documents)["tokenizers"][1]
    assert together["tokens_relative"] == apart["tokens_relative"]
    low, high = together["tokens_relative_interval"]
    assert low < together["tokens_relative"] < high


def test_any_bytes_are_compared_and_empty_text_is_rejected() -> None:
    pair = [("a", byte_tokenizer()), ("b", byte_tokenizer(ab=256))]
    found = compare(pair, [bytes(range(256)) * 100])
    assert found["bytes"] == 25600
    json.dumps(found, allow_nan=False)
    with pytest.raises(InputError, match="empty.txt: no text"):
        compare(pair, [b""], name="empty.txt")


def test_token_longer_than_blocks_is_compared() -> None:
    tokenizer = Tokenizer(
        "long",
        pat_str="gpt2",
        mergeable_ranks=BYTE_RANKS | {b"a" * 20_000: 256},
        special_tokens={},
    )
    found = compare([("a", tokenizer), ("b", tokenizer)], [b"a" * 20_000])
    assert found["tokenizers"][0]["tokens"] == 1
    json.dumps(found, allow_nan=False)


def test_bytes_per_token_are_those_of_the_text_also_where_it_is_normalized() -> None:
    pieces = Tokenizer.from_vocabulary(sentencepiece.read(trained("nfkc"), "pieces", None, None))
    text = "  \ufdfa  \ufb01 ".encode() * 100
    found = compare([("bytes", byte_tokenizer()), ("pieces", pieces)], [text])
    for row in found["tokenizers"]:
        assert row["bytes"] == found["bytes"] == len(text)
        assert row["characters"] == len(text.decode())
        assert row["bytes_per_token"] == len(text) / row["tokens"]

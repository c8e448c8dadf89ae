"""Arrays by id, and the growth curve compared with vocabularies that are actually cut off."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpe import Tokenizer, train, train_from_iterator
from bpe.analysis.token_arrays import TokenArrays
from bpe.analysis.usage import usage_of
from support.references import BYTE_RANKS, byte_tokenizer


def cut(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """Return a tokenizer with only the `size` lowest ranks."""
    ranks = dict(list(tokenizer.mergeable_ranks.items())[:size])
    return Tokenizer("cut", pat_str=tokenizer.pattern.text, mergeable_ranks=ranks, special_tokens={})


def growth(tokenizer: Tokenizer, *documents: bytes) -> list[int]:
    """Return the number of tokens of the documents for each size of the vocabulary, from one encoding."""
    grown: list[int] = TokenArrays(tokenizer).growth(usage_of(tokenizer, documents, "text").counts).tolist()
    return grown


@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        ("gpt2", {}),
        ("llama3", {"tie_break": "huggingface"}),
        ("o200k", {"max_token_length": 5}),
        (r"\w+|\W", {"min_frequency": 3}),
    ],
)
def test_growth_equals_the_counts_of_vocabularies_cut_off_at_each_size(
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
    tokenizer = train_from_iterator(words[:5], 290, "gpt2", special_tokens=(), allow_smaller=True)
    text = " ".join(words).encode()
    grown = growth(tokenizer, text)
    assert grown == [cut(tokenizer, 256 + merges).count(text) for merges in range(len(grown))]


@pytest.mark.parametrize(
    ("size", "off"),
    [(256, 0), (1000, 0), (30_000, 0), (100_256, 0), (105_000, 4), (110_000, 4), (127_999, 0), (128_000, 0)],
)
def test_growth_is_close_for_llama_3_whose_tokens_merging_does_not_all_reach(
    llama3: Tokenizer, corpus_texts: dict[str, str], size: int, off: int
) -> None:
    """Off by some of 100,000 where a token is made of halves that are younger than itself, as the docstring says."""
    reached = {merged for _, _, merged in llama3.vocabulary.merges()}
    not_reached = [token for token, id in llama3.mergeable_ranks.items() if id > 255 and id not in reached]
    assert len(not_reached) == 588
    documents = [*not_reached, *(text.encode() for text in corpus_texts.values())]
    assert sum(map(cut(llama3, size).count, documents)) - growth(llama3, *documents)[size - 256] == off


def test_growth_of_a_token_that_is_found_only_whole_begins_at_its_rank() -> None:
    tokenizer = byte_tokenizer(ab=256, wxyz=257, abcd=258)
    assert growth(tokenizer, b"abcd") == [4, 3, 3, 1]
    assert growth(tokenizer, b"wxyz", b"wxyzs") == [9, 9, 6, 6]


def test_growth_of_a_token_of_lower_rank_than_its_halves_is_exact_for_whole_pretokens() -> None:
    tokenizer = byte_tokenizer(abcd=256, ab=257, cd=258)
    assert growth(tokenizer, b"abcd") == [4, 1, 1, 1]
    assert growth(tokenizer, b"abcde")[-1] == tokenizer.count(b"abcde") == 2


def test_growth_skips_unused_ids() -> None:
    ranks = BYTE_RANKS | {b"ab": 1000, b"abc": 5000}
    tokenizer = Tokenizer("gaps", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={"<|x|>": 3000})
    assert growth(tokenizer, b"abc ab") == [6, 4, 3]


def test_each_character_begins_in_exactly_one_token(llama3: Tokenizer, corpus_texts: dict[str, str]) -> None:
    vocabulary = TokenArrays(llama3)
    for text in corpus_texts.values():
        counts = usage_of(llama3, [text.encode()], "text").counts
        assert counts @ vocabulary.characters == len(text)
        assert counts @ vocabulary.sizes == len(text.encode())

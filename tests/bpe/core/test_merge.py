"""Test that the fast merge routines, the plain routine and tiktoken give the same ids for single pretokens."""

from __future__ import annotations

import random

import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from bpe import Tokenizer
from support.references import BYTE_RANKS, encoding_of

# The core switches from its short to its long routine at 48 bytes, tiktoken at 100.
MEETING = 48


def single_piece(encoding: tiktoken.Encoding, piece: bytes) -> list[int]:
    """Return tiktoken's ids of one pretoken, which is a whole token or is merged."""
    return list(encoding._encode_single_piece(piece))


def assert_merged_alike(tokenizer: Tokenizer, reference: tiktoken.Encoding, piece: bytes) -> None:
    core = tokenizer.vocabulary.encoder
    assert core.encode_pretokens([piece]) == single_piece(reference, piece)
    assert core.merge(piece) == core.merge_plain(piece)
    if core.find(piece) is None:
        assert core.merge(piece) == single_piece(reference, piece)


@st.composite
def small_vocabularies(draw: st.DrawFn) -> Tokenizer:
    """Draw single bytes and tokens over few letters, in any order; the halves of a token need not be tokens."""
    letters = draw(st.sampled_from([b"a", b"ab", b"abc", b"\0a", b"\xc3\xa9\xff"]))
    token = st.lists(st.sampled_from(list(letters)), min_size=2, max_size=9).map(bytes)
    tokens = draw(st.lists(token, unique=True, max_size=25))
    singles = draw(st.permutations(list(range(256))[:4]))  # bytes may come anywhere and in any order
    order = [*(bytes([byte]) for byte in range(4, 256)), *tokens]
    for byte in singles:
        order.insert(draw(st.integers(0, len(order))), bytes([byte]))
    gap = draw(st.integers(1, 3))
    ranks = {token: rank * gap for rank, token in enumerate(order)}
    return Tokenizer("small", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})


@pytest.mark.slow
@given(data=st.data(), tokenizer=small_vocabularies())
def test_small_vocabularies_in_any_order_merge_as_in_tiktoken(data: st.DataObject, tokenizer: Tokenizer) -> None:
    reference = encoding_of(tokenizer)
    letters = st.sampled_from(list(b"aaab\0c\xc3\xa9\xff"))
    for piece in data.draw(st.lists(st.lists(letters, min_size=1, max_size=130).map(bytes), min_size=1, max_size=8)):
        assert_merged_alike(tokenizer, reference, piece)


@pytest.mark.parametrize("letters", [b"a", b"ab", b"abc", b"\0\1"])
def test_vocabularies_of_random_tokens_merge_as_in_tiktoken_at_every_length(letters: bytes) -> None:
    generator = random.Random(0)
    for _ in range(8):
        tokens = {bytes(generator.choices(letters, k=generator.randint(2, 12))) for _ in range(40)}
        shuffled = generator.sample(sorted(tokens), len(tokens))
        ranks = BYTE_RANKS | {token: 256 + i for i, token in enumerate(shuffled)}
        tokenizer = Tokenizer("random", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
        reference = encoding_of(tokenizer)
        for length in range(1, 121):
            assert_merged_alike(tokenizer, reference, bytes(generator.choices(letters, k=length)))


@given(piece=st.binary(min_size=1, max_size=130))
@example(piece=b"\0")
@example(piece=b"X\0")
@example(piece=b"\0" * 130)
def test_any_bytes_merge_as_in_tiktoken(llama3: Tokenizer, llama3_reference: tiktoken.Encoding, piece: bytes) -> None:
    assert_merged_alike(llama3, llama3_reference, piece)


@pytest.mark.parametrize("length", [*range(1, 14), *range(MEETING - 3, MEETING + 4), *range(96, 104), 200, 1000])
def test_words_of_every_length_merge_as_in_tiktoken(
    llama3: Tokenizer, llama3_reference: tiktoken.Encoding, corpus_texts: dict[str, str], length: int
) -> None:
    texts = [text.encode() for text in corpus_texts.values()]
    generator = random.Random(length)
    for text in generator.sample(texts, 20):
        start = generator.randrange(max(1, len(text) - length))
        assert_merged_alike(llama3, llama3_reference, text[start : start + length])


def test_every_token_of_llama_3_is_encoded_to_its_own_id(llama3: Tokenizer) -> None:
    ranks = llama3.mergeable_ranks
    assert llama3.vocabulary.encoder.encode_pretokens(ranks) == list(ranks.values())


def test_the_588_tokens_that_merging_cannot_reach_merge_as_in_tiktoken(llama3: Tokenizer) -> None:
    """tiktoken looks up whole tokens first, so it merges these only in a vocabulary without them."""
    core = llama3.vocabulary.encoder
    ranks = llama3.mergeable_ranks
    unreachable = [token for token, rank in ranks.items() if core.merge(token) != [rank]]
    assert len(unreachable) == 588
    without = {token: rank for token, rank in ranks.items() if token not in set(unreachable)}
    reference = tiktoken.Encoding("without", pat_str=llama3.pattern.text, mergeable_ranks=without, special_tokens={})
    assert [core.merge(token) for token in unreachable] == [single_piece(reference, token) for token in unreachable]
    assert core.pair_count == len(ranks) - 256 - 588


def test_a_token_whose_halves_are_not_tokens_is_found_only_as_a_whole_pretoken() -> None:
    ranks = BYTE_RANKS | {b"abcd": 256}
    tokenizer = Tokenizer("", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
    assert tokenizer.encode("abcd") == [256]
    assert tokenizer.encode("abcde") == list(b"abcde")


def test_the_leftmost_of_equal_pairs_merges_first() -> None:
    tokenizer = Tokenizer("", pat_str="gpt2", mergeable_ranks=BYTE_RANKS | {b"aa": 256}, special_tokens={})
    for length in (3, 5, MEETING + 1, MEETING + 3):
        assert tokenizer.encode("a" * length) == [256] * (length // 2) + [97] * (length % 2)


@pytest.mark.parametrize(
    "text",
    ["a", "1", " ", "é", "日", "日本", "👩", "\0", ".", "ab", "aB1 ", "\n", " \n", "ก็", "e\u0301", "=-"],
)
def test_texts_of_200_000_characters_have_the_ids_of_tiktoken(
    llama3: Tokenizer, llama3_reference: tiktoken.Encoding, text: str
) -> None:
    """Merging in quadratic time would not finish."""
    long = (text * 200_000)[:200_000]
    ids = llama3.encode(long)
    assert llama3.decode(ids) == long
    assert ids == llama3_reference.encode(long)


@pytest.mark.parametrize("text", [" ", "a", "\n", "日", "."])
def test_runs_of_a_million_characters_on_which_tiktoken_may_fail_round_trip(llama3: Tokenizer, text: str) -> None:
    long = text * 1_000_001
    assert llama3.decode(llama3.encode(long)) == long


def test_long_pretokens_of_random_letters_merge_as_in_the_plain_routine(llama3: Tokenizer) -> None:
    generator = random.Random(1)
    for alphabet in ("abcdefghijklmnopqrstuvwxyz", "аеиоу", "ab"):
        piece = "".join(generator.choices(alphabet, k=1500)).encode()
        assert llama3.vocabulary.encoder.merge(piece) == llama3.vocabulary.encoder.merge_plain(piece)


def test_the_empty_pretoken_has_no_ids(llama3: Tokenizer) -> None:
    encoder = llama3.vocabulary.encoder
    assert encoder.merge(b"") == encoder.merge_plain(b"") == encoder.encode_pretokens([b""]) == []

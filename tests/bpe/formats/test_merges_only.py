"""Vocabularies that encode as `tokenizers` does by default: by merging only, dropping bytes without a token."""

from __future__ import annotations

import pickle
import random
from array import array
from bisect import bisect_right
from collections.abc import Mapping

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from bpe import InputError, StreamEncoder, Tokenizer, _core, train_from_iterator
from bpe.formats.byte_level import byte_characters
from bpe.verify import require_identical, tiktoken_reference, verify
from support.references import BYTE_RANKS, any_text, broken_bytes, without_surrogates

UNKNOWN = b"!\x04c\xc3\xc0\xff"  # "c" and half of some letters among them
KNOWN = {token: rank for token, rank in BYTE_RANKS.items() if token not in {bytes([byte]) for byte in UNKNOWN}}
# Merging leads to all but "xyz", "a!b" and "zx?zx". In some texts, the parts of "ad" and " ?" become neighbours only
# once unknown bytes between them are dropped.
TOKENS = [b"ab", b"ad", b" ?", b"??", b"abab", b"xyz", b"a!b", "日".encode()[:2], "日".encode(), b"zx?zx", b"\xa9a"]
RANKS = KNOWN | {token: 256 + i for i, token in enumerate(TOKENS)}
UNREACHABLE = (b"xyz", b"a!b", b"zx?zx")

TOKENIZER = Tokenizer("merges", pat_str="gpt2", mergeable_ranks=RANKS, special_tokens={"<|!|>": 300}, merges_only=True)

texts = st.text(st.sampled_from("abcdxyz?! \x04é日1\n"), max_size=40) | any_text


def reference_of(ranks: Mapping[bytes, int]) -> tokenizers.Tokenizer:
    characters = byte_characters()
    names = {rank: "".join(characters[byte] for byte in token) for token, rank in ranks.items()}
    pairs = TOKENIZER.vocabulary.merges()
    model = models.BPE({name: rank for rank, name in names.items()}, [(names[a], names[b]) for a, b, _ in pairs])
    reference = tokenizers.Tokenizer(model)
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return reference


REFERENCE = reference_of(RANKS)


@given(text=texts)
def test_the_ids_are_those_of_tokenizers(text: str) -> None:
    text = without_surrogates(text)
    expected = REFERENCE.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.encode_ordinary(text) == expected
    assert TOKENIZER.encode_ordinary(text) == expected  # from the tables
    assert TOKENIZER.count(text) == len(expected)
    assert TOKENIZER.encode_flat([text, "", text], num_threads=2)[0].tolist() == expected * 2


@pytest.mark.parametrize("length", [*range(1, 20), 63, 64, 65, 130, 255, 256, 257, 2000, 40_000])
def test_pretokens_of_any_length_are_merged_without_unknown_bytes(length: int) -> None:
    """In lanes, in windows and, where windows cannot be joined, with the heap."""
    generator = random.Random(length)
    for characters in ("c", "abc", "ac", "dabx", "?!", "!", "日", "é", "aéc"):
        text = "".join(generator.choices(characters, k=length))
        assert TOKENIZER.encode_ordinary(text) == REFERENCE.encode(text, add_special_tokens=False).ids


@pytest.mark.slow
@given(text=broken_bytes())
def test_the_kernels_and_the_definition_agree_on_any_bytes(text: bytes) -> None:
    offsets = array("Q", [0])
    for token in RANKS:
        offsets.append(offsets[-1] + len(token))
    parts = (b"".join(RANKS), memoryview(offsets), memoryview(array("I", RANKS.values())))
    encoders = [
        _core.Encoder(*parts, _core.Splitter.scanned(0, kernel), {}, kernel, merges_only=True)
        for kernel in _core.kernels()
    ]
    expected = encoders[0].merge_plain(text)
    assert bytes(byte for byte in text if byte not in UNKNOWN) == TOKENIZER.decode_bytes(expected)
    for encoder in encoders:
        assert encoder.merge(text) == encoder.encode_pretokens([text]) == expected


def test_unreachable_tokens_can_be_looked_up_and_decoded() -> None:
    for token in UNREACHABLE:
        id = RANKS[token]
        assert TOKENIZER.encode_single_token(token) == id
        assert TOKENIZER.decode_bytes([id]) == TOKENIZER.decode_single_token_bytes(id) == token
        assert id not in TOKENIZER.encode(token.decode())
    assert TOKENIZER.mergeable_ranks == RANKS
    assert TOKENIZER.unknown_bytes == bytes(sorted(UNKNOWN))


def test_special_tokens_may_contain_unknown_bytes() -> None:
    assert TOKENIZER.encode("a!<|!|>!b", allowed_special="all") == [97, 300, 98]
    assert TOKENIZER.encode_single_token("<|!|>") == 300


@given(text=texts, cut=st.integers(0, 40))
def test_a_stream_gives_the_ids_of_the_whole(text: str, cut: int) -> None:
    encoder = StreamEncoder(TOKENIZER)
    ids = encoder.feed(text[:cut]) + encoder.feed(text[cut:]) + encoder.flush()
    assert ids == TOKENIZER.encode_ordinary(text)


@given(text=texts)
def test_offsets_are_places_in_the_given_text(text: str) -> None:
    text = without_surrogates(text)
    content = text.encode()
    ids, spans = TOKENIZER.encode_with_offsets(text, unit="bytes")
    assert ids == TOKENIZER.encode_ordinary(text)
    for id, (begin, end) in zip(ids, spans, strict=True):
        assert content[begin:end].translate(None, UNKNOWN) == TOKENIZER.decode_bytes([id])
        assert content[begin] not in UNKNOWN
        assert content[end - 1] not in UNKNOWN
    starts = [place for place, byte in enumerate(content) if byte & 0xC0 != 0x80]
    _, in_characters = TOKENIZER.encode_with_offsets(text)
    expected = [(bisect_right(starts, begin) - 1, bisect_right(starts, end - 1)) for begin, end in spans]
    assert in_characters == expected


@given(text=texts, most=st.integers(0, 8))
def test_a_truncated_text_is_the_beginning_or_the_end_of_the_whole(text: str, most: int) -> None:
    text = without_surrogates(text)
    left, right = TOKENIZER.truncate(text, most, side="left"), TOKENIZER.truncate(text, most)
    assert text.endswith(left)
    assert text.startswith(right)
    assert max(TOKENIZER.count(left), TOKENIZER.count(right)) <= most


def test_a_pickled_copy_encodes_the_same() -> None:
    copy = pickle.loads(pickle.dumps(TOKENIZER))
    assert copy.encode("xyz !a!b!") == TOKENIZER.encode("xyz !a!b!")
    assert copy.merges_only


def test_merges_only_is_false_where_it_makes_no_difference() -> None:
    ranks = BYTE_RANKS | {b"ab": 256}
    tokenizer = Tokenizer("all", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={}, merges_only=True)
    assert not tokenizer.merges_only
    assert tokenizer.unknown_bytes == b""


def test_a_byte_without_a_token_is_refused_unless_merges_only() -> None:
    with pytest.raises(ValueError, match="no token for the single byte b.*a byte-level vocabulary must hold all 256"):
        Tokenizer("none", pat_str="gpt2", mergeable_ranks=RANKS, special_tokens={})


def test_a_merges_only_vocabulary_cannot_be_a_base_for_training() -> None:
    with pytest.raises(InputError, match="cannot be a base"):
        train_from_iterator(["a"], vocab_size=400, base=TOKENIZER)


def test_verification_does_not_expect_unknown_bytes_back() -> None:
    tokenizer = Tokenizer("u", pat_str="gpt2", mergeable_ranks=KNOWN, special_tokens={}, merges_only=True)
    report = verify(tokenizer, [b"a!b", b"\xff!"], reference=tiktoken_reference(tokenizer))
    require_identical(report)
    assert report.reference_failed > 0  # tiktoken knows no way with such bytes

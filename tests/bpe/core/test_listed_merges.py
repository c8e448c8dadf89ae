"""Test that listed merges, in any order and to any ids, give the ids of `tokenizers`."""

from __future__ import annotations

import random
from array import array

import pytest
from tokenizers import models

from bpe import _core
from bpe.formats.byte_level import token_text

Merges = list[tuple[bytes, bytes]]
SPLITTER = _core.Splitter.scanned(0)  # pretokens come from the tests


def random_merges(generator: random.Random, letters: bytes) -> tuple[list[bytes], Merges]:
    """Return tokens and merges over few letters: several merges may make the same token, and some tokens have none."""
    tokens = [bytes([byte]) for byte in range(256)]
    merges: Merges = []
    for _ in range(generator.randint(0, 60)):
        known = [token for token in tokens if set(token) <= set(letters)]
        left, right = generator.choice(known), generator.choice(known)
        if (left, right) in merges or len(left + right) > 12:
            continue
        merges.append((left, right))
        if left + right not in tokens:
            tokens.append(left + right)
    for _ in range(generator.randint(0, 5)):
        token = bytes(generator.choices(letters, k=generator.randint(2, 5)))
        if token not in tokens:
            tokens.append(token)
    if generator.random() < 0.7:
        generator.shuffle(merges)
    if generator.random() < 0.7:
        generator.shuffle(tokens)
    return tokens, merges


def encoder(ids: dict[bytes, int], merges: Merges, kernel: str, merges_only: bool) -> _core.Encoder:
    offsets = array("Q", [0])
    for token in ids:
        offsets.append(offsets[-1] + len(token))
    listed = array("I", [id for left, right in merges for id in (ids[left], ids[right], ids[left + right])])
    tokens, values = b"".join(ids), memoryview(array("I", ids.values()))
    return _core.Encoder(
        tokens, memoryview(offsets), values, SPLITTER, {}, kernel, merges_only=merges_only, merges=memoryview(listed)
    )


@pytest.mark.parametrize("letters", ["a", "ab", "abc", "éab", "日aé", "abcdefgh"])
def test_any_list_of_merges_gives_the_ids_of_tokenizers(letters: str) -> None:
    for seed in range(40):
        generator = random.Random(f"{letters} {seed}")
        tokens, merges = random_merges(generator, letters.encode())
        gap, takes_whole = generator.randint(1, 3), seed % 2 == 0
        ids = {token: index * gap for index, token in enumerate(tokens)}
        encoders = [encoder(ids, merges, kernel, not takes_whole) for kernel in _core.kernels()]
        pairs = [(token_text(left), token_text(right)) for left, right in merges]
        texts = {token_text(token): id for token, id in ids.items()}
        reference = models.BPE(texts, pairs, ignore_merges=takes_whole)
        for longest in (12, 70, 300, 12, 70, 3000):
            length = generator.randint(1, longest)
            for piece in ("".join(generator.choices(letters, k=length)).encode(), letters[-1].encode() * length):
                expected = [token.id for token in reference.tokenize(token_text(piece))]
                for each in encoders:
                    assert each.encode_pretokens([piece]) == expected
                    assert each.merge(piece) == each.merge_plain(piece)
        unreachable = [token for token in ids if encoders[0].merge(token) != [ids[token]]]
        assert [each.unreachable_count for each in encoders] == [len(unreachable)] * len(encoders)


def test_wrong_lists_of_merges_are_refused() -> None:
    ids = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
    kernel = _core.kernels()[0]
    offsets = array("Q", [*range(257), 258])
    for listed, message in (
        ([97, 98], "are not left, right and merged id"),
        ([97, 98, 257], "merge 0 does not join"),
        ([97, 99, 256], "merge 0 does not join"),
        ([98, 97, 256], "merge 0 does not join"),
        ([97, 2**32 - 1, 256], "merge 0 does not join"),
        ([97, 98, 256, 97, 98, 256], "merge 1 is listed twice"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.Encoder(
                b"".join(ids),
                memoryview(offsets),
                memoryview(array("I", ids.values())),
                SPLITTER,
                {},
                kernel,
                merges=memoryview(array("I", listed)),
            )

"""Byte-level BPE whose merges are those of characters, each of which stands for a byte.

The core merges bytes. That gives other ids than ``tokenizers`` where a character without a token becomes an unknown
token or the tokens of its bytes, and where a text has characters that stand for no byte.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from bpe import _core
from bpe.patterns import Pattern
from bpe.splitting.steps import FROM_BYTE_CHARACTERS, TO_BYTE_CHARACTERS


class CharacterMerges(NamedTuple):
    """The model of a tokenizer.json as ``tokenizers`` applies it to the characters that stand for bytes."""

    ids: Mapping[str, int]
    """The id of each token, by its text."""
    merges: memoryview
    """The left, right and merged id of the pairs that merge, in their order. [3 * merges], uint32"""
    unknown_token: str | None = None
    """What a character without a token becomes; None if it is dropped."""
    fuse_unknown: bool = False
    """Whether a run of such characters becomes one unknown token."""
    byte_fallback: bool = False
    """Whether such a character becomes the tokens of its bytes, such as <0xC4>, if all of these are tokens."""
    takes_whole: bool = False
    """Whether a pretoken that is a token is taken whole (``ignore_merges``)."""

    @property
    def effect(self) -> str:
        """What the vocabulary does with characters without a token, for messages."""
        if self.unknown_token is not None:
            return f"encodes bytes without a token as {self.unknown_token!r}"
        if self.byte_fallback:
            return "encodes bytes without a token as others (byte_fallback)"
        return "drops bytes without a token"

    def pieces(self) -> _core.Pieces:
        """Return the core's rules of merging."""
        texts = [text.encode() for text in self.ids]
        offsets = array("Q", accumulate(map(len, texts), initial=0))
        number_of = {id: number for number, id in enumerate(self.ids.values())}
        merges = array("I", map(number_of.__getitem__, self.merges.tolist()))
        unknown = None if self.unknown_token is None else number_of[self.ids[self.unknown_token]]
        how = "dropped" if unknown is None else "fused" if self.fuse_unknown else "each"
        ids = array("I", self.ids.values())
        return _core.Pieces.from_merges(
            b"".join(texts), offsets, ids, merges, self.byte_fallback, unknown, how, self.takes_whole, True
        )

    def splitter(self, pattern: Pattern) -> _core.Splitter:
        """Return what splits a text by a pattern into pretokens of characters that stand for bytes."""
        from bpe.splitting.compile import compile_steps  # large, and few vocabularies need it

        steps = pattern.all_steps
        if steps[-1:] == (FROM_BYTE_CHARACTERS,):
            return compile_steps(steps[:-1])
        return compile_steps([*steps, TO_BYTE_CHARACTERS])

    def triples(self) -> list[tuple[int, int, int]]:
        """Return the left, right and merged id of each pair that merges, in merge order."""
        ids = self.merges
        return list(zip(ids[0::3], ids[1::3], ids[2::3], strict=True))

    def __reduce__(self) -> tuple[Any, ...]:
        ids, merges, *options = self
        return _restored, (dict(ids), bytes(merges), *options)


def _restored(ids: Mapping[str, int], merges: bytes, *options: Any) -> CharacterMerges:
    return CharacterMerges(ids, memoryview(merges).cast("I"), *options)

"""Caches of texts whose rotations depend on their length (RoPE "dynamic" and "longrope").

As in transformers: with "longrope", a text that grows beyond the original context is read again with the long factors.
With "dynamic", each key keeps the rotation that it got. A text that was truncated is read again wherever its keys
differ from those of a text that is read anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.config import ModelConfig
from model.rotary import depends_on_length

if TYPE_CHECKING:
    from model.cache import KVCache

_PART = 2048  # tokens that are read again at a time, of all texts together; bounds the memory that long texts need


class Lengths:
    """The ids in a cache, and the number of positions that its keys were rotated for."""

    def __init__(self, config: ModelConfig) -> None:
        self.ids: Tensor | None = None
        """int64 [batch, slots]."""
        self.expected: int = 0
        """The number of positions that the next tokens belong to, if more of them are to come."""
        self._scaling = config.rope_scaling
        self._original = config.rope_original_length
        self._rotated = 0
        self._was_cut = False

    @classmethod
    def of(cls, config: ModelConfig) -> Lengths | None:
        """Return the record for a new cache; None for a model whose rotations are the same for all lengths."""
        return cls(config) if depends_on_length(config) else None

    def cut(self) -> None:
        """Record that the last tokens were removed."""
        self.expected, self._was_cut = 0, True

    def next(self, end: int) -> int:
        """Return the number of positions that tokens before position `end` are rotated for."""
        return max(end, self.expected, 0 if self._was_cut else self._rotated)

    def is_outdated(self, length: int) -> bool:
        """Return whether the keys in the cache differ from those of a text of `length` positions."""
        if self._scaling == "longrope":
            return (self._rotated > self._original) != (length > self._original)
        return self._was_cut and max(self._rotated, length) > self._original

    def add(self, known: int, ids: Tensor, length: int) -> None:
        """Record ids [batch, new] behind the first `known` ones, rotated for `length` positions."""
        self.ids = ids if self.ids is None or not known else torch.cat((self.ids[:, :known], ids), dim=1)
        self._rotated, self._was_cut = length, False


def rotated_length(
    cache: KVCache | None, ids: Tensor, end: int, read: Callable[[Tensor, KVCache, Tensor | None], object]
) -> int:
    """Return the number of positions that new tokens are rotated for, at least `end`.

    If the keys in the cache were rotated otherwise, the tokens in the cache are read again first.

    Args:
        cache: The cache, with memory for the new tokens; None if there is none.
        ids: The ids of the new tokens, [batch, new].
        end: The number of positions up to the last of them.
        read: Reads ids [batch, time] into a cache, at positions [batch, time].
    """
    if cache is None or cache.lengths is None:
        return end
    lengths, known = cache.lengths, cache.length
    length = lengths.next(end)
    if known and lengths.is_outdated(length):
        assert lengths.ids is not None
        old = lengths.ids[:, :known]
        positions = None if cache.positions is None else cache.positions[:, :known].clone()
        view = cache.view
        cache.truncate(0)
        cache.view, lengths.expected = view, length
        try:
            count = max(1, _PART // len(old))
            for start in range(0, known, count):
                part = slice(start, min(start + count, known))
                read(old[:, part], cache, None if positions is None else positions[:, part])
        except BaseException:  # Ctrl-C between two parts
            cache.truncate(0)
            raise
    lengths.add(known, ids, length)
    return length

"""Caches of texts whose rotations depend on their length (RoPE "dynamic" and "longrope").

As in transformers: with "longrope", a text that grows beyond the original context is read again with the long factors.
With "dynamic", each key keeps the rotation that it got. A text that was truncated is read again wherever its keys
differ from those of a text that is read anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import ModelConfig
from model.rotary import depends_on_length


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

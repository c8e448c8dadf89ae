"""Some documents as ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .layout import Ids


class Block(NamedTuple):
    """Documents one after the other: document i is ``ids[offsets[i]:offsets[i + 1]]``, of `bytes[i]` bytes of text."""

    ids: Ids
    offsets: npt.NDArray[np.int64]
    """[documents + 1]; the first is 0."""
    bytes: npt.NDArray[np.int64]
    """[documents]"""

    @classmethod
    def of(
        cls,
        ids: Ids,
        offsets: npt.NDArray[np.int64],
        bytes: npt.NDArray[np.int64],
        dtype: np.dtype[Any],
        bos_id: int | None,
        eos_id: int | None,
    ) -> Block:
        """What the encoder gave, with the tokens that begin and end each document, where there are such."""
        extra = (bos_id is not None) + (eos_id is not None)
        if not extra:
            return cls(ids.astype(dtype, copy=False), offsets, bytes)
        ends = offsets + extra * np.arange(len(offsets))
        result = np.empty(int(ends[-1]), dtype)
        is_text = np.ones(len(result), bool)
        for id, where in ((bos_id, ends[:-1]), (eos_id, ends[1:] - 1)):
            if id is not None:
                result[where] = id
                is_text[where] = False
        result[is_text] = ids
        return cls(result, ends, bytes)

    @classmethod
    def joined(cls, blocks: Sequence[Block]) -> Block:
        """The documents of one block after the other."""
        starts = np.cumsum([0, *(len(block.ids) for block in blocks)])
        offsets = [block.offsets[1:] + start for block, start in zip(blocks, starts[:-1], strict=True)]
        return cls(
            np.concatenate([block.ids for block in blocks]),
            np.concatenate([np.zeros(1, np.int64), *offsets]),
            np.concatenate([block.bytes for block in blocks]),
        )

    def take(self, rows: npt.NDArray[np.int64]) -> Block:
        """Some of the documents, in the order of `rows`."""
        if not len(rows):
            return Block(self.ids[:0], self.offsets[:1], self.bytes[:0])
        # Neighbours that stay neighbours are copied together.
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        starts = self.offsets[rows[np.concatenate(([0], cuts))]]
        ends = self.offsets[rows[np.concatenate((cuts - 1, [-1]))] + 1]
        runs = [self.ids[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        lengths = np.diff(self.offsets)[rows]
        return Block(
            runs[0] if len(runs) == 1 else np.concatenate(runs),
            np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths))),
            self.bytes[rows],
        )

    def cut(self, start: int, end: int) -> Block:
        """The documents from `start` to `end`."""
        first, last = int(self.offsets[start]), int(self.offsets[end])
        return Block(self.ids[first:last], self.offsets[start : end + 1] - first, self.bytes[start:end])

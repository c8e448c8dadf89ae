"""Some documents as ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bpe import _core
from bpe.shards.layout import Ids


class EncodedDocuments(NamedTuple):
    """Documents one after the other: document i is ``ids[offsets[i]:offsets[i + 1]]``, of `bytes[i]` bytes of text."""

    ids: Ids
    offsets: npt.NDArray[np.int64]
    """[documents + 1]; the first is 0."""
    bytes: npt.NDArray[np.int64]
    """[documents]"""

    @classmethod
    def joined(cls, blocks: Sequence[EncodedDocuments]) -> EncodedDocuments:
        """The documents of one block after the other."""
        starts = np.cumsum([0, *(len(block.ids) for block in blocks)])
        offsets = [block.offsets[1:] + start for block, start in zip(blocks, starts[:-1], strict=True)]
        return cls(
            np.concatenate([block.ids for block in blocks]),
            np.concatenate([np.zeros(1, np.int64), *offsets]),
            np.concatenate([block.bytes for block in blocks]),
        )

    def take(
        self,
        rows: npt.NDArray[np.int64],
        dtype: npt.DTypeLike = np.uint32,
        bos_id: int | None = None,
        eos_id: int | None = None,
    ) -> EncodedDocuments:
        """Some of the documents, in the order of `rows`, each with the tokens that begin and end it, if there are such.

        The ids of this block are uint32; those of the new one are of `dtype`, uint16 or uint32.
        """
        short = np.dtype(dtype).itemsize == 2
        ids, offsets = _core.take_documents(self.ids, self.offsets, rows, bos_id, eos_id, short)
        return EncodedDocuments(ids.astype(dtype, copy=False), offsets, self.bytes[rows])

    def cut(self, start: int, end: int) -> EncodedDocuments:
        """The documents from `start` to `end`."""
        first, last = int(self.offsets[start]), int(self.offsets[end])
        return EncodedDocuments(self.ids[first:last], self.offsets[start : end + 1] - first, self.bytes[start:end])

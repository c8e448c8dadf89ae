"""Encoded documents: their ids, one document after another, in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bpe import _core
from bpe.shards.layout import Ids


class EncodedDocuments(NamedTuple):
    """Documents one after another: document i is ``ids[offsets[i]:offsets[i + 1]]``, of `bytes[i]` bytes of text."""

    ids: Ids
    """uint16 or uint32 [tokens]"""
    offsets: npt.NDArray[np.int64]
    """[documents + 1]; the first offset is 0."""
    bytes: npt.NDArray[np.int64]
    """[documents]"""

    @classmethod
    def joined(cls, parts: Sequence[EncodedDocuments]) -> EncodedDocuments:
        """Return the documents of all parts, one part after another."""
        starts = np.cumsum([0, *(len(part.ids) for part in parts)])
        offsets = [part.offsets[1:] + start for part, start in zip(parts, starts[:-1], strict=True)]
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([np.zeros(1, np.int64), *offsets]),
            np.concatenate([part.bytes for part in parts]),
        )

    def take(
        self,
        rows: npt.NDArray[np.int64],
        dtype: npt.DTypeLike = np.uint32,
        bos_id: int | None = None,
        eos_id: int | None = None,
    ) -> EncodedDocuments:
        """Return some of the documents, each with the tokens that begin and end it.

        The ids of this object must be uint32.

        Args:
            rows: Numbers of the documents, in the order to return them. [documents]
            dtype: Type of the returned ids, uint16 or uint32.
            bos_id: The token to put before each document, or None.
            eos_id: The token to put after each document, or None.
        """
        short = np.dtype(dtype).itemsize == 2
        ids, offsets = _core.take_documents(self.ids, self.offsets, rows, bos_id, eos_id, short)
        return EncodedDocuments(ids.astype(dtype, copy=False), offsets, self.bytes[rows])

    def cut(self, start: int, end: int) -> EncodedDocuments:
        """Return the documents from number `start` up to, but not including, `end`."""
        first, last = int(self.offsets[start]), int(self.offsets[end])
        return EncodedDocuments(self.ids[first:last], self.offsets[start : end + 1] - first, self.bytes[start:end])

"""The split of documents into those to train on and those to hold out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bpe.shards.layout import HELD_OUT, TRAIN, Checksums

Places = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def places(checksums: Checksums, seed: int) -> Places:
    """Return the place of each document in [0, 1). A document is held out if its place is below the share.

    The finalizer of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators") mixes
    checksum and seed, so that similar checksums have very different places.

    Args:
        checksums: The CRC-32 of each document. uint32 [documents]
        seed: Selects other places. 0 to 2**64 - 1.
    """
    mixed = checksums.astype(np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    # Keep 53 bits, which a double holds exactly. The highest number of more bits would be rounded up to 1.
    result: Places = (mixed >> np.uint64(11)) / np.float64(2**53)
    return result


class Sides(NamedTuple):
    """Where the documents of a batch go: the rows of each split, in the order in which they are written."""

    rows: dict[str, Rows]
    waiting: int | None
    """The row of the document that waits from now on, or None."""


@dataclass
class Split:
    """Assigns each document to its side: trained on, or held out.

    The place of a document alone decides, so a document stays on its side when others are added or removed. But if a
    side would remain empty, the document whose place is nearest to it changes over: until both sides have a document,
    the nearest document so far waits.
    """

    share: float
    """Share of documents to hold out, in [0, 1)."""
    empty: bool = True
    """Whether no document has been added."""
    waiting: float | None = None
    """The place of the document that waits, or None."""

    def add(self, places: Places) -> Sides:
        """Return the sides of a batch. If a document waits, it is row 0, and the batch begins at row 1."""
        rows: dict[str, list[int]] = {TRAIN: [], HELD_OUT: []}
        settled = 0  # from this row on, the places alone decide
        waits = None
        if self.waiting is not None:
            places = np.concatenate(([self.waiting], places))
        if self.share > 0 and (self.empty or self.waiting is not None) and len(places):
            nearest, *others = places.tolist()
            waits, side, settled = 0, self._side(nearest), len(places)
            for row, place in enumerate(others, 1):
                if self._side(place) != side:
                    rows[side].append(waits)
                    waits, settled = None, row
                    break
                if place < nearest if side == TRAIN else place > nearest:
                    rows[side].append(waits)
                    waits, nearest = row, place
                else:
                    rows[side].append(row)
            self.waiting = None if waits is None else nearest
        self.empty = self.empty and not len(places)
        held = places[settled:] < self.share
        later = {TRAIN: np.flatnonzero(~held) + settled, HELD_OUT: np.flatnonzero(held) + settled}
        return Sides({side: np.concatenate((np.array(rows[side], np.int64), later[side])) for side in rows}, waits)

    def side_of_last(self) -> str:
        """Return the side of the document that still waits after the last batch: the empty side."""
        assert self.waiting is not None
        return TRAIN if self._side(self.waiting) == HELD_OUT else HELD_OUT

    def _side(self, place: float) -> str:
        return HELD_OUT if place < self.share else TRAIN

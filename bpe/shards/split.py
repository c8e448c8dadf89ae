"""Which documents are trained on, and which are held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bpe.shards.layout import HELD_OUT, TRAIN, Checksums

Places = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def places(checksums: Checksums, seed: int) -> Places:
    """Of each document a number in [0, 1) that follows from its CRC-32 and the seed: below the share, it is held out.

    They are mixed by the finalizer of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
    generators"), after which texts that differ little have places that differ much.
    """
    mixed = checksums.astype(np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    # 53 bits, which a double holds exactly: rounded up, the highest would be 1.
    result: Places = (mixed >> np.uint64(11)) / np.float64(2**53)
    return result


class Sides(NamedTuple):
    """What becomes of the documents of a batch: their rows, side by side, in the order in which they are written."""

    rows: dict[str, Rows]
    waiting: int | None
    """The row of the one that waits from now on."""


@dataclass
class Split:
    """Gives each document to its side.

    Its place alone decides, so it stays on its side when others come and go. But where a side would be left empty, the
    document whose place is nearest to it changes over: until both have something, the nearest one so far waits.
    """

    share: float
    """Of documents that are held out, in [0, 1)."""
    empty: bool = True
    """Whether no document has come yet."""
    waiting: float | None = None
    """The place of the document that waits."""

    def add(self, places: Places) -> Sides:
        """The sides of a batch. If a document waits, it is row 0, and those of the batch come after it."""
        rows: dict[str, list[int]] = {TRAIN: [], HELD_OUT: []}
        settled = 0  # from this row on, places alone decide
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
        """The side that the document goes to that waits at the end: the empty one."""
        assert self.waiting is not None
        return TRAIN if self._side(self.waiting) == HELD_OUT else HELD_OUT

    def _side(self, place: float) -> str:
        return HELD_OUT if place < self.share else TRAIN

"""How sure a ratio of sums over a text is: intervals by the percentile bootstrap.

The text is taken for a sample of texts like it. Of its n units, n are drawn again with replacement, many times; the
interval is what the middle 95% of the results lie in (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
chapter 13). A unit is a document, or, where there are few documents, a block of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]

BLOCK_BYTES = 1000  # of a document's blocks; the last is shorter
ENOUGH_DOCUMENTS = 100  # below it a text is drawn from in blocks
FEWEST_UNITS = 10  # below it there is no interval, which would be too narrow by far
MOST_UNITS = 10_000  # above it neighbours are drawn together, so that a million documents do not take a minute


def units(documents: npt.NDArray[np.int64], blocks: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str]:
    """What is drawn from, and what to call it.

    documents: int64 [blocks], the document that each block is of, in order.
    blocks: [rows, blocks], what is summed of each block.
    Returns [rows, units], and "documents" or "blocks of 1,000 bytes".
    """
    edges = np.flatnonzero(np.diff(documents, prepend=-1))
    if len(edges) >= ENOUGH_DOCUMENTS:
        return np.add.reduceat(blocks, edges, axis=1), "documents"
    return blocks, f"blocks of {BLOCK_BYTES:,} bytes"


def draw(sizes: npt.NDArray[Any], samples: int, seed: int) -> npt.NDArray[Any] | None:
    """The sums over units that are drawn at random, as many as there are: [samples, rows], of sizes [rows, units].

    None where there are too few units for an interval.
    """
    count = sizes.shape[1]
    if count < FEWEST_UNITS:
        return None
    if count > MOST_UNITS:
        sizes = np.add.reduceat(sizes, np.linspace(0, count, MOST_UNITS, endpoint=False).astype(np.int64), axis=1)
        count = MOST_UNITS
    generator = np.random.default_rng(seed)
    drawn = np.empty((samples, len(sizes)), sizes.dtype)
    for sample in drawn:
        times = np.bincount(generator.integers(0, count, count), minlength=count)
        sample[:] = sizes @ times
    return drawn


def middle(values: npt.NDArray[np.float64]) -> Interval:
    """What the middle 95% of the values lie in."""
    low, high = np.percentile(values, (2.5, 97.5)).tolist()
    return low, high


def shown(interval: Interval | None, format: str) -> str:
    """An interval in a table, each end by the format, such as ".2f"; a dash for what is not known."""
    return "–" if interval is None else f"{interval[0]:{format}} to {interval[1]:{format}}"

"""Confidence intervals of ratios of sums over a text, by the percentile bootstrap.

The text is regarded as a sample of similar texts. From its n units, n are drawn with replacement, many times. The
interval is the range of the middle 95% of the results (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
chapter 13). A unit is a document, or a block of a document if there are few documents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]

BLOCK_BYTES = 1000  # size of the blocks of a document; the last block is shorter
ENOUGH_DOCUMENTS = 100  # a text of fewer documents is drawn in blocks
FEWEST_UNITS = 10  # with fewer units there is no interval, because it would be far too narrow
MOST_UNITS = 10_000  # of more units, neighbours are drawn together, so that a million documents do not take a minute


def units(documents: npt.NDArray[np.int64], blocks: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str]:
    """Return the units to draw, and what to call them.

    Args:
        documents: The document that each block belongs to, in order. int64 [blocks]
        blocks: The numbers to sum, for each block. [rows, blocks]

    Returns:
        The numbers for each unit, [rows, units], and "documents" or "blocks of 1,000 bytes".
    """
    edges = np.flatnonzero(np.diff(documents, prepend=-1))
    if len(edges) >= ENOUGH_DOCUMENTS:
        return np.add.reduceat(blocks, edges, axis=1), "documents"
    return blocks, f"blocks of {BLOCK_BYTES:,} bytes"


def draw_sums(sizes: npt.NDArray[Any], samples: int, seed: int) -> npt.NDArray[Any] | None:
    """Draw as many units as there are, with replacement, and sum them; repeat for each sample.

    Args:
        sizes: The numbers to sum. [rows, units]
        samples: How many times to draw.
        seed: The seed of the draws.

    Returns:
        The sums, [samples, rows], or None if there are too few units for an interval.
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


def middle_95(values: npt.NDArray[np.float64]) -> Interval:
    """Return the range of the middle 95% of the values."""
    low, high = np.percentile(values, (2.5, 97.5)).tolist()
    return low, high


def interval_text(interval: Interval | None, format: str) -> str:
    """Return an interval for a table, each end in a format such as ".2f", or a dash for None."""
    return "–" if interval is None else f"{interval[0]:{format}} to {interval[1]:{format}}"

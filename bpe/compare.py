"""Tokenizers side by side on one text, and how sure the differences are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .report import Table, decimal, measures, percent
from .tokenizer import Tokenizer
from .usage import BLOCK_BYTES, Counts, Vocabulary, usages_of

Interval = tuple[float, float]

ENOUGH_DOCUMENTS = 100  # below it a text is drawn from in blocks
FEWEST_UNITS = 10  # below it there is no interval, which would be too narrow by far
MOST_UNITS = 10_000  # above it neighbours are drawn together, so that a million documents do not take a minute


def compare(
    tokenizers: Sequence[tuple[str, Tokenizer]],
    documents: Iterable[bytes],
    *,
    name: str = "the text",
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """What each tokenizer makes of the same documents, with 95% intervals by the paired percentile bootstrap.

    The text is taken for a sample of texts like it. Of its n units, n are drawn again with replacement, for all
    tokenizers the same ones, `samples` times; the interval is what the middle 95% of the results lie in (Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). A unit is a document, or, where there are fewer
    than 100 documents, a block of 1,000 bytes of one, whose tokens are those that begin in it.

    Args:
        tokenizers: each with what to call it; the first is what the others are set against.
        documents: the text, which is read once.
        name: of the text, for messages.
        samples: how many times it is drawn.
        seed: of the draws; the same seed gives the same intervals.

    Returns:
        "documents", "bytes", "units", "unit", "samples", "seed", and "tokenizers": for each its name, its vocabulary
        and the measures of `bpe.report.measures`, "bytes_per_token_interval", "tokens_relative" to the first (the
        normalized sequence length of Dagan et al., "Getting the Most out of Your Tokenizer", 2024, over the whole
        text), and "tokens_relative_interval". Intervals are None for a text of fewer than 10 units.

    Raises:
        InputError: the documents hold no text.
    """
    usages = usages_of([tokenizer for _, tokenizer in tokenizers], documents, name)
    blocks = [usage.blocks for usage in usages if usage.blocks is not None]
    # sizes: the bytes of each unit, and its tokens by each tokenizer: [1 + tokenizers, units].
    sizes = np.stack([blocks[0][1], *(block[2] for block in blocks)])
    edges = np.flatnonzero(np.diff(blocks[0][0], prepend=-1))
    unit = f"blocks of {BLOCK_BYTES:,} bytes"
    if len(edges) >= ENOUGH_DOCUMENTS:
        sizes, unit = np.add.reduceat(sizes, edges, axis=1), "documents"
    sums = _draw(sizes, samples, seed)
    rows = []
    for number, ((label, tokenizer), usage) in enumerate(zip(tokenizers, usages, strict=True), 1):
        measured = measures(Vocabulary(tokenizer), usage)
        first, tokens = int(sizes[1].sum()), int(sizes[number].sum())
        rows.append(
            measured
            | {
                "name": label,
                "vocabulary": len(tokenizer._mergeable_ranks) + len(tokenizer.special_tokens),
                "bytes_per_token_interval": None if sums is None else _middle(sums[:, 0] / sums[:, number]),
                "tokens_relative": tokens / first,
                "tokens_relative_interval": None if sums is None else _middle(sums[:, number] / sums[:, 1]),
            }
        )
    return {
        "documents": usages[0].documents,
        "bytes": int(sizes[0].sum()),
        "units": sizes.shape[1],
        "unit": unit,
        "samples": samples,
        "seed": seed,
        "tokenizers": rows,
    }


def _draw(sizes: Counts, samples: int, seed: int) -> npt.NDArray[np.int64] | None:
    """The sums over units that are drawn at random, as many as there are: [samples, rows of sizes]."""
    units = sizes.shape[1]
    if units < FEWEST_UNITS:
        return None
    if units > MOST_UNITS:
        sizes = np.add.reduceat(sizes, np.linspace(0, units, MOST_UNITS, endpoint=False).astype(np.int64), axis=1)
        units = MOST_UNITS
    generator = np.random.default_rng(seed)
    drawn = np.empty((samples, len(sizes)), np.int64)
    for sample in drawn:
        times = np.bincount(generator.integers(0, units, units), minlength=units)
        sample[:] = sizes @ times
    return np.maximum(drawn, 1)  # units without a token's beginning may be all that is drawn


def _middle(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5)).tolist()
    return low, high


def table(comparison: Mapping[str, Any]) -> Table:
    """A comparison as people read it."""
    header = (
        *("tokenizer", "vocabulary", "tokens", "bytes/token", "95%", "tokens/word", "split words", "unused"),
        *("relative", "95%"),
    )
    rows = []
    for row in comparison["tokenizers"]:
        rows.append(
            [
                row["name"],
                f"{row['vocabulary']:,}",
                f"{row['tokens']:,}",
                decimal(row["bytes_per_token"]),
                _interval(row["bytes_per_token_interval"], 2),
                decimal(row["tokens_per_word"]),
                percent(row["continued_words"]),
                percent(row["never_used_share"]),
                f"{row['tokens_relative']:.3f}",
                _interval(row["tokens_relative_interval"], 3),
            ]
        )
    return Table("Comparison", header, rows)


def _interval(interval: Interval | None, digits: int) -> str:
    return "–" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"

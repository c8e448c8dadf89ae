"""Comparison of tokenizers on one text, with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bpe.analysis.bootstrap import draw_sums, interval_text, middle_95, units
from bpe.analysis.report import measures
from bpe.analysis.tables import Table, decimal, percent
from bpe.analysis.token_arrays import TokenArrays
from bpe.analysis.usage import usages_of
from bpe.tokenizer import Tokenizer


def compare(
    tokenizers: Sequence[tuple[str, Tokenizer]],
    documents: Iterable[bytes],
    *,
    name: str = "the text",
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Encode the same documents with each tokenizer and measure it, with 95% intervals by the paired bootstrap.

    The intervals are those of `bpe.analysis.bootstrap`, with the same units drawn for all tokenizers. A unit is a
    document, or a block of 1,000 bytes if there are fewer than 100 documents. The tokens of a block are those that
    begin in it.

    Args:
        tokenizers: Pairs of a name and a tokenizer. The others are compared with the first.
        documents: The text, which is read once.
        name: The name of the text, for messages.
        samples: How many times to draw.
        seed: The seed of the draws; the same seed gives the same intervals.

    Returns:
        A dict with "documents", "bytes", "units", "unit", "samples", "seed" and "tokenizers". The last has for each
        tokenizer "name", "vocabulary", the measures of `bpe.analysis.report.measures`, "bytes_per_token_interval",
        "tokens_relative" to the first tokenizer, and "tokens_relative_interval". "tokens_relative" is the normalized
        sequence length of Dagan et al., "Getting the Most out of Your Tokenizer", 2024, over the whole text. Intervals
        are None for a text of fewer than 10 units.

    Raises:
        InputError: When the documents hold no text.
    """
    usages = usages_of([tokenizer for _, tokenizer in tokenizers], documents, name)
    blocks = [usage.blocks for usage in usages if usage.blocks is not None]
    # sizes: the bytes of each unit, and its tokens by each tokenizer: [1 + tokenizers, units].
    sizes = np.stack([blocks[0][1], *(block[2] for block in blocks)])
    sizes, unit = units(blocks[0][0], sizes)
    sums = draw_sums(sizes, samples, seed)
    if sums is not None:
        sums = np.maximum(sums, 1)  # a draw may hold only blocks in which no token begins
    rows = []
    for number, ((label, tokenizer), usage) in enumerate(zip(tokenizers, usages, strict=True), 1):
        measured = measures(TokenArrays(tokenizer), usage)
        first, tokens = int(sizes[1].sum()), int(sizes[number].sum())
        rows.append(
            measured
            | {
                "name": label,
                "vocabulary": tokenizer.vocabulary.token_count,
                "bytes_per_token_interval": None if sums is None else middle_95(sums[:, 0] / sums[:, number]),
                "tokens_relative": tokens / first,
                "tokens_relative_interval": None if sums is None else middle_95(sums[:, number] / sums[:, 1]),
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


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """Return a comparison as a table."""
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
                interval_text(row["bytes_per_token_interval"], ".2f"),
                decimal(row["tokens_per_word"]),
                percent(row["continued_words"]),
                percent(row["never_used_share"]),
                f"{row['tokens_relative']:.3f}",
                interval_text(row["tokens_relative_interval"], ".3f"),
            ]
        )
    return Table("Comparison", header, rows, importance=(3, 8, 2, 1, 5, 9, 7, 6, 4))

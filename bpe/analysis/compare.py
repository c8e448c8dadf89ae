"""Tokenizers side by side on one text, and how sure the differences are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bpe.analysis.bootstrap import draw, middle, shown, units
from bpe.analysis.report import measures
from bpe.analysis.tables import Table, decimal, percent
from bpe.analysis.usage import Vocabulary, usages_of
from bpe.tokenizer import Tokenizer


def compare(
    tokenizers: Sequence[tuple[str, Tokenizer]],
    documents: Iterable[bytes],
    *,
    name: str = "the text",
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """What each tokenizer makes of the same documents, with 95% intervals by the paired percentile bootstrap.

    It is that of `bpe.analysis.bootstrap`, with the same units drawn for all tokenizers. A unit is a document, or,
    where there
    are fewer than 100 documents, a block of 1,000 bytes of one, whose tokens are those that begin in it.

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
    sizes, unit = units(blocks[0][0], sizes)
    sums = draw(sizes, samples, seed)
    if sums is not None:
        sums = np.maximum(sums, 1)  # units without a token's beginning may be all that is drawn
    rows = []
    for number, ((label, tokenizer), usage) in enumerate(zip(tokenizers, usages, strict=True), 1):
        measured = measures(Vocabulary(tokenizer), usage)
        first, tokens = int(sizes[1].sum()), int(sizes[number].sum())
        rows.append(
            measured
            | {
                "name": label,
                "vocabulary": len(tokenizer._mergeable_ranks) + len(tokenizer.special_tokens),
                "bytes_per_token_interval": None if sums is None else middle(sums[:, 0] / sums[:, number]),
                "tokens_relative": tokens / first,
                "tokens_relative_interval": None if sums is None else middle(sums[:, number] / sums[:, 1]),
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
                shown(row["bytes_per_token_interval"], ".2f"),
                decimal(row["tokens_per_word"]),
                percent(row["continued_words"]),
                percent(row["never_used_share"]),
                f"{row['tokens_relative']:.3f}",
                shown(row["tokens_relative_interval"], ".3f"),
            ]
        )
    return Table("Comparison", header, rows)

"""What `Sequences` reads: the next tokens of some texts, and which of them can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bpe.errors import InputError


class Part(NamedTuple):
    """The next tokens of a text."""

    sequence: int
    """The number of the text."""
    ids: Sequence[int]
    """The ids that follow those that are stored."""
    wanted: int = 1
    """The number of its last ids after which logits are wanted; 0 for none."""


def check_parts(parts: Sequence[Part], lengths: Sequence[int], vocabulary: int, context: int) -> None:
    """Raise InputError for parts that cannot be read.

    Args:
        parts: The parts.
        lengths: The number of stored tokens of each text.
        vocabulary: The number of ids.
        context: The largest number of tokens of a text.
    """
    seen: set[int] = set()
    for sequence, ids, wanted in parts:
        if not 0 <= sequence < len(lengths) or sequence in seen:
            raise InputError(f"the text {sequence} is named twice or is none of the {len(lengths)}")
        seen.add(sequence)
        if len(ids) == 0 or not 0 <= wanted <= len(ids):
            raise InputError(f"logits are wanted after {wanted} of {len(ids)} ids; give at least one id, and no more")
        if not 0 <= min(ids) <= max(ids) < vocabulary:
            raise InputError(f"ids range from {min(ids)} to {max(ids)}; they must be 0 to {vocabulary - 1}")
        if lengths[sequence] + len(ids) > context:
            raise InputError(
                f"{lengths[sequence] + len(ids):,} tokens, but the model's context holds {context:,}; shorten the input"
            )

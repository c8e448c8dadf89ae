"""Weights of sources as whole numbers."""

from __future__ import annotations

from collections.abc import Sequence

from bpe.errors import InputError


def whole_weights(weights: Sequence[float | str] | None, sources: int) -> tuple[list[int] | None, int]:
    """Scale weights to whole numbers.

    Args:
        weights: One number for each source, or None for no weights.
        sources: Number of sources.

    Returns:
        The whole numbers and the factor by which they were scaled.

    Raises:
        InputError: The number of weights is wrong, or a weight is not a positive number or has too many digits.
    """
    if weights is None:
        return None, 1
    from fractions import Fraction  # imports decimal: 5 ms, needed only for weights
    from math import lcm

    if len(weights) != sources:
        raise InputError(f"there are {len(weights)} weights for {sources} sources; give one for each")
    try:
        fractions = [Fraction(str(weight)) for weight in weights]
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"a weight is not a number: {error}") from error
    for weight, fraction in zip(weights, fractions, strict=True):
        if fraction <= 0:
            raise InputError(f"a weight is {weight}; it must be greater than 0, or leave the source out")
    scale = lcm(*(fraction.denominator for fraction in fractions))
    whole = [int(fraction * scale) for fraction in fractions]
    if max([scale, *whole]) >= 1 << 32:
        raise InputError(f"the weights {', '.join(map(str, weights))} have too many digits; give them fewer")
    return whole, scale

"""Sets of code points as sorted ranges: union, complement, intersection, and difference."""

from __future__ import annotations

from collections.abc import Iterable

from bpe.splitting.program import Set

LAST = 0x10FFFF
NONE: Set = ()
ALL: Set = (0, LAST)
"""All code points. Surrogates are among them: the core takes bytes that are not UTF-8 for surrogates."""


def pairs(chars: Set) -> list[tuple[int, int]]:
    """Return the ranges of a set as pairs."""
    return list(zip(chars[::2], chars[1::2], strict=True))


def from_pairs(ranges: Iterable[tuple[int, int]]) -> Set:
    """Return the set of the characters in the ranges, which may overlap and have any order.

    >>> from_pairs([(98, 99), (97, 98), (101, 101)])
    (97, 99, 101, 101)
    """
    flat: list[int] = []
    end = -1
    for first, last in sorted(ranges):
        if first <= end and flat:
            if last >= end:
                flat[-1] = last
                end = last + 1
        else:
            flat += (first, last)
            end = last + 1
    return tuple(flat)


def span(first: int, last: int) -> Set:
    """Return the set of the characters from `first` to `last`."""
    return from_pairs([(first, last)])


def union(*sets: Set) -> Set:
    """Return the characters that are in any of the sets."""
    kept = [chars for chars in sets if chars]
    if len(kept) < 2:
        return kept[0] if kept else NONE
    return from_pairs(pair for chars in kept for pair in zip(chars[::2], chars[1::2], strict=True))


def complement(chars: Set) -> Set:
    """Return the code points that are not in the set.

    >>> complement((0, 96, 98, 0x10FFFF))
    (97, 97)
    """
    flat = [0, *chars, LAST]
    for index in range(1, len(flat) - 1, 2):
        flat[index] -= 1
        flat[index + 1] += 1
    begin = 2 if flat[1] < 0 else 0
    end = len(flat) - 2 if flat[-2] > LAST else len(flat)
    return tuple(flat[begin:end])


def intersection(one: Set, other: Set) -> Set:
    """Return the characters that are in both sets."""
    flat: list[int] = []
    i = j = 0
    while i < len(one) and j < len(other):
        first = max(one[i], other[j])
        last = min(one[i + 1], other[j + 1])
        if first <= last:
            flat += (first, last)
        if one[i + 1] < other[j + 1]:
            i += 2
        else:
            j += 2
    return tuple(flat)


def difference(one: Set, other: Set) -> Set:
    """Return the characters of the first set that are not in the second."""
    return intersection(one, complement(other))


def size(chars: Set) -> int:
    """Return the number of characters in a set."""
    return sum(chars[1::2]) - sum(chars[::2]) + len(chars) // 2

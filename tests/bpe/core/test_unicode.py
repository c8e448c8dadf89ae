"""Test the character classes against tiktoken's regex engine: a single wrong code point would give wrong ids."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bpe import _core
from support.references import CLASSES, CODE_POINTS, LETTER, NEWLINE, NUMBER, SPACE, matching_characters


@pytest.fixture(scope="module")
def classes() -> Sequence[int]:
    """The class bits of each code point; 0 for surrogates, which are not characters."""
    bits = [0] * 0x110000
    for point in CODE_POINTS:
        bits[point] = _core.classes_of(point)
    return bits


@pytest.mark.parametrize(("pattern", "bit"), CLASSES.items())
def test_every_code_point_has_the_class_that_it_has_in_tiktoken(classes: Sequence[int], pattern: str, bit: int) -> None:
    ours = {chr(point) for point in CODE_POINTS if classes[point] & bit}
    assert ours == matching_characters(pattern)


@pytest.mark.parametrize(("bit", "count"), [(LETTER, 141_028), (NUMBER, 1_911), (SPACE, 25), (NEWLINE, 2)])
def test_the_classes_have_the_sizes_of_unicode_16(classes: Sequence[int], bit: int, count: int) -> None:
    assert sum(1 for bits in classes if bits & bit) == count


def test_letters_numbers_and_spaces_are_disjoint(classes: Sequence[int]) -> None:
    kinds = (LETTER, NUMBER, SPACE)
    assert all(sum(1 for kind in kinds if bits & kind) <= 1 for bits in set(classes))


@pytest.mark.parametrize("beyond", [0x110000, 2**31, 2**32 - 1])
def test_values_beyond_the_last_code_point_are_refused(beyond: int) -> None:
    with pytest.raises((ValueError, IndexError)):
        _core.classes_of(beyond)

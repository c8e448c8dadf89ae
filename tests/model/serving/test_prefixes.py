"""What of the memory of keys and values is kept and shared."""

from __future__ import annotations

import numpy as np
import pytest

from model.generation.sequences import Part
from model.serving.prefixes import Ids, Prefixes, Slot, common_prefix
from tests.support.toy_sequences import ToySequences


def ids(*numbers: int) -> Ids:
    return np.array(numbers, np.int64)


def new_prefixes(count: int, memory: int, grain: int = 1) -> Prefixes:
    sequences = ToySequences(count)
    sequences.grain = grain
    return Prefixes(sequences, memory)


def run(prefixes: Prefixes, prompt: Ids, answer: Ids, limit: int | None = None) -> Slot:
    """Read a prompt and an answer, as a text does that runs."""
    slot = prefixes.take(prompt, limit or len(prompt) + len(answer), len(prompt) - 1)
    assert slot is not None
    for part in (prompt[slot.length :], answer):
        prefixes.grow(slot, slot.length + len(part))
        prefixes._sequences.read([Part(slot.number, part.tolist(), 0)])
        slot.append(part)
        slot.prompt = None
    return slot


def numbers(slot: Slot) -> list[int]:
    return slot.ids[: slot.length].tolist()


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [([], [1], 0), ([1], [], 0), ([2], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 5, 3], 1), ([1, 2], [1, 2], 2)],
)
def test_a_common_prefix_ends_where_ids_differ(one: list[int], other: list[int], count: int) -> None:
    assert common_prefix(ids(*one), ids(*other)) == count


def test_a_continued_text_takes_over_its_sequence() -> None:
    prefixes = new_prefixes(3, 1000)
    first = run(prefixes, ids(1, 2, 3), ids(4, 5))
    prefixes.release(first)
    again = prefixes.take(ids(1, 2, 3, 4, 5, 6), 10, 5)
    assert again is first and numbers(again) == [1, 2, 3, 4, 5]
    assert prefixes.kept == 0


def test_a_text_that_differs_copies_what_is_shared_and_the_rest_is_kept() -> None:
    prefixes = new_prefixes(3, 1000)
    first = run(prefixes, ids(1, 2, 3), ids(4, 5))
    prefixes.release(first)
    other = prefixes.take(ids(1, 2, 9), 10, 2)
    assert other is not None and other is not first and numbers(other) == [1, 2]
    assert numbers(first) == [1, 2, 3, 4, 5] and prefixes.kept == 1


def test_texts_copy_from_running_texts() -> None:
    prefixes = new_prefixes(3, 1000)
    first = run(prefixes, ids(1, 2, 3), ids(4, 5))
    other = prefixes.take(ids(1, 2, 3, 4, 9), 10, 4)
    assert other is not None and other is not first and numbers(other) == [1, 2, 3, 4]
    assert first.limit and numbers(first) == [1, 2, 3, 4, 5]


def test_the_text_unused_for_longest_is_dropped_first() -> None:
    prefixes = new_prefixes(3, 1000)
    slots = [run(prefixes, ids(first, 2, 3), ids(4)) for first in (1, 2, 3)]
    for slot in slots:
        prefixes.release(slot)
    used = prefixes.take(ids(1, 2, 3, 4, 5), 10, 4)  # now the second one is the oldest
    assert used is slots[0]
    new = prefixes.take(ids(7, 7), 10, 1)
    assert new is slots[1] and numbers(new) == []
    assert numbers(slots[2]) == [3, 2, 3, 4]


def test_a_text_waits_while_running_texts_may_need_the_memory() -> None:
    prefixes = new_prefixes(4, 300)  # for 30 tokens
    first = run(prefixes, ids(1, 2), ids(3), limit=20)
    kept = run(prefixes, ids(5, 6), ids(7), limit=5)
    prefixes.release(kept)
    assert prefixes.take(ids(8, 8), 11, 1) is None
    assert prefixes.kept == 1  # nothing is dropped for a text that has to wait
    assert prefixes.take(ids(8, 8), 10, 1) is not None
    assert prefixes.kept == 0
    prefixes.release(first)
    assert prefixes.kept == 1 and prefixes.fits(30) and not prefixes.fits(31)


def test_the_source_is_taken_over_where_memory_is_short() -> None:
    prefixes = new_prefixes(4, 100)
    first = run(prefixes, ids(1, 2, 3, 4), ids(5, 6))
    prefixes.release(first)
    other = prefixes.take(ids(1, 2, 9), 8, 2)
    assert other is first and numbers(other) == [1, 2]


def test_only_whole_grains_of_prompts_are_shared() -> None:
    prefixes = new_prefixes(5, 3000, grain=4)
    first = run(prefixes, ids(*range(10)), ids(10, 11, 12))
    prefixes.release(first)
    for length, reused in ((3, 0), (6, 4), (10, 8), (12, 8)):
        other = prefixes.take(ids(*range(length), 99), 40, length)
        assert other is not None and other.length == reused
        prefixes.drop(other)

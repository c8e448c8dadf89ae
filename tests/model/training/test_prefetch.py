"""Reading of data ahead of its step."""

from __future__ import annotations

from model.training.prefetch import Prefetcher


def test_the_following_batch_is_read_ahead_and_any_other_at_once() -> None:
    read: list[int] = []
    ahead = Prefetcher(lambda number: read.append(number) or [number])  # type: ignore[func-returns-value]
    assert [ahead.get(0, 1), ahead.get(1, 2), ahead.get(7, 8), ahead.get(8, 9)] == [[0], [1], [7], [8]]
    ahead.close()
    assert read[:4] in ([0, 1, 2, 7], [0, 1, 7, 2])
    assert set(read) <= {0, 1, 2, 7, 8, 9}

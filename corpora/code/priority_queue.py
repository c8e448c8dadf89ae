"""A priority queue built on a binary heap, with priorities that can change.

The heap is a list in which the parent of the item at position i stands at
position (i - 1) // 2 and is never larger than the item itself. A dictionary
remembers where every item stands, so that its priority can be lowered or
raised in O(log n) steps.
"""

from __future__ import annotations

from typing import Generic, Hashable, Iterator, TypeVar

T = TypeVar("T", bound=Hashable)


class PriorityQueue(Generic[T]):
    """Items with the smallest priority come out first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, T]] = []
        self._place: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def __contains__(self, item: object) -> bool:
        return item in self._place

    def push(self, item: T, priority: float) -> None:
        """Add an item, or give an item already present a new priority."""
        if item in self._place:
            i = self._place[item]
            self._heap[i] = (priority, item)
        else:
            i = len(self._heap)
            self._heap.append((priority, item))
            self._place[item] = i
        self._sink(self._rise(i))

    def pop(self) -> tuple[T, float]:
        """Remove and return the item with the smallest priority."""
        if not self._heap:
            raise IndexError("pop from an empty queue")
        priority, item = self._heap[0]
        last = self._heap.pop()
        del self._place[item]
        if self._heap:
            self._heap[0] = last
            self._place[last[1]] = 0
            self._sink(0)
        return item, priority

    def drain(self) -> Iterator[T]:
        """Yield the items in order until the queue is empty."""
        while self._heap:
            yield self.pop()[0]

    def _swap(self, i: int, j: int) -> None:
        heap = self._heap
        heap[i], heap[j] = heap[j], heap[i]
        self._place[heap[i][1]] = i
        self._place[heap[j][1]] = j

    def _rise(self, i: int) -> int:
        while i > 0:
            parent = (i - 1) // 2
            if self._heap[parent][0] <= self._heap[i][0]:
                break
            self._swap(i, parent)
            i = parent
        return i

    def _sink(self, i: int) -> int:
        n = len(self._heap)
        while True:
            child = 2 * i + 1
            if child >= n:
                return i
            if child + 1 < n and self._heap[child + 1][0] < self._heap[child][0]:
                child += 1
            if self._heap[i][0] <= self._heap[child][0]:
                return i
            self._swap(i, child)
            i = child


if __name__ == "__main__":
    queue: PriorityQueue[str] = PriorityQueue()
    for task, urgency in [("sleep", 9), ("eat", 3), ("work", 5), ("breathe", 1)]:
        queue.push(task, urgency)
    queue.push("sleep", 2)
    assert list(queue.drain()) == ["breathe", "sleep", "eat", "work"]
    print("all in order")

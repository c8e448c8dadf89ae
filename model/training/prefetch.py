"""Reading of data ahead of the step that needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Prefetcher:
    """Reads the batch of the next step in a thread of its own while a step is made."""

    def __init__(self, read: Callable[[int], Sequence[Any]]) -> None:
        """Start the thread.

        Args:
            read: Returns the micro-batches of a batch number.
        """
        self._read, self._thread = read, ThreadPoolExecutor(1)
        self._number, self._reading = -1, Future[Sequence[Any]]()

    def get(self, number: int, following: int) -> Sequence[Any]:
        """Return the micro-batches of a batch number, and start to read those of the following number."""
        batches = self._reading.result() if self._number == number else self._read(number)
        self._number, self._reading = following, self._thread.submit(self._read, following)
        return batches

    def close(self) -> None:
        """End the thread, after the read under way."""
        self._thread.shutdown(cancel_futures=True)

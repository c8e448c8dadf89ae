"""Count the pretokens of a corpus, in memory while they fit, otherwise on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bpe import _core
from bpe.errors import InputError
from bpe.patterns import Pattern
from bpe.training.work import WorkDirectory

if TYPE_CHECKING:
    from bpe.corpus import Invalid, LeftOut, TextBatch

# Memory of the process beside the counts: text that is being read, and what the allocator does not return.
_BESIDE_COUNTS = 64 << 20
_LEAST_FOR_COUNTS = 16 << 20


@dataclass(frozen=True)
class CountedPretokens:
    """The pretokens of a corpus with their counts, ready for merging."""

    counts: _core.Counter | str
    """The counts in memory, or the path of the file that holds them."""
    on_disk: bool
    distinct: int | None
    """Number of distinct pretokens in memory; None if the counts are on disk."""
    documents: int
    size: int
    """Bytes of text, without weights."""
    memory: int = 0
    """Bytes that merging may use; 0 for no limit."""
    invalid: Sequence[Invalid] = ()
    """The files with bytes that are not UTF-8."""
    left_out: Sequence[LeftOut] = ()
    """The binary files of directories, which were not read."""
    read: int = 0
    """Bytes of the files, as they are on disk."""
    total: int | None = None
    """Bytes of all files, as they are on disk; None if unknown."""
    unmatched: int = 0
    """Bytes of the text that this process counted and that the split pattern leaves out."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no pretoken at all."""
        return self.distinct == 0


class CorpusCounter:
    """Counts the pretokens of batches of text within a limit of memory."""

    def __init__(
        self,
        pattern: Pattern,
        special_tokens: Sequence[str],
        threads: int,
        max_memory: int | None,
        work: WorkDirectory,
    ) -> None:
        """Start counting, or resume from what `work` holds.

        Args:
            pattern: The split pattern.
            special_tokens: Boundaries in the text, which are not counted.
            threads: Number of threads that count.
            max_memory: Most memory that this process may use, in bytes; None for no limit.
            work: The directory for counts that do not fit into memory and for the state of the run.

        Raises:
            InputError: `max_memory` leaves too little for counting.
        """
        matcher = _core.SpecialTokens(dict.fromkeys(special_tokens, 0))
        self.counter: _core.Counter = _core.Counter(pattern.splitter(), matcher)
        self._threads = threads
        self._work = work
        self._limit = None if max_memory is None else _limit_of_counts(max_memory)
        self.documents: int = work.documents
        self.size: int = work.size
        self._position = work.position

    def add(self, batch: TextBatch) -> None:
        """Count a batch. Writes the counts to disk when they take too much memory or when it is time to save."""
        self.counter.add(batch.texts, batch.weight, self._threads)
        self.documents += batch.documents
        self.size += batch.size
        self._position = batch.position
        # Writing counts takes a third of their memory beside them, to sort them.
        if self._work.is_due or (self._limit is not None and self.counter.memory() > self._limit * 2 // 3):
            self._save()

    def finish(self) -> None:
        """Write the counts to disk if some are there already, if saving is due, or if merging needs their memory."""
        words = self.counter.cells() * 4
        is_large = self._limit is not None and self.counter.memory() + words * 2 > self._limit
        if self._work.runs or self._work.is_due or is_large:
            self._save(counted=True)

    def memory_left(self) -> int:
        """Return the bytes that merging may use; 0 for no limit."""
        return 0 if self._limit is None else max(1 << 26, self._limit - self.counter.memory())

    def _save(self, *, counted: bool = False) -> None:
        self._work.save_counts(self.counter, self._position, self.documents, self.size, counted=counted)


def _limit_of_counts(max_memory: int) -> int:
    """Return the bytes that counts may take of the memory of this process."""
    resident = resident_memory()
    limit = max_memory - resident - _BESIDE_COUNTS
    if limit < _LEAST_FOR_COUNTS:
        least = resident + _BESIDE_COUNTS + _LEAST_FOR_COUNTS
        raise InputError(
            f"max_memory is {max_memory / 1e6:,.0f} MB; it must be at least {least / 1e6:,.0f} MB, of which this"
            f" process uses {resident / 1e6:,.0f} MB already"
        )
    return limit


def resident_memory() -> int:
    """Return the resident memory of this process in bytes; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0

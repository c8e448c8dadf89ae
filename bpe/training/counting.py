"""Counts of pretokens, in memory as long as they fit, else on disk; and work that can be taken up again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from bpe import _core
from bpe.corpus import TextBatch
from bpe.errors import InputError
from bpe.patterns import Pattern
from bpe.training.work import WorkDirectory


class Count:
    """Counts what batches hold, within a limit of memory."""

    def __init__(
        self,
        pattern: Pattern,
        special_tokens: Sequence[str],
        threads: int,
        max_memory: int | None,
        work: WorkDirectory,
    ) -> None:
        matcher = _core.SpecialTokens(dict.fromkeys(special_tokens, 0))
        self.counter = _core.Counter(0 if pattern.scanner is None else pattern.scanner, matcher)
        self._split = pattern.compile() if pattern.scanner is None else None
        self._matcher = matcher
        self._threads = threads
        self._work = work
        self._limit: int | None = None
        if max_memory is not None:
            self._limit = max_memory - resident_memory() - _BESIDE
            if self._limit < _LEAST:
                raise InputError(
                    f"max_memory is {max_memory / 1e6:,.0f} MB; it must be at least"
                    f" {(max_memory - self._limit + _LEAST) / 1e6:,.0f} MB, of which this process has"
                    f" {resident_memory() / 1e6:,.0f} MB now"
                )
        self.documents = work.documents
        self.size = work.size
        self._position = work.position

    def add(self, batch: TextBatch) -> None:
        if self._split is None:
            self.counter.add(batch.texts, batch.weight, self._threads)
        else:
            for text in batch.texts:
                self._add_slowly(text if isinstance(text, bytes) else _bytes_of(text), batch.weight)
        self.documents += batch.documents
        self.size += batch.size
        self._position = batch.position
        # Writing counts out takes a third of their memory beside them, for putting them in order.
        if self._work.is_due or (self._limit is not None and self.counter.memory() > self._limit * 2 // 3):
            self._save()

    def finish(self) -> _core.Counter | str:
        """The counts, or the file that they are in."""
        words = self.counter.cells() * 4
        is_large = self._limit is not None and self.counter.memory() + words * 2 > self._limit
        if self._work.runs or self._work.is_due or is_large:
            self._save(counted=True)
            return self._work.counts()
        return self.counter

    def memory_left(self) -> int:
        """For merging what `finish` gave, in bytes; 0 for no limit."""
        return 0 if self._limit is None else max(1 << 26, self._limit - self.counter.memory())

    def _save(self, *, counted: bool = False) -> None:
        self._work.save_counts(self.counter, self._position, self.documents, self.size, counted=counted)

    def _add_slowly(self, document: bytes, weight: int) -> None:
        assert self._split is not None
        begin = 0
        for start, end, _ in [*self._matcher.all_in(document), (len(document), len(document), 0)]:
            part = document[begin:start].decode("utf-8", "surrogateescape")
            pretokens = (match.group().encode("utf-8", "surrogateescape") for match in self._split.finditer(part))
            while block := list(islice(pretokens, 1 << 16)):
                self.counter.add_pretokens(block, weight)
            begin = end


# What the process takes beside counts: text on its way, and what the allocator does not give back.
_BESIDE = 64 << 20
_LEAST = 16 << 20


def resident_memory() -> int:
    """Of this process, in bytes; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _bytes_of(text: Any) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)

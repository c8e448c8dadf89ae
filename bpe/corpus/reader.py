"""The corpus reader: text in batches for training and sharding, read ahead of its use, resumable after each batch."""

from __future__ import annotations

import itertools
import json
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from bpe.corpus.binaries import LeftOut
from bpe.corpus.feed import Cleaner, Feed, FeedState, Invalid, ReadOptions, TextBytes
from bpe.errors import InputError

Position = dict[str, Any]


class TextBatch(NamedTuple):
    """Texts of one source, or of several sources of equal weight."""

    texts: list[TextBytes]
    """Documents, or pieces of one. They are well-formed UTF-8, unless `cut` cuts within a character."""
    source: int
    """The number of the source; of several, that of the first."""
    weight: int
    """The weight of the texts."""
    documents: int
    """How many documents end in this batch."""
    size: int
    """Size of the texts, in bytes."""
    read: int
    """Bytes of all files that have been read so far, as stored on disk, including those of an earlier reader."""
    position: Position
    """Where to resume: `start` of another reader of the same sources. Plain values, which JSON can hold."""


class CorpusReader:
    """An iterable of `TextBatch`, which `read_corpus` returns.

    It can be iterated more than once, unless a source can be read only once.

    Args:
        feeds: Pairs of the number of a source and one of its feeds.
        options: How to read the feeds.
        errors: What to do with malformed UTF-8; see `Cleaner`.
        weights: One weight per source, or None.
        batch_bytes: Approximate size of a batch, in bytes.
        start: The position to resume from.
        left_out: The binary files of the sources' directories, which are not among the feeds.

    Attributes:
        total: Bytes of all files as stored on disk; None if unknown, as for stdin and iterables.
        fingerprint: What distinguishes this corpus from others: the files with their sizes and modification times, and
            the options that they are read with.

    Raises:
        InputError: When `start` belongs to another corpus.
    """

    def __init__(
        self,
        feeds: Sequence[tuple[int, Feed]],
        options: ReadOptions,
        errors: str,
        weights: Sequence[int] | None,
        batch_bytes: int,
        start: Position | None,
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        self.left_out = left_out
        self._feeds = feeds
        self._options = options
        self._errors = errors
        self._weights = weights
        self._batch_bytes = batch_bytes
        self._invalid: dict[int, Invalid] = {}
        sizes = [feed.size for _, feed in feeds]
        self.total: int | None = None if None in sizes else sum(size or 0 for size in sizes)
        separator = options.separator.decode() if options.separator is not None else None
        self.fingerprint: dict[str, Any] = {
            "field": options.field,
            "separator": separator,
            "errors": errors,
            "sources": [{"source": source, **feed.identity} for source, feed in feeds],
        }
        self._first = 0
        self._state: FeedState | None = None
        if start is not None:
            _check_same_corpus(start["corpus"], self.fingerprint)
            self._first, self._state = start["feed"], start["state"]
            for number, count, first in start["invalid"]:
                self._invalid[number] = Invalid(feeds[number][1].name, count, first)

    @property
    def invalid(self) -> list[Invalid]:
        """The malformed UTF-8 of each file, in order; complete once everything is read."""
        return [found for _, found in sorted(self._invalid.items())]

    def __iter__(self) -> Iterator[TextBatch]:
        numbers = range(self._first, len(self._feeds))
        for ahead, run in itertools.groupby(numbers, lambda number: self._feeds[number][1].ahead):
            batches = self._batches(list(run))
            yield from _read_ahead(batches) if ahead else batches

    def _batches(self, numbers: Iterable[int]) -> Iterator[TextBatch]:
        """Yield the text of some feeds in batches of the requested size."""
        held: TextBatch | None = None
        for batch in self._small_batches(numbers):
            if held is not None and held.weight == batch.weight and (held.source == batch.source or self._weights):
                held.texts.extend(batch.texts)
                held = batch._replace(
                    texts=held.texts,
                    source=held.source,
                    documents=held.documents + batch.documents,
                    size=held.size + batch.size,
                )
            else:
                if held is not None:
                    yield self._with_full_position(held)
                held = batch
            if held.size + 64 * len(held.texts) >= self._batch_bytes:  # 64: the Python object of a text
                yield self._with_full_position(held)
                held = None
        if held is not None and held.documents:
            yield self._with_full_position(held)

    def _small_batches(self, numbers: Iterable[int]) -> Iterator[TextBatch]:
        """Yield a batch for each part of each feed."""
        read = sum(feed.size or 0 for _, feed in self._feeds[: self._first])
        for number in numbers:
            source, feed = self._feeds[number]
            weight = self._weights[source] if self._weights is not None else 1
            state = self._state if number == self._first else None
            cleaner = Cleaner(feed.name, self._errors, state)
            for texts, documents, size, after, read_of_feed in feed.parts(self._options, cleaner, state):
                if cleaner.count:
                    self._invalid[number] = cleaner.found
                position = {"feed": number + (after is None), "state": after}
                yield TextBatch(texts, source, weight, documents, size, read + read_of_feed, position)
            read += feed.size or 0

    def _with_full_position(self, batch: TextBatch) -> TextBatch:
        """Add to the position of a batch what it needs besides the place in a feed."""
        before = [[number, found.sequences, found.first] for number, found in sorted(self._invalid.items())]
        batch.position["invalid"] = [each for each in before if each[0] < batch.position["feed"]]
        batch.position["corpus"] = self.fingerprint
        return batch


def _check_same_corpus(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError if the fingerprints of two corpora differ, and name the difference."""
    for name in ("field", "separator", "errors"):
        if before[name] != now[name]:
            raise InputError(
                f"the corpus was begun with {name} {before[name]!r}, not {now[name]!r}; use the same value to resume"
            )
    if before["sources"] == now["sources"]:
        return
    feeds = [[{**each, "source": 0} for each in corpus["sources"]] for corpus in (before, now)]
    known, present = ({json.dumps(each) for each in each_feed} for each_feed in feeds)
    paths = {each.get("path") for each in feeds[1]}
    changes = [
        f"{_name(each)} " + ("has changed" if each.get("path") in paths else "is missing")
        for each, dumped in zip(before["sources"], map(json.dumps, feeds[0]), strict=True)
        if dumped not in present
    ] + [
        f"{_name(each)} is new"
        for each, dumped in zip(now["sources"], map(json.dumps, feeds[1]), strict=True)
        if dumped not in known
    ]
    raise InputError(
        f"{changes[0] if changes else 'the sources are in a different order'}: this is not the corpus of the"
        " interrupted run; restore it to resume, or start over"
    )


def _name(identity: FeedState) -> str:
    return str(identity.get("path") or f"source {identity['source'] + 1}")


def _read_ahead(batches: Iterator[TextBatch], depth: int = 2) -> Iterator[TextBatch]:
    """Yield the batches, which another thread produces while the caller uses earlier ones."""
    ready: queue.Queue[TextBatch | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def work() -> None:
        try:
            for batch in batches:
                ready.put(batch)
                if stopped.is_set():
                    return
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=work, name="bpe.corpus", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            del item
    finally:
        stopped.set()
        with suppress(queue.Empty):
            while True:
                ready.get_nowait()
        thread.join(1)  # a thread that waits for input that never comes ends with the process

"""Encoding in pieces, so that memory does not grow with the text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

from bpe.commands.inputs import LARGE, Input
from bpe.progress import phase

if TYPE_CHECKING:
    from bpe import Tokenizer

_T = TypeVar("_T")
_AHEAD = 4  # pieces
_POLL_SECONDS = 0.2


def encoded(tokenizer: Tokenizer, text: Input, verb: str, with_special: bool = False) -> Iterator[bytes]:
    """Encode an input, and yield the ids of the whole text in pieces.

    Reading and encoding have threads of their own, so they overlap with what the caller does with the ids. A large text
    is shown as progress.

    Args:
        tokenizer: The tokenizer.
        text: The input.
        verb: What the progress says, such as "encoding".
        with_special: Whether special tokens in the text become their ids, instead of ordinary text.

    Yields:
        Ids, as little-endian integers of 32 bits.
    """
    from bpe import StreamEncoder

    encoder = StreamEncoder(tokenizer, allowed_special="all" if with_special else set(), disallowed_special=())

    def work() -> Iterator[bytes]:
        for piece in ahead(iter(text)):
            yield encoder.feed_to_bytes(piece)
        yield encoder.flush_to_bytes()

    with ExitStack() as stack:
        shown = None
        for ids in ahead(work()):
            if shown is None and max(text.read, text.total or 0) >= LARGE:
                shown = stack.enter_context(phase(f"{verb} {text.name}", text.total, "bytes"))
            if shown is not None:
                shown.update(text.read)
            yield ids


def ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Yield the items, which a thread makes up to four ahead. What the iterator raises is raised here."""
    made: Queue[tuple[_T | None, BaseException | None]] = Queue(_AHEAD)
    stopped = Event()

    def put(item: _T | None, error: BaseException | None = None) -> None:
        while not stopped.is_set():
            try:
                made.put((item, error), timeout=_POLL_SECONDS)
                return
            except Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    Thread(target=work, daemon=True, name="bpe ahead").start()
    try:
        while True:
            try:
                item, error = made.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # only an error comes without an item
    finally:
        stopped.set()

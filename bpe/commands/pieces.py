"""Inputs that are read, encoded and written in pieces, so that memory does not grow with the text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from bpe.commands.inputs import announce_keyboard, check_input_arguments
from bpe.progress import phase

if TYPE_CHECKING:
    from bpe import Tokenizer

_T = TypeVar("_T")
_PIECE = 1 << 20  # bytes
_AHEAD = 4  # pieces
_LARGE = 10_000_000  # bytes
_POLL_SECONDS = 0.2


class Input:
    """A text in pieces: `for piece in input`, each of at most 1 MiB.

    Attributes:
        name: The name of the file, "stdin" or "text".
        total: The size of the file in bytes; None where it is not known.
        read: The number of bytes read so far.
    """

    def __init__(self, name: str, content: bytes | None = None) -> None:
        """
        Args:
            name: The path of a file, where "-" is stdin; or the name of the content.
            content: The content, if it is not in a file.
        """
        self.name = "stdin" if content is None and name == "-" else name
        self.total: int | None = None if content is None else len(content)
        self.read = 0
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        if self._content is not None:
            yield from self._counted(iter([self._content]))
        elif self.name == "stdin":
            yield from self._counted(_blocks(sys.stdin.buffer))
        else:
            with open(self.name, "rb", buffering=0) as file:
                self.total = os.fstat(file.fileno()).st_size or None  # pipes and devices have no size
                yield from self._counted(_blocks(file))

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.read += len(piece)
            yield piece


def _blocks(file: Any) -> Iterator[bytes]:
    """Read a file in blocks. A pipe gives what it has, so that a slow writer does not hold text back."""
    read = getattr(file, "read1", file.read)
    while block := read(_PIECE):
        yield block


def stream_inputs(files: Sequence[str], texts: Sequence[str] = (), awaited: str = "text") -> Iterator[Input]:
    """Return an iterator over inputs. Wrong arguments raise here, not in the iterator.

    Args:
        files: Paths, where "-" is stdin. Without files and texts, stdin is read.
        texts: Texts of the command line to read instead of files.
        awaited: What the person types if stdin is a terminal.

    Raises:
        click.UsageError: When both files and texts are given, or stdin twice.
        InputError: When a file does not exist.
    """
    check_input_arguments(files, texts)
    return _inputs(files, texts, awaited)


def _inputs(files: Sequence[str], texts: Sequence[str], awaited: str) -> Iterator[Input]:
    if texts:
        yield from (Input("text", os.fsencode(text)) for text in texts)
        return
    for file in files or ["-"]:
        if file == "-":
            announce_keyboard(awaited)
        yield Input(file)


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
            if shown is None and max(text.read, text.total or 0) >= _LARGE:
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

"""Sources of text: resolves paths, globs, addresses, stdin, iterables and datasets to feeds."""

from __future__ import annotations

import fnmatch
import glob
import io
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Any, BinaryIO, Union, cast

from bpe.corpus.arrow import Dataset, dataset_texts, is_dataset, parquet_parts
from bpe.corpus.binaries import HEAD, LeftOut, binary_kind, left_out_line
from bpe.corpus.feed import Cleaner, Feed, FeedState, ReadOptions, TextBytes, TextPart, as_bytes
from bpe.corpus.jsonl import json_parts
from bpe.corpus.remote import remote_files
from bpe.corpus.streams import DECOMPRESSORS, ByteStream
from bpe.corpus.text_files import text_parts
from bpe.errors import InputError

_COMPRESSED_HEAD = 1 << 16  # bytes of a remote compressed file that hold the first bytes of its content

# A path, a glob, an address or "-" for stdin; or an iterable of the documents themselves.
CorpusSource = Union[str, "os.PathLike[str]", Iterable[Union[str, bytes]], Dataset]


def feeds_of(source: CorpusSource, exclude: Sequence[str], left_out: list[LeftOut]) -> Iterator[Feed]:
    """Yield the files of a path, a glob or an address in sorted order, or the single feed of any other source.

    Args:
        source: What to resolve.
        exclude: Files and directories to skip: names, paths, or patterns for either.
        left_out: Receives the binary files of directories, which are not yielded.

    Raises:
        InputError: When there is no file, or the object is not a source.
        OSError: When a directory cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        yield from _files(os.fspath(source), exclude, left_out)
    elif is_dataset(source):
        yield DatasetFeed(source)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        yield IterableFeed(source)
    else:
        raise InputError(f"a source must be a path or an iterable of texts, not {type(source).__name__}")


class FileFeed(Feed):
    """A local file, a remote file, or stdin.

    Args:
        name: The path or address; its suffixes select the format.
        open_raw: Opens the file for reading bytes.
        size: Size in bytes; None if unknown, as for a pipe, which can be read only once.
        version: A value that changes when the file does, such as its modification time.
        head: Returns the first bytes of the file, at most as many as it is given, at less cost than opening it.
    """

    def __init__(
        self,
        name: str,
        open_raw: Callable[[], BinaryIO],
        size: int | None,
        version: object = None,
        head: Callable[[int], bytes] | None = None,
    ) -> None:
        self.name = name
        self.size = size
        self.identity = {"path": name, "size": size, "version": version}
        self._open = open_raw
        self._head = head

    def parts(self, options: ReadOptions, cleaner: Cleaner, state: FeedState | None = None) -> Iterator[TextPart]:
        kind, compressed = _suffixes(self.name)
        if kind == ".parquet" and not compressed:
            with self._open() as file:
                yield from parquet_parts(self.name, file, self.size, options, cleaner, state)
            return
        with self._stream() as stream:
            if kind in (".jsonl", ".ndjson"):
                yield from json_parts(stream, options, cleaner, state)
            elif kind == ".parquet":
                raise InputError(f"{self.name}: decompress it first; Parquet needs random access")
            else:
                yield from text_parts(stream, options, cleaner, state, hashed=self.size is None)

    def binary_kind(self) -> str | None:
        """Return what the file is, if it is not text. A file that cannot be decompressed counts as text."""
        kind, compressed = _suffixes(self.name)
        if kind == ".parquet":
            return None
        raw = self._open() if self._head is None else io.BytesIO(self._head(_COMPRESSED_HEAD if compressed else HEAD))
        try:
            with ByteStream(self.name, raw, compressed, HEAD) as stream:
                return binary_kind(stream.read(HEAD))
        except InputError:
            if compressed:
                return None  # reading the file raises the error in its turn
            raise

    def content(self) -> bytes:
        """Return the decompressed bytes of the whole file."""
        with self._stream() as stream:
            return stream.read(-1)

    def _stream(self) -> ByteStream:
        return ByteStream(self.name, self._open(), _suffixes(self.name)[1], self.size)


class IterableFeed(Feed):
    """An iterable of documents, in memory or generated.

    It is iterated in the thread that asks for text, because some iterables, such as an sqlite3 cursor, work in no
    other.
    """

    ahead = False
    size = None

    def __init__(self, documents: Iterable[Any]) -> None:
        self.name = type(documents).__name__
        self.identity = {"iterable": self.name}
        self._source = documents

    def documents(self, field: str) -> Iterable[object]:
        """Return the documents; `field` names the column of a dataset."""
        return self._source

    def parts(self, options: ReadOptions, cleaner: Cleaner, state: FeedState | None = None) -> Iterator[TextPart]:
        done = state["documents"] if state else 0
        number = checksum = size = 0
        texts: list[TextBytes] = []
        for number, document in enumerate(self.documents(options.field), 1):
            text = as_bytes(document)
            checksum = zlib.crc32(text, checksum)
            if number <= done:
                if number == done:
                    self._check(state, number, checksum)
                continue
            text = cleaner.clean(text, place=f"document {number}")
            texts.append(text)
            size += len(text)
            if size + 64 * len(texts) >= options.block:  # 64: the overhead of a bytes object
                yield TextPart(texts, len(texts), size, {"documents": number, "crc32": checksum, **cleaner.state}, 0)
                texts, size = [], 0
        if number < done:
            self._check(state, number, checksum)
        yield TextPart(texts, len(texts), size, None, 0)

    def _check(self, state: FeedState | None, number: int, checksum: int) -> None:
        """Raise InputError if the documents before `state` differ from those of the earlier run."""
        if state is not None and (number, checksum) != (state["documents"], state["crc32"]):
            raise InputError(
                f"{self.name}: these are not the documents of the interrupted run (the first {number} differ); pass the"
                " same documents to resume"
            )


class DatasetFeed(IterableFeed):
    """A Dataset or IterableDataset of Hugging Face's `datasets`."""

    ahead = True

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset)
        self.identity = {"dataset": self.name, "version": getattr(dataset, "_fingerprint", None)}

    def documents(self, field: str) -> Iterable[object]:
        return dataset_texts(self._source, field)


def _suffixes(path: str) -> tuple[str, str]:
    """Return the suffixes (format, compression) of a path in lower case; either may be empty."""
    if "://" in path:
        path = path.partition("?")[0]  # a query is not part of the name
    stem, suffix = os.path.splitext(path.lower())
    return (os.path.splitext(stem)[1], suffix) if suffix in DECOMPRESSORS else (suffix, "")


def _files(source: str, exclude: Sequence[str], left_out: list[LeftOut]) -> Iterator[Feed]:
    if source == "-":
        yield FileFeed("stdin", _stdin, None)
    elif os.path.isdir(source):
        files = map(_file, _directory_paths(source, exclude))
        yield from _texts(files, left_out, f"{source}: no text files in this directory")
    elif os.path.exists(source):
        yield _file(source)
    elif "://" in source:
        yield from _remote(source, exclude, left_out)
    elif glob.has_magic(source):
        paths = [p for p in sorted({*_matches(source)}) if os.path.isfile(p) and not _excluded(p, exclude)]
        if not paths:
            raise InputError(f"{source}: no file matches this pattern")
        yield from map(_file, paths)
    else:
        raise InputError(f"{source}: no such file or directory")


def _matches(pattern: str, root: str = "") -> Iterator[str]:
    """Yield the paths that match a glob below a directory, some more than once.

    ``glob.glob`` follows symbolic links under ``**`` in circles, as deep as the system allows. Here ``**`` follows them
    too, but enters each directory once.
    """
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from (os.path.join(root, path) for path in glob.glob(pattern, root_dir=root or None))
        return
    place = parts.index("**")
    rest = [*dropwhile("**".__eq__, parts[place:])] or ["*"]  # a second "**" in a row adds nothing
    start = os.sep.join(parts[:place]) or (os.sep if pattern.startswith(os.sep) else "")
    entered: set[str] = set()
    for directory in sorted(_matches(start, root)) if start else [root]:
        for below in _directories(directory, entered):
            yield from _matches(os.sep.join(rest), below)


def _directories(directory: str, entered: set[str]) -> Iterator[str]:
    """Yield a directory and all directories below it, without hidden ones and without those entered before."""
    real = os.path.realpath(directory or os.curdir)
    if real in entered:
        return
    entered.add(real)
    yield directory
    try:
        with os.scandir(directory or os.curdir) as entries:
            names = sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except OSError:  # not a directory, or one that may not be read, which a glob passes over
        return
    for name in names:
        yield from _directories(os.path.join(directory, name), entered)


def _directory_paths(source: str, exclude: Sequence[str]) -> Iterator[str]:
    """Yield the regular files of a directory at every depth, in sorted order and without hidden ones."""
    for directory, names, files in os.walk(source, onerror=_raise):
        names[:] = sorted(n for n in names if n[0] != "." and not _excluded(os.path.join(directory, n), exclude))
        for name in sorted(files):
            path = os.path.join(directory, name)
            if name[0] != "." and not _excluded(path, exclude) and os.path.isfile(path):  # not a dangling link
                yield path


def _texts(files: Iterable[FileFeed], left_out: list[LeftOut], nothing: str) -> Iterator[Feed]:
    """Yield the files that hold text, and append the others to `left_out`.

    Raises:
        InputError: When there is no text: `nothing` is the message.
    """
    found = False
    before = len(left_out)
    for file in files:
        kind = file.binary_kind()
        if kind is None:
            found = True
            yield file
        else:
            left_out.append(LeftOut(file.name, kind))
    if not found:
        own = left_out[before:]
        raise InputError(nothing + (f"; {left_out_line(own)}" if own else ""))


def _remote(address: str, exclude: Sequence[str], left_out: list[LeftOut]) -> Iterator[Feed]:
    found, is_directory = remote_files(address)
    files = [
        FileFeed(file.address, file.open, file.size, file.version, file.head)
        for file in found
        if not _excluded(file.address, exclude)
    ]
    if is_directory or not files:
        yield from _texts(files, left_out, f"{address}: no text files at this address")
    else:
        yield from files


def _file(path: str) -> FileFeed:
    found = os.stat(path)
    regular = stat.S_ISREG(found.st_mode)
    return FileFeed(
        path,
        lambda: open(path, "rb", buffering=0),
        found.st_size if regular else None,
        found.st_mtime_ns if regular else None,
    )


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise InputError("stdin is closed; name a file, or pipe text into the command")
    try:
        # Bypass the buffer, whose lock a thread that waits for input would hold until the interpreter exits.
        file = open(os.dup(sys.stdin.fileno()), "rb", buffering=0)  # noqa: SIM115, the feed closes it
        return cast("BinaryIO", _Keyboard(file)) if file.isatty() else file
    except io.UnsupportedOperation:  # stdin was replaced by an object without a descriptor
        return io.BytesIO(sys.stdin.buffer.read())


class _Keyboard(io.RawIOBase):
    """A terminal that ends for good at Ctrl-D; the terminal itself would wait for more keys at the next read."""

    def __init__(self, terminal: BinaryIO) -> None:
        self._terminal = terminal
        self._has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = b"" if self._has_ended else self._terminal.read(len(buffer))
        self._has_ended = not piece
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._terminal.close()
        super().close()


def _raise(error: OSError) -> None:
    raise error


def _excluded(path: str, exclude: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatch(path, pattern) or any(fnmatch.fnmatch(part, pattern) for part in Path(path).parts)
        for pattern in exclude
    )

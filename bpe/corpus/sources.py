"""Paths, globs, addresses, stdin, iterables, datasets -> feeds."""

from __future__ import annotations

import fnmatch
import glob
import io
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Union

from bpe.corpus.arrow import dataset_texts, is_dataset, parquet_parts
from bpe.corpus.feed import Cleaner, Feed, FeedState, ReadOptions, TextBytes, TextPart, as_bytes
from bpe.corpus.jsonl import json_parts
from bpe.corpus.remote import remote_files
from bpe.corpus.streams import DECOMPRESSORS, ByteStream
from bpe.corpus.text_files import text_parts
from bpe.errors import InputError

_HEAD = 4096  # in so many bytes at the beginning, text has no NUL

# A path, a glob, an address, "-" for stdin; or the documents themselves.
CorpusSource = Union[str, "os.PathLike[str]", Iterable[str], Iterable[bytes]]


def feeds_of(source: CorpusSource, exclude: Sequence[str]) -> Iterator[Feed]:
    """The files of a path, a glob or an address, in sorted order; otherwise the one feed that the source is.

    Raises:
        InputError: there is none, or it is no source.
        OSError: a directory cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        yield from _files(os.fspath(source), exclude)
    elif is_dataset(source):
        yield DatasetFeed(source)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        yield IterableFeed(source)
    else:
        raise InputError(f"a source must be a path or an iterable of texts, not {type(source).__name__}")


class FileFeed(Feed):
    """A file on this machine or another, or stdin."""

    def __init__(self, name: str, open_raw: Callable[[], BinaryIO], size: int | None, version: object = None) -> None:
        """
        Args:
            size: in bytes; None if that is not known, as of a pipe, which can be read only once.
            version: changes when the file does: the time of its last change.
        """
        self.name = name
        self.size = size
        self.identity = {"path": name, "size": size, "version": version}
        self._open = open_raw

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
                raise InputError(f"{self.name}: decompress it first: Parquet is read from place to place")
            else:
                yield from text_parts(stream, options, cleaner, state, hashed=self.size is None)

    def content(self) -> bytes:
        """All its bytes, decompressed."""
        with self._stream() as stream:
            return stream.read(-1)

    def _stream(self) -> ByteStream:
        return ByteStream(self.name, self._open(), _suffixes(self.name)[1], self.size)


class IterableFeed(Feed):
    """Documents in memory, or as they come.

    They are taken in the thread that asks for text: some things, such as a cursor of sqlite3, work in no other.
    """

    ahead = False
    size = None

    def __init__(self, documents: Iterable[Any]) -> None:
        self.name = type(documents).__name__
        self.identity = {"iterable": self.name}
        self._source = documents

    def documents(self, field: str) -> Iterable[object]:
        """They themselves, in turn."""
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
            if size + 64 * len(texts) >= options.block:  # what a bytes object takes beside its bytes
                yield TextPart(texts, len(texts), size, {"documents": number, "crc32": checksum, **cleaner.state}, 0)
                texts, size = [], 0
        if number < done:
            self._check(state, number, checksum)
        yield TextPart(texts, len(texts), size, None, 0)

    def _check(self, state: FeedState | None, number: int, checksum: int) -> None:
        if state is not None and (number, checksum) != (state["documents"], state["crc32"]):
            raise InputError(
                f"{self.name}: these are not the documents that were begun with; the first {number} differ"
            )


class DatasetFeed(IterableFeed):
    """Of Hugging Face's `datasets`."""

    ahead = True

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset)
        self.identity = {"dataset": self.name, "version": getattr(dataset, "_fingerprint", None)}

    def documents(self, field: str) -> Iterable[object]:
        return dataset_texts(self._source, field)


def _suffixes(path: str) -> tuple[str, str]:
    """(what kind of file it is, how it is compressed), both in lower case, the second empty if it is not."""
    if "://" in path:
        path = path.partition("?")[0]  # what follows is not its name
    stem, suffix = os.path.splitext(path.lower())
    return (os.path.splitext(stem)[1], suffix) if suffix in DECOMPRESSORS else (suffix, "")


def _files(source: str, exclude: Sequence[str]) -> Iterator[Feed]:
    if source == "-":
        yield FileFeed("stdin", _stdin, None)
    elif os.path.isdir(source):
        found = False
        for directory, names, files in os.walk(source, onerror=_raise):
            names[:] = sorted(n for n in names if n[0] != "." and not _excluded(os.path.join(directory, n), exclude))
            for name in sorted(files):
                path = os.path.join(directory, name)
                if name[0] != "." and not _excluded(path, exclude) and (file := _text_file(path)):
                    found = True
                    yield file
        if not found:
            raise InputError(f"{source}: no text files in this directory")
    elif os.path.exists(source):
        yield _file(source)
    elif "://" in source:
        yield from _remote(source, exclude)
    elif glob.has_magic(source):
        paths = [
            p for p in sorted(glob.glob(source, recursive=True)) if os.path.isfile(p) and not _excluded(p, exclude)
        ]
        if not paths:
            raise InputError(f"{source}: no file matches this pattern")
        yield from map(_file, paths)
    else:
        raise InputError(f"{source}: no such file or directory")


def _remote(address: str, exclude: Sequence[str]) -> Iterator[Feed]:
    files, is_directory = remote_files(address)
    found = False
    for file in files:
        if _excluded(file.address, exclude):
            continue
        if is_directory and not _is_known(file.address) and b"\0" in file.head(_HEAD):
            continue
        found = True
        yield FileFeed(file.address, file.open, file.size, file.version)
    if not found:
        raise InputError(f"{address}: no text files there")


def _file(path: str, found: os.stat_result | None = None) -> FileFeed:
    found = found or os.stat(path)
    regular = stat.S_ISREG(found.st_mode)
    return FileFeed(
        path,
        lambda: open(path, "rb", buffering=0),
        found.st_size if regular else None,
        found.st_mtime_ns if regular else None,
    )


def _text_file(path: str) -> FileFeed | None:
    """A file of a directory, unless it is something else, or does not look like text."""
    try:
        found = os.stat(path)
    except FileNotFoundError:  # a link that leads nowhere
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    if not _is_known(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if b"\0" in os.read(descriptor, _HEAD):
                return None
        finally:
            os.close(descriptor)
    return _file(path, found)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise InputError("stdin is closed; give a file, or pipe text into the command")
    try:
        # Beneath the buffer, whose lock a thread that waits for input would keep until the interpreter ends.
        return open(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    except io.UnsupportedOperation:  # what stands for it has no descriptor
        return io.BytesIO(sys.stdin.buffer.read())


def _raise(error: OSError) -> None:
    raise error


def _excluded(path: str, exclude: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatch(path, pattern) or any(fnmatch.fnmatch(part, pattern) for part in Path(path).parts)
        for pattern in exclude
    )


def _is_known(path: str) -> bool:
    """Whether it holds text, though there are NULs in it."""
    kind, compressed = _suffixes(path)
    return bool(compressed) or kind == ".parquet"

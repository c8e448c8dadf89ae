"""Growing shards: the files of a split while they are written, flushed to disk by a thread."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bpe.errors import InputError
from bpe.shards.encoded import EncodedDocuments
from bpe.shards.layout import crc32, shard_files


class GrowingShards:
    """The shards of one split, to which documents are appended.

    A shard holds whole documents and at most `shard_tokens` tokens. A longer document gets a shard of its own.

    Args:
        path: The directory of the files.
        split: The name of the split.
        dtype: The type of an id on disk.
        shard_tokens: The most tokens of a shard.
        state: A state that `save` returned, to resume from.

    Attributes:
        shards: The entries of the complete shards in the index.

    Raises:
        InputError: When a file is shorter than the state says, or a complete one is longer.
    """

    def __init__(
        self, path: Path, split: str, dtype: np.dtype[Any], shard_tokens: int, state: Mapping[str, Any] | None = None
    ) -> None:
        self._path, self._split, self._dtype, self._shard_tokens = path, split, dtype, shard_tokens
        self.shards: list[dict[str, Any]] = list(state["shards"]) if state else []
        self._last: _GrowingShard | None = None
        for shard in self.shards:
            for kind, count in (("file", shard["tokens"]), ("documents_file", shard["documents"] + 1)):
                _check_size(path / shard[kind], count * (dtype.itemsize if kind == "file" else 8), exactly=True)
        if state and state["last"]:
            self._last = _GrowingShard(path, shard_files(split, len(self.shards)), dtype, state["last"])

    def add(self, documents: EncodedDocuments) -> None:
        """Append documents."""
        first, count = 0, len(documents.bytes)
        while first < count:
            if self._last is None:
                self._last = _GrowingShard(self._path, shard_files(self._split, len(self.shards)), self._dtype)
            room = self._shard_tokens - self._last.tokens + int(documents.offsets[first])
            end = int(np.searchsorted(documents.offsets, room, side="right")) - 1
            if end <= first and self._last.documents:
                self._close_last()
                continue
            end = min(max(end, first + 1), count)
            self._last.add(documents.cut(first, end))
            first = end

    def store(self) -> None:
        """Start to flush new data to disk; `save` and `finish` wait for it."""
        if self._last is not None:
            self._last.store()

    def finish(self) -> None:
        """Complete the last shard."""
        if self._last is not None:
            self._close_last()

    def _close_last(self) -> None:
        assert self._last is not None
        self.shards.append(self._last.finish())
        self._last = None

    def save(self) -> dict[str, Any]:
        """Return a state to resume from, after all data that it describes is on disk."""
        return {"shards": self.shards, "last": self._last.save() if self._last else None}

    def abandon(self) -> None:
        """Close the files without flushing them to disk."""
        if self._last is not None:
            self._last.abandon()

    @property
    def files(self) -> list[str]:
        """The names of all files, complete or not."""
        last = shard_files(self._split, len(self.shards)) if self._last else ()
        return [*(shard[kind] for shard in self.shards for kind in ("file", "documents_file")), *last]

    def summary(self) -> dict[str, Any]:
        """Return the entry of the split in the index."""
        return {key: sum(shard[key] for shard in self.shards) for key in ("tokens", "documents", "bytes")} | {
            "shards": self.shards
        }


class _GrowingShard:
    """The two files of a shard: ids, and the offsets of documents."""

    def __init__(
        self, path: Path, names: tuple[str, str], dtype: np.dtype[Any], state: Mapping[str, int] | None = None
    ) -> None:
        self._names = names
        self.tokens, self.documents, self._bytes = (state[k] for k in ("tokens", "documents", "bytes")) if state else (
            0, 0, 0)  # fmt: skip
        sums = (state["crc32"], state["documents_crc32"]) if state else (0, 0)
        self._ids = _GrowingFile(path / names[0], self.tokens * dtype.itemsize, sums[0])
        self._offsets = _GrowingFile(path / names[1], (self.documents + 1) * 8 if state else 0, sums[1])
        if not state:
            self._offsets.write(np.zeros(1, "<i8"))

    def add(self, documents: EncodedDocuments) -> None:
        self._ids.write(documents.ids)
        self._offsets.write((documents.offsets[1:] + self.tokens).astype("<i8", copy=False))
        self.tokens += len(documents.ids)
        self.documents += len(documents.bytes)
        self._bytes += int(documents.bytes.sum())

    def store(self) -> None:
        self._ids.store()
        self._offsets.store()

    def save(self) -> dict[str, int]:
        self.store()
        self._ids.flush()
        self._offsets.flush()
        return {
            "tokens": self.tokens,
            "documents": self.documents,
            "bytes": self._bytes,
            "crc32": self._ids.crc32,
            "documents_crc32": self._offsets.crc32,
        }

    def finish(self) -> dict[str, Any]:
        state = self.save()
        self.abandon()
        return {"file": self._names[0], "documents_file": self._names[1], **state}

    def abandon(self) -> None:
        self._ids.close()
        self._offsets.close()


_STORED = 4 << 20  # bytes of a file that are flushed to disk at once


class _GrowingFile:
    """A file that is appended to, with its CRC-32. An existing file is truncated to `size` bytes first.

    A thread flushes the file to disk while it is written, so that little is left to wait for at the end.
    """

    def __init__(self, path: Path, size: int, crc32: int) -> None:
        self._path = path
        self.crc32 = crc32
        self._thread = ThreadPoolExecutor(1)
        self._storing: list[Future[None]] = []
        self._new = 0  # bytes that the thread has not been told to flush
        if size:
            _check_size(path, size, exactly=False)
        with self._named():
            self._file: BinaryIO = open(path, "r+b" if size else "wb")  # noqa: SIM115, it stays open
            self._file.truncate(size)
            self._file.seek(size)

    def write(self, values: np.ndarray[Any, Any]) -> None:
        data = np.ascontiguousarray(values).view(np.uint8).data
        self.crc32 = crc32(data, self.crc32)
        with self._named():
            self._file.write(data)
        self._new += len(data)
        if self._new >= _STORED and all(each.done() for each in self._storing):
            self._check()
            self.store()

    def store(self) -> None:
        """Start to flush new data to disk."""
        if self._new:
            with self._named():
                self._file.flush()
                self._storing.append(self._thread.submit(os.fsync, self._file.fileno()))
            self._new = 0

    def flush(self) -> None:
        """Flush all data to disk, and wait for it."""
        self.store()
        self._check()

    def _check(self) -> None:
        """Wait for the thread, and raise its error: the operating system reports an error of fsync only once."""
        with self._named():
            while self._storing:
                self._storing.pop().result()

    def close(self) -> None:
        self._thread.shutdown()
        with suppress(OSError):  # after an error, buffered bytes may not fit on the disk
            self._file.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Add the path to an OSError: that of a full disk names no file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def _check_size(path: Path, size: int, *, exactly: bool) -> None:
    found = path.stat().st_size if path.exists() else 0
    if found < size or (exactly and found > size):
        raise InputError(
            f"{path}: the file has {found:,} bytes, but {size:,} were written; remove {path.parent} to start over"
        )

"""Shards that are being written: files that grow, and a state from which the work can be taken up again.

All of it stands in a directory within that of the shards, which are left alone until the new ones are complete.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from ..files import write_json
from .block import Block
from .layout import FORMAT, INDEX, SHARD_FILE, TOKEN_BYTES, WORK, crc32, shard_files

STATE = "state.json"
FORMAT_OF_STATE = "bpe-llama unfinished token shards"
VERSION = 3
WAITING = re.compile(r"waiting-\d+\.bin")  # a document whose split is not known yet


class Work:
    """The directory of unfinished shards, and what is known of earlier work in it; only one is at work, see `locked`.

    state: what `save` was given last, or None: there is nothing to go on with.
    is_done: the shards were complete, and are in their place now.

    Raises:
        InputError: there is something else; the work was begun with other settings, or is damaged.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        self.path = directory / WORK
        self._directory = directory
        self._settings = json.loads(json.dumps(settings))
        _refuse_something_else(directory, settings["tokenizer_file"])
        self.is_done = False
        self.state = self._read()
        if self.state is not None and self._is_published(self.state):
            self.publish()
            self.is_done = self.state["settings"] == self._settings
            self.state = None
        self._check_settings()

    def _read(self) -> dict[str, Any] | None:
        path = self.path / STATE
        try:
            state = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            raise self._damaged() from None
        if not isinstance(state, dict) or state.pop("checksum", None) != _checksum(state):
            raise self._damaged()
        if state.get("format") != FORMAT_OF_STATE:
            raise InputError(f"{self.path}: there is something else in this directory; name a new or an empty one")
        if state.get("version") != VERSION:
            raise InputError(
                f"{path}: is of version {state.get('version')}, and this program knows version {VERSION};"
                f" remove {self.path} to begin anew"
            )
        return state

    def _check_settings(self) -> None:
        before = self.state["settings"] if self.state else self._settings
        for name, value in self._settings.items():
            if before.get(name) != value:
                raise InputError(
                    f"{self.path}: these shards were begun with {name} {_short(before.get(name))}, not"
                    f" {_short(value)}; go on with that, or remove this directory to begin anew"
                )

    def _is_published(self, state: Mapping[str, Any]) -> bool:
        """Whether the shards were complete, and some or all of them moved to their place."""
        return state["complete"] and ((self.path / INDEX).exists() or os.listdir(self.path) == [STATE])

    def _damaged(self) -> InputError:
        return InputError(f"{self.path / STATE}: is damaged; remove {self.path} to begin anew")

    def save(self, **state: Any) -> None:
        """Put down the state; what it tells of is on disk already."""
        state = {"format": FORMAT_OF_STATE, "version": VERSION, "settings": self._settings, **state}
        write_json(self.path / STATE, {**state, "checksum": _checksum(state)})

    def remove(self) -> None:
        """Leave nothing behind, where there is nothing to go on with."""
        shutil.rmtree(self.path)

    def clear(self, but: Collection[str] = ()) -> None:
        """Remove files that the state does not tell of: they are of work after it."""
        for path in self.path.iterdir():
            if path.name != STATE and path.name not in but:
                path.unlink()

    def publish(self) -> None:
        """Put the complete shards in the place of what was there. Interrupted, it can be done again.

        The index goes first and comes last, so that at no time it tells of files that are not there.
        """
        new = self.path / INDEX
        if new.exists():
            names = _names_in(new)
            old = self._directory / INDEX
            stale = (_names_in(old) if old.exists() else set()) - names
            old.unlink(missing_ok=True)
            for path in list(self._directory.iterdir()):
                if path.name in stale or (SHARD_FILE.fullmatch(path.name) and path.name not in names):
                    path.unlink()
            for name in names:
                with suppress(FileNotFoundError):  # moved already
                    os.replace(self.path / name, self._directory / name)
            os.replace(new, old)
        shutil.rmtree(self.path)


class GrowingShards:
    """The shards of one split, document after document.

    A shard holds whole documents and at most `shard_tokens` tokens; a longer document has one of its own.
    """

    def __init__(
        self, path: Path, split: str, dtype: np.dtype[Any], shard_tokens: int, state: Mapping[str, Any] | None = None
    ) -> None:
        self._path, self._split, self._dtype, self._shard_tokens = path, split, dtype, shard_tokens
        self.shards: list[dict[str, Any]] = list(state["shards"]) if state else []
        """Those that are complete, as the index tells of them."""
        self._last: _GrowingShard | None = None
        for shard in self.shards:
            for kind, count in (("file", shard["tokens"]), ("documents_file", shard["documents"] + 1)):
                _check_size(path / shard[kind], count * (dtype.itemsize if kind == "file" else 8), exactly=True)
        if state and state["last"]:
            self._last = _GrowingShard(path, shard_files(split, len(self.shards)), dtype, state["last"])

    def add(self, block: Block) -> None:
        """Write documents."""
        first, count = 0, len(block.bytes)
        while first < count:
            if self._last is None:
                self._last = _GrowingShard(self._path, shard_files(self._split, len(self.shards)), self._dtype)
            room = self._shard_tokens - self._last.tokens + int(block.offsets[first])
            end = int(np.searchsorted(block.offsets, room, side="right")) - 1
            if end <= first and self._last.documents:
                self._close_last()
                continue
            end = min(max(end, first + 1), count)
            self._last.add(block.cut(first, end))
            first = end

    def store(self) -> None:
        """Begin to put on disk what is new, which `save` and `finish` wait for."""
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
        """A state to go on from: all that it tells of is on disk."""
        return {"shards": self.shards, "last": self._last.save() if self._last else None}

    def abandon(self) -> None:
        """Close the files as they are."""
        if self._last is not None:
            self._last.abandon()

    @property
    def files(self) -> list[str]:
        """The names of all files."""
        last = shard_files(self._split, len(self.shards)) if self._last else ()
        return [*(shard[kind] for shard in self.shards for kind in ("file", "documents_file")), *last]

    def summary(self) -> dict[str, Any]:
        """What the index says of the split."""
        return {key: sum(shard[key] for shard in self.shards) for key in ("tokens", "documents", "bytes")} | {
            "shards": self.shards
        }


class _GrowingShard:
    """Two files that grow."""

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

    def add(self, block: Block) -> None:
        self._ids.write(block.ids)
        self._offsets.write((block.offsets[1:] + self.tokens).astype("<i8", copy=False))
        self.tokens += len(block.ids)
        self.documents += len(block.bytes)
        self._bytes += int(block.bytes.sum())

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


_STORED = 4 << 20  # bytes of a file that are put on disk at once


class _GrowingFile:
    """A file that is appended to, with its CRC-32. What is there beyond `size` is cut off.

    A thread beside puts on disk what is written, so that in the end there is little to wait for.
    """

    def __init__(self, path: Path, size: int, crc32: int) -> None:
        self._path = path
        self.crc32 = crc32
        self._thread = ThreadPoolExecutor(1)
        self._storing: list[Future[None]] = []
        self._new = 0  # bytes that it was not told of
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
        """Begin to put on disk what is new."""
        if self._new:
            with self._named():
                self._file.flush()
                self._storing.append(self._thread.submit(os.fsync, self._file.fileno()))
            self._new = 0

    def flush(self) -> None:
        """Have all of it on disk."""
        self.store()
        self._check()

    def _check(self) -> None:
        """Wait for the thread. An error of it is one here: the system tells of it only once."""
        with self._named():
            while self._storing:
                self._storing.pop().result()

    def close(self) -> None:
        self._thread.shutdown()
        with suppress(OSError):  # after an error, there may be bytes left that find no room
            self._file.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """A full disk is an error that knows no file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def _check_size(path: Path, size: int, *, exactly: bool) -> None:
    found = path.stat().st_size if path.exists() else 0
    if found < size or (exactly and found > size):
        raise InputError(f"{path}: {found:,} bytes, where {size:,} were written; remove {path.parent} to begin anew")


def _refuse_something_else(directory: Path, tokenizer_file: str) -> None:
    """Where there is no index of shards, there has to be nothing else; where there is, nothing else is overwritten."""
    found = {name for name in os.listdir(directory) if name[0] != "."}
    known = {WORK}
    work = directory / WORK
    if (work / INDEX).exists():  # complete, and on the way to its place
        foreign = set()
    elif INDEX in found:
        known |= {INDEX, TOKEN_BYTES, *_names_in(directory / INDEX)}
        foreign = {tokenizer_file} & (found - known)
    else:
        foreign = found - known
    if WORK in found and not (work.is_dir() and _is_ours(work)):
        foreign.add(WORK)
    if foreign:
        raise InputError(
            f"{directory}: there is something else in this directory ({min(foreign)}); name a new or an empty one"
        )


def _is_ours(work: Path) -> bool:
    names = os.listdir(work)
    return STATE in names or all(name[0] == "." or SHARD_FILE.fullmatch(name) or WAITING.match(name) for name in names)


def _names_in(index: Path) -> set[str]:
    """The files that an index tells of, by their names alone."""
    try:
        content = json.loads(index.read_bytes())
        if content["format"] != FORMAT:
            raise ValueError
        shards = [shard for split in content["splits"].values() for shard in split["shards"]]
        names = [shard[kind] for shard in shards for kind in ("file", "documents_file")]
        return {name for name in names if SHARD_FILE.fullmatch(name)} | {
            TOKEN_BYTES,
            Path(content["tokenizer_file"]).name,
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{index}: not an index of token shards; name a new or an empty directory") from None


def _checksum(state: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(state, sort_keys=True).encode())


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."

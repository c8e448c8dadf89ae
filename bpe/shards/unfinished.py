"""Unfinished shards: the directory in which shards are written, and the state from which writing resumes.

It is a subdirectory of the shard directory. Existing shards remain unchanged until the new ones are complete.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bpe.errors import InputError
from bpe.files import write_json
from bpe.shards.layout import INDEX, INDEX_FORMAT, SHARD_FILE, TOKEN_BYTES, WORK
from bpe.state import checksum, shortened

STATE = "state.json"
STATE_FORMAT = "bpe-llama unfinished token shards"
STATE_VERSION = 3
WAITING = re.compile(r"waiting-\d+\.bin")  # a document whose split is not decided yet


class UnfinishedShards:
    """The directory of unfinished shards, and the state of earlier work in it.

    The caller must hold the lock of the shard directory; see `bpe.shards.locking.locked`. If earlier work was complete
    but not published, it is published first.

    Args:
        directory: The shard directory.
        settings: The settings of the work; those of earlier work must be equal.

    Attributes:
        path: The directory of unfinished shards.
        state: What was last given to `save`, or None if there is nothing to resume.
        is_done: Whether the shards of these settings were complete, and are published now.

    Raises:
        InputError: When the directory holds other files, the work was begun with other settings, or the state is
            damaged.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        self.path: Path = directory / WORK
        self._directory = directory
        self._settings = json.loads(json.dumps(settings))
        _check_no_other_files(directory, settings["tokenizer_file"])
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
        if not isinstance(state, dict) or state.pop("checksum", None) != checksum(state):
            raise self._damaged()
        if state.get("format") != STATE_FORMAT:
            raise InputError(f"{self.path}: this directory holds other files; name a new or an empty directory")
        if state.get("version") != STATE_VERSION:
            raise InputError(
                f"{path}: version {state.get('version')} of the state is not supported, only version {STATE_VERSION};"
                f" remove {self.path} to start over"
            )
        return state

    def _check_settings(self) -> None:
        before = self.state["settings"] if self.state else self._settings
        for name, value in self._settings.items():
            if before.get(name) != value:
                raise InputError(
                    f"{self.path}: these shards were begun with {name} {shortened(before.get(name))}, not"
                    f" {shortened(value)}; use the same value to resume, or remove this directory to start over"
                )

    def _is_published(self, state: Mapping[str, Any]) -> bool:
        """Return whether the shards are complete, and perhaps published in part."""
        return state["complete"] and ((self.path / INDEX).exists() or os.listdir(self.path) == [STATE])

    def _damaged(self) -> InputError:
        return InputError(f"{self.path / STATE}: the saved state is damaged; remove {self.path} to start over")

    def save(self, **state: Any) -> None:
        """Save the state. All data that it describes must be on disk."""
        state = {"format": STATE_FORMAT, "version": STATE_VERSION, "settings": self._settings, **state}
        write_json(self.path / STATE, {**state, "checksum": checksum(state)})

    def remove(self) -> None:
        """Remove the directory of unfinished shards."""
        shutil.rmtree(self.path)

    def clear(self, but: Collection[str] = ()) -> None:
        """Remove all files but those named and the state: they were written after the state was saved."""
        for path in self.path.iterdir():
            if path.name != STATE and path.name not in but:
                path.unlink()

    def publish(self) -> None:
        """Replace the shards in the shard directory by the new ones. If interrupted, it can be run again.

        The old index is removed first and the new one comes last, so that no index ever names missing files.
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


def _check_no_other_files(directory: Path, tokenizer_file: str) -> None:
    """Raise InputError if a directory without an index holds other files, or writing would overwrite some."""
    found = {name for name in os.listdir(directory) if name[0] != "."}
    known = {WORK}
    work = directory / WORK
    if (work / INDEX).exists():  # complete, and published in part
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
            f"{directory}: this directory holds other files ({min(foreign)}); name a new or an empty directory"
        )


def _is_ours(work: Path) -> bool:
    names = os.listdir(work)
    return STATE in names or all(name[0] == "." or SHARD_FILE.fullmatch(name) or WAITING.match(name) for name in names)


def _names_in(index: Path) -> set[str]:
    """Return the bare names of the files that an index lists."""
    try:
        content = json.loads(index.read_bytes())
        if content["format"] != INDEX_FORMAT:
            raise ValueError
        shards = [shard for split in content["splits"].values() for shard in split["shards"]]
        names = [shard[kind] for shard in shards for kind in ("file", "documents_file")]
        return {name for name in names if SHARD_FILE.fullmatch(name)} | {
            TOKEN_BYTES,
            Path(content["tokenizer_file"]).name,
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{index}: not an index of token shards; name a new or an empty directory") from None

"""Shards that are being written: files that grow, and a state from which the work can be taken up again.

All of it stands in a directory within that of the shards, which are left alone until the new ones are complete.
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
WAITING = re.compile(r"waiting-\d+\.bin")  # a document whose split is not known yet


class UnfinishedShards:
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
        if not isinstance(state, dict) or state.pop("checksum", None) != checksum(state):
            raise self._damaged()
        if state.get("format") != STATE_FORMAT:
            raise InputError(f"{self.path}: there is something else in this directory; name a new or an empty one")
        if state.get("version") != STATE_VERSION:
            raise InputError(
                f"{path}: is of version {state.get('version')}, and this program knows version {STATE_VERSION};"
                f" remove {self.path} to begin anew"
            )
        return state

    def _check_settings(self) -> None:
        before = self.state["settings"] if self.state else self._settings
        for name, value in self._settings.items():
            if before.get(name) != value:
                raise InputError(
                    f"{self.path}: these shards were begun with {name} {shortened(before.get(name))}, not"
                    f" {shortened(value)}; go on with that, or remove this directory to begin anew"
                )

    def _is_published(self, state: Mapping[str, Any]) -> bool:
        """Whether the shards were complete, and some or all of them moved to their place."""
        return state["complete"] and ((self.path / INDEX).exists() or os.listdir(self.path) == [STATE])

    def _damaged(self) -> InputError:
        return InputError(f"{self.path / STATE}: is damaged; remove {self.path} to begin anew")

    def save(self, **state: Any) -> None:
        """Put down the state; what it tells of is on disk already."""
        state = {"format": STATE_FORMAT, "version": STATE_VERSION, "settings": self._settings, **state}
        write_json(self.path / STATE, {**state, "checksum": checksum(state)})

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

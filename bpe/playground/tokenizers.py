"""The tokenizers that a page may use: those of the command line, and those on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.inventory import Entry, folder_entries, hub_entries, known_entries
from bpe.locate import locate
from bpe.progress import Reporter, reporting


@dataclass(frozen=True)
class Choice:
    """A tokenizer that a page may use."""

    name: str
    """What the page calls it, and what a request names."""
    format: str
    """"tokenizer", or the format of the model that has it."""
    group: str
    """"given", "known", "hub" or "folder"."""


class Shelf:
    """Loads tokenizers by name when they are first used, and keeps them.

    A request can only name tokenizers of the list, never a path. Any number of threads may use a shelf at once.
    """

    def __init__(
        self, names: Sequence[str] = (), loaded: Mapping[str, Tokenizer] | None = None, folder: Path | None = None
    ) -> None:
        """Make a shelf.

        Args:
            names: Names and paths on the command line, in the order of the page.
            loaded: Tokenizers that are loaded already, by the name in the page; they come first.
            folder: The folder whose tokenizers are listed. Default: the working directory.
        """
        self._folder = (folder or Path()).absolute()
        self._loaded: dict[str, Tokenizer] = dict(loaded or {})
        self._given: dict[str, Path | None] = dict.fromkeys(self._loaded)
        self._given |= {name: locate(name).absolute() for name in dict.fromkeys(names)}
        self._paths: dict[str, Path] = {name: path for name, path in self._given.items() if path is not None}
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    @property
    def given(self) -> list[str]:
        """The names of the command line and of the tokenizers that were loaded from the start."""
        return list(self._given)

    def choices(self) -> list[Choice]:
        """Return the tokenizers to choose from: those given, and those that are on this machine now."""
        given = {path for path in self._given.values() if path is not None}
        found = [Choice(name, "tokenizer", "given") for name in self._given]
        for entry in self._entries():
            if entry.path is None or not entry.format or entry.format == "adapter" or entry.name in self._given:
                continue
            path = entry.path.absolute()
            if path in given:
                continue
            with self._lock:
                self._paths.setdefault(entry.name, path)
            found.append(Choice(entry.name, entry.format, entry.source))
        return list({choice.name: choice for choice in reversed(found)}.values())[::-1]

    def _entries(self) -> Iterator[Entry]:
        yield from known_entries()
        yield from hub_entries()
        yield from folder_entries(self._folder)

    def remedies(self) -> dict[str, str]:
        """Return how to get the tokenizers of known names that are not on this machine, by name."""
        return {entry.name: entry.note for entry in known_entries() if entry.path is None}

    def load(self, name: str) -> Tokenizer:
        """Return the tokenizer of a name in `choices`. It is loaded by the first call.

        Raises:
            InputError: When the name is not in the list, or the file is not a tokenizer.
        """
        with self._lock:
            if name in self._loaded:
                return self._loaded[name]
            path = self._paths.get(name)
            lock = self._locks.setdefault(name, threading.Lock()) if path is not None else None
        if path is None or lock is None:
            raise InputError(f"tokenizer {name[:200]!r}: not in the list; choose one that /api/tokens lists")
        with lock:
            if name not in self._loaded:
                try:
                    with reporting(Reporter()):
                        tokenizer = Tokenizer.from_file(path)
                except OSError as error:
                    raise InputError(f"{path}: {error.strerror or error}; start bpe playground again") from None
                self._loaded[name] = tokenizer
            return self._loaded[name]

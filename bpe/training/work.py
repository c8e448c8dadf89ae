"""The work directory of a training run: its state on disk, from which an interrupted run resumes."""

from __future__ import annotations

import json
import os
import re
import time
import weakref
import zlib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bpe import _core
from bpe.errors import InputError
from bpe.files import replacing, write_atomically, write_json
from bpe.state import checksum, shortened

if TYPE_CHECKING:
    from bpe.corpus import Position

Merges: TypeAlias = bytes
"""For each merge the two ids that become a token, and how often the pair occurred. [merges, 3], uint64

Bytes instead of an array: importing NumPy takes longer than training on a small text.
"""
MERGE_BYTES = 24
"""The bytes of one of the `Merges`."""

FORMAT = "bpe-llama training"
VERSION = 1
STATE = "state.json"
SAVE_EVERY = 30.0  # seconds of work that an interruption may lose
MOST_RUNS = 32  # files of counts; more are merged into one
_OURS = re.compile(r"(state\.json|run-\d{6,}\.counts|merges-\d{6,}\.u64)")
_UNFINISHED = re.compile(rf"\.?{_OURS.pattern}(\.\w+)?\.part")


class WorkDirectory:
    """The state of a run on disk: sorted files of counts ("runs"), the position in the corpus after them, and merges.

    ``state.json`` names the files that belong to the state. It is replaced atomically after these files are written, so
    that it is true at any moment at which the process may be killed. Without a path, the directory is temporary and
    holds only counts that do not fit into memory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        settings: Callable[[], Mapping[str, Any]],
        note: Mapping[str, Any] | None = None,
    ) -> None:
        """Open or plan a work directory; it is created when the first file is written.

        Args:
            path: The directory, or None for a temporary one.
            settings: Returns plain values that decide the result; called when there is a state to read or to write. A
                directory with other settings is refused.
            note: Plain values to keep in the state.

        Raises:
            InputError: The directory holds other work, other files, or a damaged state.
        """
        self.is_temporary: bool = path is None
        self._path = None if path is None else Path(path)
        self._state: dict[str, Any] = {"format": FORMAT, "version": VERSION, "runs": []}
        if note is not None:
            self._state["note"] = dict(note)
        self._settings = settings
        self._saved = time.monotonic()
        if self._path is not None:
            self._take_up(self._path)
        self._next = 1 + max((int(file.split("-")[1].split(".")[0]) for file in self._files - {STATE}), default=-1)

    def _take_up(self, path: Path) -> None:
        """Resume from the state in the directory, if it has one."""
        if not path.exists():
            if not path.absolute().parent.is_dir():
                raise InputError(f"{path}: there is no directory {path.parent}")
            return
        if not path.is_dir():
            raise InputError(f"{path}: not a directory; name a new or an empty directory")
        if (path / STATE).exists():
            state = read_state(path)
            for name, value in self._settings().items():
                if state["settings"].get(name) != value:
                    raise InputError(
                        f"{path}: this run was started with {name} {shortened(state['settings'].get(name))}, not"
                        f" {shortened(value)}; start over in another directory, or remove this one"
                    )
            self._state = state
        elif any(not _is_ours(name) for name in os.listdir(path)):
            raise InputError(f"{path}: the directory holds other files; name a new or an empty directory")
        self._clear(but=self._files)

    @property
    def path(self) -> Path:
        """The directory, which is created when it is first asked for."""
        if self._path is None:
            import shutil  # here, because they would add to the start-up time of every training run
            import tempfile

            self._path = Path(tempfile.mkdtemp(prefix="bpe-train-"))
            weakref.finalize(self, shutil.rmtree, self._path, ignore_errors=True)
        self._path.mkdir(exist_ok=True)
        return self._path

    @property
    def position(self) -> Position | None:
        """The position in the corpus at which counting resumes; None at the beginning."""
        return self._state.get("position")

    @property
    def counted(self) -> bool:
        """Whether all text is counted."""
        return bool(self._state.get("counted"))

    @property
    def documents(self) -> int:
        """Documents counted so far."""
        return int(self._state.get("documents", 0))

    @property
    def size(self) -> int:
        """Bytes of text counted so far."""
        return int(self._state.get("size", 0))

    @property
    def runs(self) -> list[str]:
        """The paths of the files of counts."""
        return [str(self.path / run) for run in self._state["runs"]]

    def counts(self) -> str:
        """Return the path of the file with all counts."""
        self._merge_runs()
        return self.runs[0]

    @property
    def merges(self) -> Merges:
        """The merges learned so far."""
        if "merges" not in self._state:
            return b""
        file = self.path / self._state["merges"]
        content: bytes = file.read_bytes()
        if zlib.crc32(content) != self._state["merges_crc32"]:
            raise InputError(f"{file}: the file is damaged; start over in another directory")
        return content

    @property
    def is_due(self) -> bool:
        """Whether it is time to save, so that an interruption loses little."""
        return not self.is_temporary and time.monotonic() - self._saved >= SAVE_EVERY

    def save_counts(
        self, counter: _core.Counter, position: Position | None, documents: int, size: int, *, counted: bool = False
    ) -> None:
        """Move the counts from memory to disk, with the position in the corpus that they reach."""
        runs = list(self._state["runs"])
        paths = [str(self._new_file("run", "counts")) for _ in range(counter.tables())]
        temporary = [path + ".part" for path in paths]
        try:
            counter.write_runs(temporary)
            for path, part in zip(paths, temporary, strict=True):
                _keep(part, path)
        except OSError as error:
            for part in temporary:
                with suppress(FileNotFoundError):
                    os.unlink(part)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        runs += [os.path.basename(path) for path in paths]
        self._save(runs=runs, position=position, documents=documents, size=size, counted=counted)
        if len(runs) > MOST_RUNS:
            self._merge_runs()

    def save_merges(self, merges: Merges) -> None:
        """Save all merges learned so far."""
        path = self._new_file("merges", "u64")
        with write_atomically(path) as file:
            file.write(merges)
        self._save(merges=path.name, merges_crc32=zlib.crc32(merges))

    def remove(self) -> None:
        """Remove the directory at the end of the run."""
        if self._path is not None and self._path.exists():
            self._clear()
            with suppress(OSError):  # other files have appeared in it
                self._path.rmdir()

    @property
    def _files(self) -> set[str]:
        """The names of state.json and of the files that it names."""
        return {STATE, *self._state["runs"], self._state.get("merges", STATE)}

    def _new_file(self, kind: str, suffix: str) -> Path:
        name = f"{kind}-{self._next:06}.{suffix}"
        self._next += 1
        return self.path / name

    def _clear(self, but: Collection[str] = ()) -> None:
        """Remove the files of a run that are unfinished or that the state does not name."""
        names = [name for name in os.listdir(self.path) if _is_ours(name) and name not in but]
        for name in sorted(names, key=lambda name: name != STATE):  # state.json first: it names the others
            (self.path / name).unlink()

    def _merge_runs(self) -> None:
        if len(self._state["runs"]) < 2:
            return
        merged = self._new_file("run", "counts")
        with replacing(merged) as temporary:
            _core.merge_runs(self.runs, str(temporary))
        self._save(runs=[merged.name])

    def _save(self, **changes: Any) -> None:
        before = self._files
        self._state = {**self._state, **changes}
        if not self.is_temporary:
            self._state.setdefault("settings", dict(self._settings()))
            write_json(self.path / STATE, {**self._state, "checksum": checksum(self._state)})
        for file in before - self._files:
            with suppress(FileNotFoundError):
                (self.path / file).unlink()
        self._saved = time.monotonic()


def rows_of(merges: Merges) -> list[list[int]]:
    """Return merges as lists: the two ids that become a token, and how often the pair occurred."""
    numbers = memoryview(merges).cast("Q").tolist()
    return [numbers[begin : begin + 3] for begin in range(0, len(numbers), 3)]


def read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the state of a run from its work directory.

    Raises:
        InputError: The directory has no state, or the state is damaged or of another version.
    """
    file = Path(path) / STATE
    try:
        state = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: this directory has no run to resume") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: the file is damaged ({error}); start over in another directory") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{file}: not the state of a training run")
    if state.get("version") != VERSION:
        raise InputError(f"{file}: version {state.get('version')} of the state; this program reads version {VERSION}")
    if state.pop("checksum", None) != checksum(state):
        raise InputError(f"{file}: the file is damaged; start over in another directory")
    names = [*state["runs"], state.get("merges", STATE)]
    if not all(isinstance(name, str) and _OURS.fullmatch(name) for name in names):
        raise InputError(f"{file}: the state names files that do not belong to a training run")
    return state


def _keep(part: str, path: str) -> None:
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def _is_ours(name: str) -> bool:
    return bool(_OURS.fullmatch(name) or _UNFINISHED.fullmatch(name))

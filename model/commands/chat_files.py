"""What `bpe chat` keeps between sessions: the dialogs with each model, and the lines that were typed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click

from bpe.chat import Message
from bpe.commands.failures import in_one_line
from bpe.errors import InputError
from bpe.files import write_json

KEPT = 100
"""The number of dialogs that are kept for each model; the oldest are deleted."""


def state_directory() -> Path:
    """Return the directory of what is kept: $BPE_STATE, or the platform's place for an application's own files.

    That is bpe-llama in $XDG_STATE_HOME or ~/.local/state; on macOS in ~/Library/Application Support; on Windows in
    %LOCALAPPDATA%.
    """
    if os.environ.get("BPE_STATE"):
        return Path(os.environ["BPE_STATE"])
    if "XDG_STATE_HOME" in os.environ and os.path.isabs(os.environ["XDG_STATE_HOME"]):
        return Path(os.environ["XDG_STATE_HOME"]) / "bpe-llama"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "bpe-llama"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "bpe-llama"
    return Path.home() / ".local" / "state" / "bpe-llama"


def make_private_directory(path: Path) -> None:
    """Create a directory, and those above it, that only their owner may enter.

    Raises:
        OSError: When it does not exist and cannot be created.
    """
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)


class SavedDialogs:
    """The dialogs with one model: JSON files in a directory of its own, which only the user may read."""

    def __init__(self, name: str) -> None:
        """Find the dialogs, without creating anything.

        Args:
            name: The model, as on the command line. A path means the same model from any working directory.
        """
        identity = str(Path(name).resolve()) if os.path.exists(name) else name
        readable = re.sub(r"[^\w.-]+", "-", identity).strip("-.")[-40:]
        digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:8]
        self.directory = state_directory() / "dialogs" / f"{readable}-{digest}"

    def newest(self) -> Path | None:
        """Return the dialog that was saved last; None if there is none."""
        return max(self._all(), key=_age_key, default=None)

    def new_path(self) -> Path:
        """Return a path for another dialog."""
        now = datetime.now()
        return self.directory / f"{now:%Y-%m-%d-%H%M%S}-{now.microsecond:06}-{os.getpid()}.json"

    def save(self, path: Path, messages: Sequence[Message]) -> None:
        """Write a dialog, and delete the oldest dialogs if there are more than `KEPT`.

        Raises:
            OSError: When it cannot be written; what was saved before is unchanged.
        """
        make_private_directory(self.directory)
        write_json(path, messages, private=True)
        for old in sorted(self._all(), key=_age_key)[:-KEPT]:
            with suppress(OSError):
                old.unlink()

    def _all(self) -> Iterable[Path]:
        with suppress(OSError):
            return [path for path in self.directory.glob("*.json") if not path.name.startswith(".")]
        return []


def _age_key(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:  # deleted by another process
        return 0, path.name


@dataclass
class Saving:
    """Where the dialog is saved after each answer."""

    dialogs: SavedDialogs | None
    """None to save nothing."""
    path: Path | None = None
    """The file of the current dialog; None for one that begins with the next answer."""
    failed: bool = False

    def save(self, messages: list[Message]) -> None:
        """Save a dialog. That it cannot be saved is said once, and is no error."""
        if self.dialogs is None:
            return
        self.path = self.path or self.dialogs.new_path()
        try:
            self.dialogs.save(self.path, messages)
        except OSError as error:
            if not self.failed:
                click.echo(f"bpe: the dialog is not saved: {in_one_line(error)}", err=True)
            self.failed = True


def read_dialog(path: str | os.PathLike[str]) -> list[Message]:
    """Read the messages of a dialog: a JSON list, or an object with "messages" as in files for `bpe finetune`.

    Raises:
        OSError: When the file cannot be read.
        InputError: When it is not JSON of this form; the message names it.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); expected a dialog that /save wrote") from error
    if isinstance(content, dict) and "messages" in content:
        content = content["messages"]
    if not isinstance(content, list):
        found = "an object without it" if isinstance(content, dict) else json.dumps(content)[:40]
        raise InputError(f'{path}: expected a list of messages, or an object with "messages", found {found}')
    for number, message in enumerate(content, 1):
        if isinstance(message, dict) and message.get("content") is None and not message.get("tool_calls"):
            raise InputError(f"{path}: message {number} has no content")
    return content

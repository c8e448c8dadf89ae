"""Writing files so that they exist complete or not at all, and reading and writing JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from bpe.errors import InputError


@contextmanager
def replacing(path: str | os.PathLike[str], private: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, then rename the file to `path`.

    After an error, the temporary file is removed and `path` is unchanged. If `path` is a link, its target is replaced.

    Args:
        path: The file to create or replace.
        private: Whether only its owner may read the file.

    Yields:
        The path of an empty temporary file.

    Raises:
        OSError: When the directory does not exist, the disk is full, ...; the error names `path`.
    """
    target = Path(os.path.realpath(path))
    try:
        temporary = _new_file_beside(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if not private:  # as the temporary file is
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _new_file_beside(target: Path) -> Path:
    """Create an empty file that only its owner may read, with a new name, in the directory of another file.

    `tempfile` does the same, but its modules take longer to import than most files take to write.
    """
    while True:
        path = target.with_name(f".{target.name}.{os.urandom(6).hex()}.part")
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o600))
            return path


@contextmanager
def write_atomically(path: str | os.PathLike[str], private: bool = False) -> Iterator[BinaryIO]:
    """Open a binary file for writing that takes its name once it is complete and on disk; see `replacing`.

    A device or a pipe, such as /dev/stdout, is opened directly.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        with open(path, "wb") as stream:
            yield stream
        return
    with replacing(path, private) as temporary, open(temporary, "wb") as file:
        yield file


def write_bytes(path: str | os.PathLike[str], content: bytes, private: bool = False) -> None:
    """Write bytes to a file; see `write_atomically`."""
    with write_atomically(path, private) as file:
        file.write(content)


def write_json(path: str | os.PathLike[str], value: Any, private: bool = False) -> None:
    """Write a value to a file as indented JSON; see `write_atomically`."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode(), private)


def parsed_json(content: bytes, kind: str) -> Any:
    """Parse the content of a file that others wrote.

    Args:
        content: The content.
        kind: What the file is, such as "tokenizer.json".

    Raises:
        InputError: When it is no JSON, or nested too deep.
    """
    try:
        return json.loads(content)
    except ValueError as error:
        raise InputError(f"not complete JSON ({error}); is the file truncated?") from error
    except RecursionError as error:
        raise InputError(f"the JSON is nested too deep for a {kind}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        OSError: When the file cannot be read.
        InputError: When it does not hold a JSON object; the message names it.
    """
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); the file may be truncated") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values

"""A lock on a directory, so that one process writes shards at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bpe.errors import InputError

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCK = ".lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory. Create the directory if necessary, and remove it afterwards if it is empty.

    The operating system releases the lock when the process ends, however it ends, so the file that a killed process
    leaves behind locks nothing. On a file system without locks, nothing is locked.

    Raises:
        InputError: When another process holds the lock, or the path is not a directory.
        OSError: When the directory cannot be written to.
    """
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{directory}: not a directory; name a new or an empty directory") from None
    path = directory / LOCK
    descriptor = _open(path)
    try:
        yield
    finally:
        try:
            with suppress(FileNotFoundError, PermissionError):  # Windows does not let anyone remove an open file
                path.unlink()
        finally:
            os.close(descriptor)
        with suppress(OSError):  # not empty
            for each in made:
                each.rmdir()


def _open(path: Path) -> int:
    """Open the lock file and lock it; return its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with suppress(FileNotFoundError):
                _try(descriptor, path.parent)
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the last owner has removed the file in the meantime


def _try(descriptor: int, directory: Path) -> None:
    try:
        _lock(descriptor)
    except (BlockingIOError, PermissionError):
        raise InputError(
            f"{directory}: another process is writing shards here; wait for it, or name another directory"
        ) from None
    except OSError:
        pass

"""One writer at a time."""

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
    """Nobody else has this lock meanwhile. The directory is made for it, and goes with it if nothing else is in it.

    The system lets go of the lock when the process ends, however it does: a file that a killed one leaves locks
    nothing.
    On a file system that knows no locks, there is none.

    Raises:
        InputError: somebody has it; or something else than a directory is there.
        OSError: it cannot be written to.
    """
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{directory}: this is no directory; name a new or an empty one") from None
    path = directory / LOCK
    descriptor = _open(path)
    try:
        yield
    finally:
        try:
            with suppress(FileNotFoundError, PermissionError):  # Windows lets nobody remove an open file
                path.unlink()
        finally:
            os.close(descriptor)
        with suppress(OSError):  # not empty
            for each in made:
                each.rmdir()


def _open(path: Path) -> int:
    """A descriptor of the file at the path, with the lock."""
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
        os.close(descriptor)  # its last owner has removed it just now


def _try(descriptor: int, directory: Path) -> None:
    try:
        _lock(descriptor)
    except (BlockingIOError, PermissionError):
        raise InputError(
            f"{directory}: another process is writing shards here; wait for it, or name another directory"
        ) from None
    except OSError:
        pass

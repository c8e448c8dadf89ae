"""Standard streams that the parent process has closed, as `bpe ... >&-` does."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import NoReturn


class _ClosedStream(io.RawIOBase):
    """A stream that refuses every byte with an error that names the stream and a remedy."""

    def __init__(self, name: str, remedy: str) -> None:
        self._name = name
        self._remedy = remedy

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> NoReturn:
        raise OSError(errno.EBADF, f"the stream is closed; {self._remedy}", self._name)

    def write(self, buffer: object) -> NoReturn:
        raise OSError(errno.EBADF, f"the stream is closed; {self._remedy}", self._name)


def open_closed_streams() -> None:
    """Replace the standard streams that are closed, for which Python sets `sys.stdin`, ... to None.

    To read stdin or to write to stdout raises an `OSError`. Messages on stderr are discarded. The descriptors are
    opened as well: the first files that a command opens would otherwise become its standard streams.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_ClosedStream("stdin", "name a file, or pipe text into it")))
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_ClosedStream("stdout", "redirect it to a file or /dev/null")))
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, it stays open

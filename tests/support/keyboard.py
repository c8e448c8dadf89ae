"""Running `bpe` in a process whose stdin is a terminal, at which a test types."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import Any

from support.command_line import BPE

END = b"\x04"
"""Ctrl-D, which ends the input at the start of a line."""


def at_keyboard(*arguments: object, typed: bytes = END, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    """Run `bpe` with a terminal as stdin, and return its exit status, stdout and stderr, which are pipes.

    Args:
        arguments: The arguments of `bpe`.
        typed: The keys that are pressed.
        settings: Arguments of `subprocess.run`.
    """
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed)
        return subprocess.run(
            [*BPE, *map(str, arguments)], stdin=theirs, capture_output=True, check=False, timeout=60, **settings
        )
    finally:
        os.close(ours)
        os.close(theirs)

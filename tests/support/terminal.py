"""A terminal of a given width: what a person sees of a process in it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

_ESCAPE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])")


class Screen:
    """The lines that a terminal shows after some output. It knows what our commands print, and refuses other codes.

    Attributes:
        lines: The lines as they are at the end.
        wrapped: The lines that were longer than the terminal is wide.
        drawn: Everything that was ever in a line when the cursor went back to its beginning.
    """

    def __init__(self, output: str, columns: int) -> None:
        self.columns = columns
        self.lines: list[str] = []
        self.wrapped: list[str] = []
        self.drawn: list[str] = []
        line: list[str] = []
        at = index = 0
        while index < len(output):
            if escape := _ESCAPE.match(output, index):
                index = escape.end()
                if escape[2] == "K":
                    del line[at:]
                elif escape[2] != "m":
                    raise ValueError(f"unknown escape code {escape[0]!r}")
                continue
            character = output[index]
            index += 1
            if character == "\r":
                self.drawn.append("".join(line))
                at = 0
            elif character == "\n":
                self.lines.append("".join(line).rstrip())
                line, at = [], 0
            else:
                width = width_of(character)
                if not width and at:
                    line[at - 1] += character
                    continue
                line[at : at + width] = [character, *[""] * (width - 1)]
                at += width
                if at > columns:
                    self.wrapped.append("".join(line))
        self.last = "".join(line).rstrip()


def width_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def in_terminal(
    command: Sequence[str], columns: int, *, cwd: Path | None = None, interrupt_at: str | None = None
) -> tuple[int, Screen]:
    """Run a command in a terminal; return its exit status and the screen.

    Args:
        command: The command line.
        columns: The width of the terminal.
        cwd: The working directory.
        interrupt_at: Press Ctrl-C when this has been printed.
    """
    pty = pytest.importorskip("pty")
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST  # so that a line break arrives as it was printed
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        list(command), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=cwd, env=environment
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            read = os.read(ours, 1 << 16)
        except OSError:  # Linux reports the end this way
            break
        if not read:
            break
        output += read
        if interrupt_at is not None and interrupt_at.encode() in output:
            process.send_signal(signal.SIGINT)
            interrupt_at = None
    os.close(ours)
    return process.wait(), Screen(output.decode(), columns)

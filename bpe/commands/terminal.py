"""What commands show on a terminal: the status line, colours, rows and sizes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing

import click


class Status:
    """One line on stderr that is drawn over and over, if stderr is a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._next = 0.0

    def show(self, text: str) -> None:
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + 0.1
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)

    def done(self, text: str = "") -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
        if text:
            click.echo(text, err=True)


def bar(share: float, width: int = 24) -> str:
    return "█" * round(share * width) + "░" * (width - round(share * width))


def in_colour(color: str) -> bool:
    return color == "always" or (color == "auto" and sys.stdout.isatty() and "NO_COLOR" not in os.environ)


def painted(piece: str, colour: int) -> str:
    """The piece on a coloured ground that ends before a line break, so that it does not run to the edge."""
    lines = piece.split("\n")
    return "\n".join(f"\x1b[30;48;5;{colour}m{line}\x1b[0m" if line else "" for line in lines)


def visible(token: bytes, newline: str) -> str:
    """The token as text: broken bytes and control characters by their codes, a line break as `newline`."""
    shown = []
    for character in token.decode("utf-8", "surrogateescape"):
        if character == "\n":
            shown.append(newline)
        elif "\udc80" <= character <= "\udcff":
            shown.append(f"<{ord(character) - 0xDC00:02X}>")
        elif character.isprintable():
            shown.append(character)
        else:
            shown.append(f"<U+{ord(character):04X}>")
    return "".join(shown)


def shortened(text: str, width: int = 24) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def readable(token: bytes) -> str:
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}}  {value}")


def size(text: str) -> int:
    """Bytes, such as 2G or 500MB."""
    number = text.strip().upper().removesuffix("B")
    power = "KMGT".find(number[-1:]) + 1 if number[-1:].isalpha() else 0
    try:
        return int(float(number[:-1] if power else number) * 1000**power)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no size; write 2G, 500M or a number of bytes") from None


def amount(number: float) -> str:
    """The number with three digits and a decimal prefix: 16.1 G"""
    for prefix in ("", "k", "M", "G", "T"):  # noqa: B007
        if number < 999.5:
            break
        number /= 1000
    return f"{number:.3g} {prefix}"


def print_answer(pieces: Generator[str, None, None]) -> None:
    with closing(pieces):
        for piece in pieces:
            click.echo(piece, nl=False)
            sys.stdout.flush()
    click.echo()

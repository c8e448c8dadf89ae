"""What commands print: a status line, rows, tokens as visible text, colors, and amounts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from types import TracebackType

import click

_REDRAW_SECONDS = 0.1


class Status:
    """A line on stderr that shows progress and is redrawn in place. Nothing is drawn if stderr is not a terminal.

    As a context manager, it erases the line at the end.
    """

    def __init__(self) -> None:
        self._is_drawn = sys.stderr.isatty()
        self._start = time.monotonic()
        self._next = 0.0

    def __enter__(self) -> Status:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.clear()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def seconds_left(self, share: float) -> float:
        """Return an estimate of the remaining seconds when this share of the work is done."""
        return self.seconds * (1 - share) / max(share, 1e-9)

    def show(self, text: str) -> None:
        """Replace the line, at most ten times a second."""
        now = time.monotonic()
        if self._is_drawn and now >= self._next:
            self._next = now + _REDRAW_SECONDS
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)

    def show_documents(self, verb: str, documents: int, size: int) -> None:
        """Show how many documents, and how many bytes of them, have been processed."""
        self.show(f"{verb}  {size / 1e6:,.1f} MB in {documents:,} documents")

    def show_share(self, verb: str, share: float, detail: str) -> None:
        """Show a bar for the share of the work that is done."""
        self.show(f"{verb}  {_bar(share)} {detail}")

    def clear(self) -> None:
        """Erase the line."""
        if self._is_drawn:
            click.echo("\r\x1b[K", err=True, nl=False)


def _bar(share: float, width: int = 24) -> str:
    return "█" * round(share * width) + "░" * (width - round(share * width))


def use_color(color: str) -> bool:
    """Return whether to print colors, given the value of --color."""
    return color == "always" or (color == "auto" and sys.stdout.isatty() and "NO_COLOR" not in os.environ)


def painted(piece: str, color: int) -> str:
    """Return the text on a background from the 256-color palette.

    The background ends before a line break, so that it does not extend to the edge of the terminal.
    """
    lines = piece.split("\n")
    return "\n".join(f"\x1b[30;48;5;{color}m{line}\x1b[0m" if line else "" for line in lines)


def visible(token: bytes, newline: str = "⏎") -> str:
    """Return a token as text, with invalid bytes as <C3>, control characters as <U+0007>, and line breaks as given."""
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
    """Return the text, cut to a width with three dots at the end if it is longer."""
    return text if len(text) <= width else text[: width - 3] + "..."


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print labels and values in two aligned columns."""
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}}  {value}")


def print_pieces(pieces: Generator[str, None, None]) -> None:
    """Print pieces of a text as they are generated, and a line break. Closes the generator when interrupted.

    On a terminal, lines are broken between words, and control characters are shown instead of obeyed; elsewhere, the
    text is printed as it is.
    """
    wrapper = None
    if sys.stdout.isatty():
        from bpe.commands.wrapping import Wrapper  # here, because its tables would delay the start of every command

        wrapper = Wrapper()
    try:
        with closing(pieces):
            for piece in pieces:
                click.echo(wrapper.feed(piece) if wrapper else piece, nl=False)
                sys.stdout.flush()
    finally:
        if wrapper:
            click.echo(wrapper.flush(), nl=False)
    click.echo()


def amount(number: float) -> str:
    """Return the number with three digits and a decimal prefix, such as "16.1 G"."""
    for prefix in ("", "k", "M", "G", "T"):  # noqa: B007
        if number < 999.5:
            break
        number /= 1000
    return f"{number:.3g} {prefix}"

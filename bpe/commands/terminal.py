"""What commands print: rows, tokens as visible text, colors, and amounts."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import closing

import click

from bpe.columns import terminal_columns, wrapped
from bpe.text import counted as counted


def use_color(color: str) -> bool:
    """Return whether to print colors, given the value of --color."""
    return color == "always" or (color == "auto" and sys.stdout.isatty() and "NO_COLOR" not in os.environ)


def shortened(text: str, width: int = 24) -> str:
    """Return the text, cut to a width with three dots at the end if it is longer."""
    return text if len(text) <= width else text[: width - 3] + "..."


def stdout_columns() -> int | None:
    """Return the width of the terminal that stdout is, or None: what goes to a file or a pipe is not cut."""
    return terminal_columns(sys.stdout) if sys.stdout.isatty() else None


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print labels and values in two aligned columns. In a terminal, a long value continues below itself."""
    width = max(len(label) for label, _ in rows)
    columns = stdout_columns()
    for label, value in rows:
        lines = [value] if columns is None else wrapped(value, max(8, columns - width - 2))
        for number, line in enumerate(lines):
            click.echo(f"{'' if number else label:<{width}}  {line}".rstrip())


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
                click.echo(wrapper.feed(piece) if wrapper else piece, nl=False, color=True)  # strips no escape sequence
                sys.stdout.flush()
    finally:
        if wrapper:
            click.echo(wrapper.flush(), nl=False)
    click.echo()


def amount(number: float) -> str:
    """Return the number with three digits and a decimal prefix, such as "16.1 G"."""
    prefixes = ["", "k", "M", "G", "T", "P", "E"]
    while number >= 999.5 and len(prefixes) > 1:
        number /= 1000
        del prefixes[0]
    return f"{number:.3g} {prefixes[0]}"

"""Tables of numbers, as aligned text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header. The first column is aligned to the left, the others to the right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """Return the table for a terminal, with two spaces between columns."""
        table = self._printable()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for row in table:
            first, *others = zip(row, widths, strict=True)
            cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
            lines.append("  ".join(cells).rstrip() + "\n")
        return "".join(lines)

    def markdown(self) -> str:
        """Return the table in Markdown, under its title."""
        header, *rows = ([cell.replace("|", r"\|") for cell in row] for row in self._printable())
        rule = [":--", *("--:" for _ in header[1:])]
        lines = [f"| {' | '.join(row)} |\n" for row in (header, rule, *rows)]
        return f"## {printable(self.title)}\n\n" + "".join(lines)

    def _printable(self) -> list[list[str]]:
        return [[printable(cell) for cell in row] for row in (self.header, *self.rows)]


def printable(name: str) -> str:
    """Return a name with "?" for line breaks, escape codes and bytes that are not UTF-8, which file names may hold."""
    return "".join(character if character.isprintable() else "?" for character in name)


def ratio(numerator: float, denominator: float) -> float | None:
    """Return the quotient, or None if the denominator is 0."""
    return numerator / denominator if denominator else None


def decimal(value: float | None) -> str:
    """Return a number with two decimals, or a dash for None."""
    return "–" if value is None else f"{value:.2f}"


def percent(share: float | None) -> str:
    """Return a share in percent with one decimal, or a dash for None."""
    return "–" if share is None else f"{share:.1%}"

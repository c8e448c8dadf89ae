"""Tables of numbers, as aligned text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bpe.columns import clipped, clipped_in_the_middle, columns_of, padded, wrapped

_GAP = 2  # spaces between columns
_LEAST_HEADER = 12  # a longer header, such as the name of a text, is cut before a column is left out


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header. The first column is aligned to the left, the others to the right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    importance: Sequence[int] = ()
    """Indices of columns, the most important first, after which the others follow. The first column always stays."""

    def text(self, columns: int | None = None) -> str:
        """Return the table with two spaces between columns.

        In a terminal, the first column is cut in the middle so that the table fits; then headers are cut, and the least
        important columns are left out, which a last line says.

        Args:
            columns: The width of the terminal. Default: no limit.
        """
        table = self._printable()
        kept, widths = self._fitted(table, columns)
        lines = []
        for row in table:
            cells = [padded(clipped_in_the_middle(row[0], widths[0]), widths[0], left=True)]
            cells += [
                padded(clipped_in_the_middle(row[at], width), width, left=False)
                for at, width in zip(kept[1:], widths[1:], strict=True)
            ]
            line = (" " * _GAP).join(cells).rstrip()
            lines.append(line if columns is None else clipped(line, columns))
        hidden = len(table[0]) - len(kept)
        if hidden and columns is not None:
            note = f"{hidden} column{'s' * (hidden != 1)} hidden; widen the terminal, or use --json or a pipe"
            lines += wrapped(note, columns)
        return "".join(f"{line}\n" for line in lines)

    def _fitted(self, table: Sequence[Sequence[str]], columns: int | None) -> tuple[list[int], list[int]]:
        """Return the columns that are shown, and the width of each."""
        numbers = list(range(len(table[0])))
        full = [max(columns_of(row[at]) for row in table) for at in numbers]
        if columns is None or sum(full) + _GAP * (len(full) - 1) <= columns:
            return numbers, full
        cells = [max((columns_of(row[at]) for row in table[1:]), default=0) for at in numbers]
        narrow = [max(size, min(_LEAST_HEADER, whole)) for size, whole in zip(cells, full, strict=True)]
        first = min(full[0], max(10, columns // 4))  # the least that is left of the names
        room = columns - first
        kept = [0]
        for widths in (full, narrow):  # with whole headers, if that hides no column
            if sum(widths[1:]) + _GAP * (len(widths) - 1) <= room:
                kept, room = numbers, room - sum(widths[1:]) - _GAP * (len(widths) - 1)
                return kept, [min(full[0], first + room), *widths[1:]]
        for at in dict.fromkeys((*self.importance, *numbers)):
            if at and narrow[at] + _GAP <= room:
                kept.append(at)
                room -= narrow[at] + _GAP
            elif at:
                break  # a less important column is not shown in the place of a more important one
        kept.sort()
        return kept, [min(full[0], first + room), *(narrow[at] for at in kept[1:])]

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

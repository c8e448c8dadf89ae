"""TODO: tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Token lengths in bytes that share a row of a table: from, to.
LENGTHS = [*((size, size) for size in range(1, 9)), (9, 12), (13, 16), (17, None)]
# Up to so many texts have a column or a curve each; of more, the sum is shown.
APART = 6
NOTES = """\
- bytes/token, chars/token: how much text a token stands for. Characters are Unicode code points.
- tokens/word: the fertility of Ács (2019) and Rust et al. (2021): tokens that hold a byte of a word, over all words. A
  word is a longest run of letters and marks. Letters of scripts without spaces between words (Chinese, Japanese, Thai,
  ...) make no words.
- split words: the share of words of several tokens, which Rust et al. (2021) call continued words.
- whole words: the share of the text's tokens that hold a word from beginning to end.
- unused: the share of the vocabulary, special tokens apart, that the text never uses.
- As the vocabulary grows: what its lowest ranks alone would make of the text, so many of them.
"""


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first column is set to the left, the others to the right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """For a terminal: columns with two spaces between."""
        table = self._printable()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for row in table:
            first, *others = zip(row, widths, strict=True)
            cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
            lines.append("  ".join(cells).rstrip() + "\n")
        return "".join(lines)

    def markdown(self) -> str:
        """The same as a table of Markdown, under its title."""
        header, *rows = ([cell.replace("|", r"\|") for cell in row] for row in self._printable())
        rule = [":--", *("--:" for _ in header[1:])]
        lines = [f"| {' | '.join(row)} |\n" for row in (header, rule, *rows)]
        return f"## {printable(self.title)}\n\n" + "".join(lines)

    def _printable(self) -> list[list[str]]:
        return [[printable(cell) for cell in row] for row in (self.header, *self.rows)]


def printable(name: str) -> str:
    """A name without line breaks, escape codes and bytes that are not UTF-8, all of which file names may hold."""
    return "".join(character if character.isprintable() else "?" for character in name)


def tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """What a person wants to see of a report."""
    uses = [use for use in (report["training"], *report["texts"]) if use is not None]
    if len(report["texts"]) > 1:
        uses.append(report["all_texts"])
    shown = [use for use in (report["training"], report["all_texts"]) if use is not None]
    if uses:
        yield Table("Texts", _MEASURES_HEADER, [_measures_row(use) for use in uses])
        yield _growth_table(uses if len(uses) <= APART else shown)
    yield _share_table("Token lengths", "bytes", report["vocabulary"], shown, _by_length)
    yield _share_table("Scripts", "script", report["vocabulary"], shown, lambda part: part["classes"])
    yield _token_table("Longest tokens", "in the vocabulary", report["vocabulary"]["longest"])
    for use in shown:
        yield _token_table("Longest tokens used", use["name"], use["longest_used"])
        if use["first_never_used"]:
            yield _token_table("Lowest tokens never used", use["name"], use["first_never_used"])


_MEASURES_HEADER = (
    *("text", "bytes", "tokens", "bytes/token", "chars/token", "tokens/word", "split words", "whole words", "unused"),
)


def _measures_row(use: Mapping[str, Any]) -> list[str]:
    return [
        use["name"],
        f"{use['bytes']:,}",
        f"{use['tokens']:,}",
        decimal(use["bytes_per_token"]),
        decimal(use["characters_per_token"]),
        decimal(use["tokens_per_word"]),
        percent(use["continued_words"]),
        percent(use["whole_word_tokens"]),
        percent(use["never_used_share"]),
    ]


def decimal(value: float | None) -> str:
    """With two digits behind the point, or a dash for what is not known."""
    return "–" if value is None else f"{value:.2f}"


def percent(share: float | None) -> str:
    """With one digit behind the point, or a dash for what is not known."""
    return "–" if share is None else f"{share:.1%}"


def _growth_table(uses: Sequence[Mapping[str, Any]]) -> Table:
    sizes = uses[0]["growth"]["vocabulary"]
    chosen = [256 << n for n in range(64) if 256 << n < sizes[-1]] + [sizes[-1]]
    rows = []
    for size in chosen:
        at = sizes.index(size)
        rows.append([f"{size:,}", *(decimal(use["growth"]["bytes_per_token"][at]) for use in uses)])
    return Table("Bytes per token as the vocabulary grows", ["vocabulary", *(use["name"] for use in uses)], rows)


def _by_length(part: Mapping[str, Any]) -> dict[str, int]:
    binned = {}
    for first, last in LENGTHS:
        name = str(first) if first == last else f"{first} to {last}" if last else f"{first} or more"
        binned[name] = sum(n for size, n in part["lengths"].items() if first <= int(size) <= (last or int(size)))
    return binned


def _share_table(title: str, label: str, vocabulary: Any, uses: Sequence[Any], counts_of: Any) -> Table:
    columns = [counts_of(part) for part in (vocabulary, *uses)]
    totals = [sum(column.values()) for column in columns]
    rows = []
    for name, count in columns[0].items():
        shares = [percent(_ratio(column.get(name, 0), sum_)) for column, sum_ in zip(columns, totals, strict=True)]
        rows.append([name, f"{count:,}", *shares])
    return Table(title, [label, "tokens", "vocabulary", *(use["name"] for use in uses)], rows)


def _token_table(title: str, name: str, tokens: Sequence[Mapping[str, Any]]) -> Table:
    rows = [[_shown(token["text"]), f"{token['bytes']:,}", str(token["id"])] for token in tokens]
    return Table(f"{title}, {name}", ["token", "bytes", "id"], rows)


def _shown(text: str, width: int = 48) -> str:
    """The text as Python writes it, with long runs as regular expressions have them: ' -{79}'."""
    text = re.sub(r"((?:\\\\|\\[^\\][0-9a-f]*|[^\\]))\1{7,}", _run, repr(text).replace(r"\\x", r"\x"))
    return text if len(text) <= width else text[: width - 3] + "..."


def _run(match: re.Match[str]) -> str:
    return f"{match[1]}{{{len(match[0]) // len(match[1])}}}"


def markdown(report: Mapping[str, Any], images: Sequence[str] = ()) -> str:
    """The tables, what their columns mean, and the plots, as one document."""
    about = report["tokenizer"]
    title = (
        f"# {printable(about['name'])}\n\n{about['vocabulary']:,} tokens, {about['special_tokens']:,} of them special;"
        f" {report['vocabulary']['mean_bytes']:.2f} bytes in the mean.\n"
    )
    parts = [title, *(table.markdown() for table in tables(report))]
    if report["all_texts"] is not None:
        parts[1] += "\n" + NOTES
    if images:
        parts.append("## Plots\n\n" + "".join(f"![{Path(image).stem}]({image})\n" for image in images))
    return "\n".join(parts)

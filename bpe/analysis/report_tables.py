"""The tables of a report, and the report as a Markdown document."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bpe.analysis.tables import Table, decimal, percent, printable, ratio

VocabularyReport = Mapping[str, Any]
"""A report as `bpe.analysis.report.report_of` returns it, and as report.json holds it."""

# Ranges of token lengths in bytes that share a row of a table: first, last.
LENGTHS: list[tuple[int, int | None]] = [*((size, size) for size in range(1, 9)), (9, 12), (13, 16), (17, None)]
# Up to this many texts have a column or a curve each; of more texts, only the sum is shown.
MOST_SEPARATE_TEXTS = 6
NOTES = """\
- bytes/token, chars/token: how much text a token stands for. Characters are Unicode code points.
- tokens/word: the fertility of Ács (2019) and Rust et al. (2021): tokens that contain a byte of a word, divided by the
  number of words. A word is a longest run of letters and marks. Letters of scripts without spaces between words
  (Chinese, Japanese, Thai, ...) make no words.
- split words: the share of words that consist of several tokens, which Rust et al. (2021) call continued words.
- whole words: the share of the text's tokens that contain a word from beginning to end.
- unused: the share of the vocabulary, without special tokens, that the text never uses.
- As the vocabulary grows: bytes per token with only the given number of lowest ranks.
"""


_CountsOf = Callable[[Mapping[str, Any]], Mapping[str, int]]


def report_tables(report: VocabularyReport) -> Iterator[Table]:
    """Yield the tables of a report, the most important first."""
    uses = [use for use in (report["training"], *report["texts"]) if use is not None]
    if len(report["texts"]) > 1:
        uses.append(report["all_texts"])
    shown = [use for use in (report["training"], report["all_texts"]) if use is not None]
    if uses:
        yield Table(
            "Texts", _MEASURES_HEADER, [_measures_row(use) for use in uses], importance=(3, 5, 2, 1, 8, 6, 4, 7)
        )
        if uses[0]["growth"]["vocabulary"]:
            yield _growth_table(uses if len(uses) <= MOST_SEPARATE_TEXTS else shown)
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


def _share_table(title: str, label: str, vocabulary: Any, uses: Sequence[Any], counts_of: _CountsOf) -> Table:
    columns = [counts_of(part) for part in (vocabulary, *uses)]
    totals = [sum(column.values()) for column in columns]
    rows = []
    for name, count in columns[0].items():
        shares = [percent(ratio(column.get(name, 0), sum_)) for column, sum_ in zip(columns, totals, strict=True)]
        rows.append([name, f"{count:,}", *shares])
    return Table(title, [label, "tokens", "vocabulary", *(use["name"] for use in uses)], rows)


def _token_table(title: str, name: str, tokens: Sequence[Mapping[str, Any]]) -> Table:
    rows = [[_shown(token["text"]), f"{token['bytes']:,}", str(token["id"])] for token in tokens]
    return Table(f"{title}, {name}", ["token", "bytes", "id"], rows)


def _shown(text: str, width: int = 48) -> str:
    """Return the text as a Python literal, with long runs in the form of regular expressions: ' -{79}'."""
    text = re.sub(r"((?:\\\\|\\[^\\][0-9a-f]*|[^\\]))\1{7,}", _run, repr(text).replace(r"\\x", r"\x"))
    return text if len(text) <= width else text[: width - 3] + "..."


def _run(match: re.Match[str]) -> str:
    return f"{match[1]}{{{len(match[0]) // len(match[1])}}}"


def _image(file: str) -> str:
    """Return an image in Markdown; a link to a PDF, which browsers do not show as an image."""
    path = Path(file)
    return f"[{path.stem}]({file})\n" if path.suffix == ".pdf" else f"![{path.stem}]({file})\n"


def markdown(report: VocabularyReport, images: Sequence[str] = ()) -> str:
    """Return the report as a Markdown document: tables, what their columns mean, and plots.

    Args:
        report: The report.
        images: The file names of the plots, one for each.
    """
    about = report["tokenizer"]
    title = (
        f"# {printable(about['name'])}\n\n{about['vocabulary']:,} tokens, {about['special_tokens']:,} of them special;"
        f" {report['vocabulary']['mean_bytes']:.2f} bytes on average.\n"
    )
    parts = [title, *(table.markdown() for table in report_tables(report))]
    if report["all_texts"] is not None:
        parts[1] += "\n" + NOTES
    if images:
        parts.append("## Plots\n\n" + "".join(map(_image, images)))
    return "\n".join(parts)

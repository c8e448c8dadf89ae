"""Tables as text and as Markdown."""

from __future__ import annotations

import pytest

from bpe.analysis.tables import Table
from bpe.columns import columns_of


def test_table_is_aligned_as_text_and_valid_as_markdown() -> None:
    table = Table("Title", ["name", "n"], [["a|b", "1,000"], ["c", "–"]])
    assert table.text() == "name      n\na|b   1,000\nc         –\n"
    assert table.markdown() == "## Title\n\n| name | n |\n| :-- | --: |\n| a\\|b | 1,000 |\n| c | – |\n"


LONG = Table(
    "Texts",
    ("text", "bytes", "bytes/token", "95%", "tokens/word"),
    [
        ("a/very/long/path/to/a/text/that/has/a/name/prose.txt", "45,150", "2.97", "2.90 to 3.05", "1.62"),
        ("漢字漢字漢字漢字漢字漢字漢字漢字.txt", "1,234", "1.21", "–", "4.37"),
        ("cafe\u0301.txt", "7", "1.00", "–", "–"),
    ],
    importance=(2, 4),
)


@pytest.mark.parametrize("columns", [1, 5, 12, 20, 40, 60, 80, 100, 200])
def test_a_table_never_exceeds_the_terminal(columns: int) -> None:
    for line in LONG.text(columns).splitlines():
        assert columns_of(line) <= columns


def test_names_are_cut_in_the_middle_before_columns_are_left_out() -> None:
    lines = LONG.text(80).splitlines()
    assert len(lines) == 4 and lines[0].split() == list(LONG.header)
    assert lines[1].startswith("a/very/long/pat") and "…" in lines[1] and "prose.txt  " in lines[1]
    assert {columns_of(line) for line in lines} == {80}


def test_the_least_important_columns_are_left_out_and_it_is_said() -> None:
    lines = LONG.text(40).splitlines()
    assert lines[0].split() == ["text", "bytes/token", "tokens/word"]
    assert lines[-2:] == ["2 columns hidden; widen the terminal, or", "use --json or a pipe"]
    assert LONG.text(1000) == LONG.text()


def test_columns_align_by_display_width() -> None:
    table = Table("t", ("name", "n"), [("漢字", "1"), ("cafe\u0301", "22")])
    assert table.text() == "name   n\n漢字   1\ncafe\u0301  22\n"


def test_names_of_texts_in_a_header_are_cut_before_columns_are_left_out() -> None:
    header = ("vocabulary", "corpora/sentences/german.txt", "corpora/sentences/french.txt")
    lines = Table("Growth", header, [("256", "1.00", "1.00")]).text(40).splitlines()
    assert lines == ["vocabulary  corpo…an.txt  corpo…ch.txt", "256                 1.00          1.00"]

"""Tables as text and as Markdown."""

from __future__ import annotations

from bpe.analysis.tables import Table


def test_table_is_aligned_as_text_and_valid_as_markdown() -> None:
    table = Table("Title", ["name", "n"], [["a|b", "1,000"], ["c", "–"]])
    assert table.text() == "name      n\na|b   1,000\nc         –\n"
    assert table.markdown() == "## Title\n\n| name | n |\n| :-- | --: |\n| a\\|b | 1,000 |\n| c | – |\n"

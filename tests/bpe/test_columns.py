"""The width of texts in columns of a terminal."""

from __future__ import annotations

import io

import pytest

from bpe.columns import clipped, clipped_in_the_middle, columns_of, padded, terminal_columns, wrapped

TEXTS = [
    "",
    "a",
    "plain text",
    "漢字漢字漢字",
    "cafe\u0301 " * 4,
    "e" + "\u0301" * 40 + "nd",
    "👩\u200d👩\u200d👧 family",
    "a\tb",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("columns", [0, 1, 2, 3, 5, 8, 100])
def test_a_cut_text_is_as_wide_as_it_may_be(text: str, columns: int) -> None:
    for cut in (clipped(text, columns), clipped_in_the_middle(text, columns)):
        assert columns_of(cut) <= columns
        assert cut == text or columns_of(text) > columns
        assert cut == text or columns_of(cut) >= columns - 2  # a wide character may not fit


def test_widths() -> None:
    assert [columns_of(text) for text in ("abc", "漢字", "e\u0301", "é", "")] == [3, 4, 1, 1, 0]
    assert padded("漢", 4, left=True) == "漢  " and padded("漢", 4, left=False) == "  漢"


def test_text_is_wrapped_at_spaces_and_long_words_anywhere() -> None:
    assert wrapped("dim 512, 8 layers", 10) == ["dim 512, 8", "layers"]
    assert wrapped("abcdefghij kl", 4) == ["abcd", "efgh", "ij", "kl"]
    assert wrapped("漢字漢字", 5) == ["漢字", "漢字"]
    assert wrapped("", 5) == [""]


def test_without_a_terminal_columns_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_columns(io.StringIO()) == 80
    for said, columns in (("33", 33), ("0", 80), ("wide", 80)):
        monkeypatch.setenv("COLUMNS", said)
        assert terminal_columns(io.StringIO()) == columns

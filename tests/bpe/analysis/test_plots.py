"""The plots of a report."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from bpe.analysis import plots as plots_module
from bpe.analysis.report import (
    report_of,
    write_report,
)
from bpe.analysis.usage import usage_of
from support.references import byte_tokenizer

FILES = {"report.json", "report.md", *(f"{name}.png" for name in plots_module.PLOTS)}


@pytest.mark.parametrize("texts", [0, 1, 8, 50])
def test_plots_are_drawn_for_any_number_of_texts_with_any_names(texts: int, tmp_path: Path) -> None:
    names = ["日本.txt", "$a$", "_hidden", "long " * 40, "\x00\udcff", "a|b", "", "\n"]
    tokenizer = byte_tokenizer(ab=256)
    usages = [usage_of(tokenizer, [b"ab" * (n + 1)], names[n % len(names)]) for n in range(texts)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = write_report(report_of(tokenizer, usages), tmp_path)
    assert {path.name for path in files} == (
        FILES if texts else FILES - {"growth.png", "frequencies.png", "fertility.png"}
    )

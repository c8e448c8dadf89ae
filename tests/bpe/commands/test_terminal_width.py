"""What commands print in terminals of 40, 80 and 200 columns, which never wraps, and into a pipe, which is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command_line import BPE, bpe
from support.terminal import Screen, in_terminal


@pytest.fixture(params=[40, 80, 200])
def columns(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def screen_of(columns: int, *arguments: object) -> Screen:
    status, screen = in_terminal([*BPE, *map(str, arguments)], columns)
    assert status == 0, screen.lines
    return screen


@pytest.fixture
def text(tmp_path: Path, corpora: Path) -> Path:
    """A text with a long name of wide and combining characters."""
    path = tmp_path / ("漢字-cafe\u0301-" + "a-long-name-" * 8 + ".txt")
    path.write_text((corpora / "prose.txt").read_text("utf-8")[:5000], "utf-8")
    return path


def test_a_comparison_fits(columns: int, my_json: Path, text: Path) -> None:
    screen = screen_of(columns, "compare", my_json, my_json, text, "--samples", 100, "-q")
    assert screen.wrapped == []
    assert screen.lines[0].startswith("tokenizer")
    assert "bytes/token" in screen.lines[0]
    assert ("hidden" in " ".join(screen.lines)) == (columns < 200)
    whole = bpe("compare", my_json, my_json, text, "--samples", 100).stdout.splitlines()
    assert len(whole) == 3 and str(my_json) in whole[1]


def test_a_report_fits(columns: int, my_json: Path, text: Path) -> None:
    screen = screen_of(columns, "info", my_json, text, text, "-q")
    assert screen.wrapped == []
    assert any(line.startswith("text ") and "bytes/token" in line for line in screen.lines)
    assert str(text) in bpe("info", my_json, text).stdout


def test_progress_of_training_fits_and_vanishes(columns: int, corpora: Path, tmp_path: Path) -> None:
    output = tmp_path / "漢字.json"
    screen = screen_of(columns, "train", corpora, "-o", output, "--vocab-size", 1000, "--trace", 3)
    drawn = " ".join(screen.drawn)
    assert "counting" in drawn and "merging" in drawn
    # Only a message that stays may be longer than the terminal, never a line that is redrawn.
    assert all(any(kept.startswith(line) for kept in screen.lines[4:]) for line in screen.wrapped)
    assert screen.lines[0].startswith("     id")
    assert screen.last == ""


def test_models_fit(columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert screen_of(columns, "models").wrapped == []


def test_quiet_leaves_results_only(corpora: Path, tmp_path: Path) -> None:
    result = bpe("train", corpora, "-o", tmp_path / "my.json", "--vocab-size", 1000, "-q")
    assert (result.exit_code, result.output) == (0, "")
    status, screen = in_terminal([*BPE, "train", str(corpora), "-o", str(tmp_path / "my.json"), "--vocab-size", "1000",
                                  "--quiet"], 80)  # fmt: skip
    assert (status, screen.lines, screen.drawn, screen.last) == (0, [], [], "")

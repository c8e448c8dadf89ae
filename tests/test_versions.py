"""The version is the same wherever a person or a program reads it, and `python -m bpe` is the command `bpe`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import bpe
import model

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere() -> None:
    (declared,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    released = re.findall(r"^## (\d\S*) \(\d{4}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert declared == bpe.__version__ == model.__version__ == released[0]


def test_each_heading_of_the_changelog_is_a_version_with_its_date_below_what_is_unreleased() -> None:
    first, *others = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert first == "Unreleased"
    assert others and all(re.fullmatch(r"\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", heading) for heading in others)


def test_python_dash_m_is_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "bpe", "--help"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("Usage: bpe ")
    assert "encode" in result.stdout

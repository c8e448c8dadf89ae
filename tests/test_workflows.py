"""The workflows on GitHub use pinned actions and no more rights than they need; `make lint` checks their syntax."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_there_are_workflows() -> None:
    assert {file.stem for file in WORKFLOWS} == {"docs", "tests", "wheels"}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_each_action_is_pinned_to_a_full_version(file: Path) -> None:
    used = re.findall(r"uses: *(\S+)", file.read_text("utf-8"))
    assert used and all(re.fullmatch(r"[\w./-]+@v\d+\.\d+\.\d+", action) for action in used)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_may_only_read_the_repository_unless_it_publishes(file: Path) -> None:
    whole, _, jobs = file.read_text("utf-8").partition("\njobs:\n")
    assert "\npermissions:\n  contents: read\n" in whole
    granted = re.findall(r"^ +([\w-]+): write$", jobs, re.MULTILINE)
    assert set(granted) <= {"id-token", "pages"}
    assert "secrets." not in jobs  # publishing is trusted by who runs it, not by a password


def test_the_versions_of_python_agree() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    classified = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)
    built = re.findall(r"cp3(\d+)-\*", text)
    assert classified == [f"3.{minor}" for minor in built]
    assert f'requires-python = ">={classified[0]}"' in text

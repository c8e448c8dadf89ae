"""mypy and pyright accept users' code: the Python of README and the guides, and a program with each public name."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bpe
import model
from support.pages import pages, read_blocks

ROOT = Path(__file__).parents[2]
USER_CODE = Path(__file__).parent / "user_code.py"

# Mistakes that a type checker must find, one a line; otherwise it would not see the types at all.
MISTAKES = """\
from bpe import Tokenizer, train
from model import ModelConfig, generate, load
llm, tok = load("a")
generate(llm, tok, "a", temprature=1)
generate(llm, tok, "a", temperature="hot")
generate(llm, tok, "a", 1.5)
train("a", 300, min_frequncy=1)
train("a", 300, tie_break="none")
ModelConfig.preset("nano", dims=1)
load("a", backend="nativ")
Tokenizer.from_name(3)
tok.encode("a").decode()
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the Python of each page in a file, the program with each public name, and the mistakes."""
    directory = tmp_path_factory.mktemp("programs")
    for page in pages():
        blocks = [block for block in read_blocks(page.read_text("utf-8")) if block.kind in ("python", "doctest")]
        if blocks:
            name = "_".join(page.relative_to(ROOT).with_suffix("").parts).replace("-", "_")
            sources = [step.source for block in blocks for step in block.steps]
            (directory / f"{name}.py").write_text("\n".join(sources), "utf-8")
    (directory / USER_CODE.name).write_bytes(USER_CODE.read_bytes())
    (directory / "mistakes.py").write_text(MISTAKES)
    # An editable install is an import hook, which type checkers cannot follow.
    (directory / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)], "pythonVersion": "3.10"}))
    (directory / "mypy.ini").write_text(
        "[mypy]\npython_version = 3.10\nfollow_imports = silent\n[mypy-datasets.*]\nignore_missing_imports = true\n"
    )
    return directory


def mypy(programs: Path) -> str:
    """Return what mypy prints about the programs."""
    names = sorted(path.name for path in programs.glob("*.py"))
    return _run(programs, "mypy", "--no-error-summary", "--cache-dir=cache", *names)


def pyright(programs: Path) -> str:
    """Return what pyright prints about the programs, in its standard mode."""
    return _run(programs, "pyright", "--pythonpath", sys.executable)


def _run(directory: Path, module: str, *arguments: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=directory,
        env={**os.environ, "MYPYPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not finished.stderr, finished.stderr
    return finished.stdout


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_type_checker_accepts_the_examples_and_finds_each_mistake(
    checker: Callable[[Path], str], programs: Path
) -> None:
    printed = checker(programs)
    errors = [line for line in printed.splitlines() if re.search(r"\.py:\d+(:\d+)?[: -]+error", line)]
    assert [line for line in errors if "mistakes.py" not in line] == []
    found = {int(match[1]) for line in errors if (match := re.search(r"mistakes\.py:(\d+)", line))}
    assert found == set(range(4, 1 + len(MISTAKES.splitlines()))), printed


def test_the_program_for_type_checkers_uses_each_public_name() -> None:
    used = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(USER_CODE.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {(package.__name__, name) for package in (bpe, model) for name in package.__all__} <= used


@pytest.mark.parametrize("package", ["bpe", "model"])
def test_each_package_says_that_it_is_typed_and_its_core_has_a_stub(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    assert (ROOT / package / "_core.pyi").is_file()

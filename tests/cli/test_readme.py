"""The README's examples: each command is run, and what it prints is what the README says."""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


@dataclass
class Example:
    command: str
    output: str


def examples() -> list[Example]:
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append(Example(command, output))
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which a newcomer stands: corpora/ is there, and `bpe` is on the path."""
    directory = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "corpora", directory / "corpora")
    return directory


def run(command: str, directory: Path) -> str:
    """What a shell prints for a command, stdout and stderr in the order they come."""
    modules = {"bpe": "bpe.cli", "torchrun": "torch.distributed.run"}
    ours = "".join(
        f'{name}() {{ {shlex.quote(sys.executable)} -m {module} "$@"; }}\n' for name, module in modules.items()
    )
    script = f"set -o pipefail\n{ours}{command}"
    finished = subprocess.run(
        ["bash", "-c", script], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    printed = finished.stdout.decode()
    assert finished.returncode == 0, f"$ {command}\n{printed}"
    return printed


def test_every_command_of_the_readme_prints_what_the_readme_shows(workplace: Path) -> None:
    checker = doctest.OutputChecker()
    assert len(examples()) > 10
    for example in examples():
        printed = run(example.command, workplace)
        same = checker.check_output(example.output, printed, doctest.ELLIPSIS)
        assert same, f"$ {example.command}\n--- the README:\n{example.output}--- printed:\n{printed}"


def test_the_python_examples_of_the_readme_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    results = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert results.attempted > 5
    assert results.failed == 0


if __name__ == "__main__":
    # python tests/cli/test_readme.py: write what the commands print now into the README.
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copytree(ROOT / "corpora", place / "corpora")
        text = README
        for each in examples():
            shown = run(each.command, place)
            if each.output.strip() and doctest.OutputChecker().check_output(each.output, shown, doctest.ELLIPSIS):
                continue
            text = text.replace(f"$ {each.command}\n{each.output}", f"$ {each.command}\n{shown}", 1)
        (ROOT / "README.md").write_text(text, "utf-8")

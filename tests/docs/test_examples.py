"""Each example of README.md and docs/: a command or a Python block runs and prints what the page shows.

A page is read block by block:

- In a ```console block, a line that begins with `$ ` is a command, and lines that begin with `> ` continue it, as does
  a backslash at a line's end. The lines below are its whole output, stdout and stderr together. bash runs each command
  by itself, and it must exit with status 0.
- A ```python block that begins with `>>>` is a doctest. One without is run, and only has to succeed. The Python blocks
  of a page share their variables.
- The blocks of a page run in order in a directory of their own that holds corpora/, as a fresh clone does. Blocks of
  other languages (sh, json, text) are not run.
- Commands in a comment `<!-- setup`, one a line, run before the blocks below them. Pages with the same set-up share it.

Some things differ between machines and runs. RULES replaces these on both sides before they are compared. A comment on
the line before a block says what else may differ in it:

- `<!-- numbers vary -->`: numbers count as equal, and so does any amount of space between words. For what depends on
  the weights of a model that the page has just trained.
- `<!-- lines vary: REGEX -->`: lines that match REGEX are left out on both sides. For text that such a model writes.
- `<!-- compare only: REGEX -->`: only lines that match REGEX are compared. For long outputs of such a model.

The pages that train a model are slow tests.

`PYTHONPATH=tests python tests/docs/test_examples.py --write [PAGE]...` runs the pages and writes the outputs of now
into them. Where an output counts as equal, the page keeps what it shows.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.pages import Block, pages, read_blocks

ROOT = Path(__file__).parents[2]

NUMBER = r"\d[\d,]*(?:\.\d+)?"
RULES = [
    (r"\d+:\d\d:\d\d|\d+:\d\d\b", "TIME"),
    (rf"\b{NUMBER} (?:s|ms|min|h)\b", "TIME"),
    (rf"\b{NUMBER} (?=[kMG]?B/s|[kMGT]?FLOP/s|tokens (?:per|a) second|tokens/s)", "RATE "),
    (rf"(?i)(?<=\bloss ){NUMBER}|(?<=\bheld-out ){NUMBER}", "LOSS"),
    (rf"{NUMBER}(?= bits(?:/| per | a )byte)", "BITS"),
    (r"(?<=kernels for ).*", "PROCESSOR"),
    (r"\b(tiktoken|tokenizers|torch|transformers) \d+(?:\.\d+)+", r"\1 VERSION"),
    (r"\S*/site-packages/", "site-packages/"),
    (r"[ \t]+$", ""),
]
"""What differs between machines and runs -> its replacement."""


@dataclass
class Failure:
    source: str
    shown: str
    printed: str

    def __str__(self) -> str:
        return f"{self.source}\n--- the page shows:\n{self.shown}--- printed:\n{self.printed}"


class Page:
    """A page whose blocks run in order, in a directory that holds corpora/.

    Args:
        path: The Markdown file.
        directory: An empty directory, in which the blocks run.
    """

    def __init__(self, path: Path, directory: Path) -> None:
        self.path = path
        self.text = path.read_text("utf-8")
        self.blocks = read_blocks(self.text)
        self.directory = directory
        self.variables: dict[str, Any] = {"__name__": "__page__"}
        self.printed: list[list[str]] = []
        self._broken: str | None = None
        shutil.copytree(ROOT / "corpora", directory / "corpora")

    def failures(self, number: int) -> list[Failure]:
        """Run the blocks up to this one, those that have not run yet, and return where its outputs differ."""
        while len(self.printed) <= number:
            if self._broken:
                pytest.fail(f"an earlier block of the page failed:\n{self._broken}")
            try:
                self.printed.append(self._run(self.blocks[len(self.printed)]))
            except Exception as error:
                self._broken = str(error)
                raise
        block = self.blocks[number]
        return [
            Failure(step.source, step.shown, printed)
            for step, printed in zip(block.steps, self.printed[number], strict=True)
            if not same(step.shown, printed, block)
        ]

    def _run(self, block: Block) -> list[str]:
        if block.kind == "setup":
            commands = tuple(step.source for step in block.steps)
            shutil.copytree(set_up(commands), self.directory, dirs_exist_ok=True, symlinks=True)
            return ["" for _ in block.steps]
        if block.kind == "console":
            return [run_command(step.source, self.directory) for step in block.steps]
        return [
            run_python(step.source, self.variables, self.directory, block.kind == "doctest") for step in block.steps
        ]

    def rewritten(self) -> str:
        """Return the page with the outputs that its blocks print now."""
        text = self.text
        changes = []
        for number, block in enumerate(self.blocks):
            self.failures(number)
            for step, printed in zip(block.steps, self.printed[number], strict=True):
                if block.kind in ("console", "doctest") and not same(step.shown, printed, block):
                    changes.append((step.start, step.shown, published(printed)))
        for start, shown, printed in reversed(changes):
            text = text[:start] + printed + text[start + len(shown) :]
        return text


def run_command(command: str, directory: Path) -> str:
    """Return what bash prints for a command, stdout and stderr in the order they come."""
    run_module = shlex.quote(sys.executable) + " -m"
    # torchrun sets OMP_NUM_THREADS where it is not set, and prints five lines about it.
    ours = f'bpe() {{ {run_module} bpe.cli "$@"; }}\n'
    ours += f'torchrun() {{ OMP_NUM_THREADS="${{OMP_NUM_THREADS:-1}}" {run_module} torch.distributed.run "$@"; }}\n'
    left_out = ("COLUMNS", "BPE_TOKENIZER", "BPE_DEBUG", "FORCE_COLOR")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    finished = subprocess.run(
        ["bash", "-c", f'set -o pipefail\n{ours}python() {{ {shlex.quote(sys.executable)} "$@"; }}\n{command}'],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    printed = finished.stdout.decode().replace(str(directory), ".")
    assert finished.returncode == 0, f"$ {command}\n{printed}"
    return printed


def run_python(source: str, variables: dict[str, Any], directory: Path, interactive: bool) -> str:
    """Run a piece of Python and return what it prints; an interactive piece prints its value, as in the interpreter."""
    printed = io.StringIO()
    before, path = Path.cwd(), os.environ["PATH"]
    os.chdir(directory)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"  # where `bpe` is
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(source, "<page>", "single" if interactive else "exec"), variables)
    except Exception as error:
        if not interactive:
            raise
        printed.write(f"Traceback (most recent call last):\n    ...\n{type(error).__name__}: {error}\n")
    finally:
        os.chdir(before)
        os.environ["PATH"] = path
    return printed.getvalue()


@functools.cache
def set_up(commands: tuple[str, ...]) -> Path:
    """Run set-up commands in a new directory, once for all pages, and return it."""
    directory = Path(tempfile.mkdtemp(prefix="set-up-", dir=_set_ups().name))
    shutil.copytree(ROOT / "corpora", directory / "corpora")
    for command in commands:
        run_command(command, directory)
    return directory


@functools.cache
def _set_ups() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bpe-pages-")  # removed when the process ends


def same(shown: str, printed: str, block: Block) -> bool:
    """Whether two outputs are equal but for what may differ."""
    return _comparable(shown, block) == _comparable(printed, block)


def _comparable(text: str, block: Block) -> str:
    lines = text.rstrip("\n").split("\n")
    if block.left_out is not None:
        lines = [line for line in lines if not re.search(block.left_out, line)]
    if block.compared is not None:
        lines = [line for line in lines if re.search(block.compared, line)]
    text = "\n".join(lines)
    for expression, replacement in RULES:
        text = re.sub(expression, replacement, text, flags=re.MULTILINE)
    if block.numbers_vary:
        text = re.sub(r"-?\d[\d,.]*(?:e[+-]\d+)?", "NUMBER", text)
        text = re.sub(r"[ \t]+", " ", text)
    return text


def published(printed: str) -> str:
    """Return an output as a page shows it: without paths of this machine, and with no space at the end of a line."""
    printed = re.sub(r"\S*/site-packages/", ".venv/lib/python3.12/site-packages/", printed)
    printed = re.sub(r"[ \t]+$", "", printed, flags=re.MULTILINE)
    return printed.rstrip("\n") + "\n" if printed.strip("\n") else ""


def _cases() -> list[Any]:
    cases = []
    for path in pages():
        blocks = read_blocks(path.read_text("utf-8"))
        commands = [step.source for block in blocks for step in block.steps]
        trains = any(re.match(r"bpe (pretrain|finetune) |torchrun ", command) for command in commands)
        for number, block in enumerate(blocks):
            if block.kind != "setup":
                name = f"{path.relative_to(ROOT)}:{number + 1}"
                cases.append(pytest.param(path, number, id=name, marks=[pytest.mark.slow] if trains else []))
    return cases


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, Page]]:
    """The pages whose blocks have begun to run."""
    yield _Opened(tmp_path_factory)


@dataclass
class _Opened(dict[Path, Page]):
    tmp_path_factory: pytest.TempPathFactory = field(repr=False)

    def __missing__(self, path: Path) -> Page:
        self[path] = Page(path, self.tmp_path_factory.mktemp(path.stem))
        return self[path]


@pytest.mark.parametrize(("path", "number"), _cases())
def test_an_example_prints_what_the_page_shows(opened: dict[Path, Page], path: Path, number: int) -> None:
    failures = opened[path].failures(number)
    if failures:
        pytest.fail("\n\n".join(map(str, failures)), pytrace=False)


def test_numbers_that_a_rule_names_count_as_equal_and_others_do_not() -> None:
    block = Block("console", 1, [])
    assert same("2,048 tokens in 0.5 s", "2,048 tokens in 12 s", block)
    assert same("step 3  loss 5.1234", "step 3  loss 4.9", block)
    assert not same("2,048 tokens in 0.5 s", "2,049 tokens in 0.5 s", block)
    assert same("text   12.5  3", "text 1.25 44", Block("console", 1, [], numbers_vary=True))
    assert not same("text 12.5", "words 12.5", Block("console", 1, [], numbers_vary=True))


def test_lines_are_left_out_only_where_a_marker_says_so() -> None:
    text = (
        "<!-- lines vary: ^Once -->\n```console\n$ bpe \\\n  generate\nOnce upon\nend\n$ cat > f <<E\n> a\n> E\n```\n"
    )
    (block,) = read_blocks(text)
    assert [step.source for step in block.steps] == ["bpe \\\n  generate", "cat > f <<E\na\nE"]
    assert same("Once upon\nend\n", "Once more\nend\n", block)
    assert not same("Once upon\nend\n", "Once more\nend.\n", block)


def main() -> None:
    """Write the outputs of now into the pages."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] != "--write":
        sys.exit("usage: PYTHONPATH=tests python tests/docs/test_examples.py --write [PAGE]...")
    failed = False
    for path in [Path(name).resolve() for name in arguments[1:]] or pages():
        with tempfile.TemporaryDirectory() as name:
            page = Page(path, Path(name))
            try:
                rewritten = page.rewritten()
            except Exception as error:
                print(f"{path.relative_to(ROOT)}: not written: {error}")
                failed = True
                continue
        if rewritten != page.text:
            path.write_text(rewritten, "utf-8")
            print(f"{path.relative_to(ROOT)}: written")
    sys.exit(failed)


if __name__ == "__main__":
    main()

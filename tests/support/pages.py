"""The pages whose examples the tests run, and the blocks of a page; tests/docs/test_examples.py says what they mean."""

from __future__ import annotations

import doctest
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pages() -> list[Path]:
    """Return the pages whose examples run."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass
class Step:
    """A command, a doctest example or a piece of Python, and the output that the page shows."""

    source: str
    shown: str
    start: int  # where `shown` begins in the page
    indent: int = 0


@dataclass
class Block:
    """A fenced block or a set-up comment of a page."""

    kind: str  # "console", "python", "doctest" or "setup"
    line: int
    steps: list[Step]
    numbers_vary: bool = False
    left_out: str | None = None
    compared: str | None = None


_BLOCK = re.compile(
    r"(?:^<!-- (?P<marker>[a-z ]+)(?:: (?P<regex>[^\n]*))? -->\n)?^```(?P<kind>console|python)\n(?P<body>.*?)^```$"
    r"|^<!-- setup\n(?P<setup>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)


def read_blocks(text: str) -> list[Block]:
    """Return the blocks of a page that run, in order."""
    blocks = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["setup"] is not None:
            commands = match["setup"].replace("\\\n", "").splitlines()
            blocks.append(Block("setup", line, [Step(command, "", 0) for command in commands]))
            continue
        body, start = match["body"], match.start("body")
        if match["kind"] == "console":
            block = Block("console", line, _commands(body, start))
        elif body.startswith(">>> "):
            block = Block("doctest", line, _doctests(body, start))
        else:
            block = Block("python", line, [Step(body, "", start + len(body))])
        marker = match["marker"]
        if marker == "numbers vary":
            block.numbers_vary = True
        elif marker == "lines vary":
            block.left_out = match["regex"]
        elif marker == "compare only":
            block.compared = match["regex"]
        elif marker is not None:
            raise ValueError(f"line {line}: the marker {marker!r} is not known")
        blocks.append(block)
    return blocks


def _commands(body: str, start: int) -> list[Step]:
    steps = []
    for match in re.finditer(
        r"^\$ (?P<command>(?:.*\\\n)*.*\n(?:> .*\n)*)(?P<shown>(?:(?!\$ ).*\n)*)", body, re.MULTILINE
    ):
        command = re.sub(r"^> ", "", match["command"], flags=re.MULTILINE).rstrip("\n")
        steps.append(Step(command, match["shown"], start + match.start("shown")))
    if not steps:
        raise ValueError(f"a console block without a command: {body!r}")
    return steps


def _doctests(body: str, start: int) -> list[Step]:
    lines = body.splitlines(keepends=True)
    steps = []
    for example in doctest.DocTestParser().get_examples(body):
        first = example.lineno + example.source.count("\n")
        steps.append(Step(example.source, example.want, start + sum(map(len, lines[:first]))))
    return steps

"""Running `bpe` in tests, in this process or in one of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from click.testing import CliRunner, Result

from bpe.cli import cli

ROOT = Path(__file__).parents[2]

BPE = [sys.executable, "-m", "bpe.cli"]
"""The command line that starts `bpe` as a process."""


def bpe(*arguments: object, input: bytes | str | None = None) -> Result:
    """Run `bpe` in this process and return its exit status, stdout and stderr."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=input)


def fails_with(result: Result, status: int, *words: str, prints: bool = False) -> None:
    """Assert that a command failed with a message that contains these words, in one line if the status is 1.

    Args:
        result: What `bpe` returned.
        status: The expected exit status.
        words: Words that stderr must contain.
        prints: Whether stdout may have data from before the failure.
    """
    assert result.exit_code == status, result.output
    assert prints or result.stdout == "", result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 1 if status == 1 else lines, result.stderr
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr

"""Standard streams that are closed: a command answers in one line, and no file takes the place of a stream."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from support.command_line import BPE

needs_text = "stdin: the stream is closed; name a file, or pipe text into it"
needs_output = "stdout: the stream is closed; redirect it to a file or /dev/null"


def in_shell(arguments: list[object], redirections: str) -> subprocess.CompletedProcess[str]:
    command = f"{shlex.join([*BPE, *map(str, arguments)])} {redirections}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["encode", "decode", "count", "show"])
def test_a_closed_stdin_is_named(my_json: Path, command: str) -> None:
    found = in_shell([command, "-t", my_json], "<&-")
    assert (found.returncode, found.stdout, found.stderr) == (1, "", f"bpe: {needs_text}\n")


@pytest.mark.parametrize(
    "arguments", [["encode", "-c", "hi"], ["encode", "-c", "hi", "--format", "u16"], ["show", "-c", "hi"], ["--help"]]
)
def test_a_closed_stdout_is_named(my_json: Path, arguments: list[object]) -> None:
    named = arguments if arguments == ["--help"] else [*arguments, "-t", my_json]
    found = in_shell(named, ">&-")
    assert (found.returncode, found.stderr) == (1, f"bpe: {needs_output}\n")
    assert in_shell(named, ">&- 2>&-").returncode == 1


def test_a_closed_stderr_loses_messages_only(my_json: Path) -> None:
    found = in_shell(["show", "-c", "hi", "-t", my_json], "2>&-")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.replace("|", "") == "hi\n"


def test_a_command_that_prints_nothing_works_with_all_streams_closed(tmp_path: Path) -> None:
    """The tokenizer is written into its own file, not into the descriptor of a closed stream."""
    text = tmp_path / "text.txt"
    text.write_bytes(b"abab abab")
    options = ["--vocab-size", 257, "--no-special"]
    closed = in_shell(["train", text, "-o", tmp_path / "closed.json", *options], "<&- >&- 2>&-")
    assert closed.returncode == 0
    assert in_shell(["train", text, "-o", tmp_path / "open.json", *options], "").returncode == 0
    assert (tmp_path / "closed.json").read_bytes() == (tmp_path / "open.json").read_bytes()

"""The commands that a long command names at its end."""

from __future__ import annotations

import io
import shlex
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from bpe.cli import cli
from bpe.commands.next_steps import Word, after_pretraining, after_training, chat, command_line, generate, name_next
from bpe.progress import Bars, Events, Lines, Reporter, reporting
from support.command_line import BPE
from support.terminal import in_terminal


def parsed(line: str) -> dict[str, object]:
    """Return the parameters of a command line, as the command would get them, without running it."""
    program, name, *arguments = shlex.split(line)
    assert program == "bpe"
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, name
    return command.make_context(name, arguments, parent=click.Context(cli)).params


NAMES = ["my.json", "a file's name.json", "-odd.json", "漢字/$HOME.json", "runs/tales", "*.json"]


@pytest.mark.parametrize("name", NAMES)
def test_each_command_line_parses_to_the_paths_it_names(name: str) -> None:
    path = f"./{name}" if name.startswith("-") else name
    show, shards = (
        command_line(["bpe", *step]) for step in after_training(name, [name, "b"], "story", ["*.md"], "out")
    )
    assert parsed(show)["name"] == path
    assert parsed(shards)["corpus"] == (path, "b")
    assert parsed(shards)["name"] == path
    assert parsed(shards)["field"] == "story"
    assert parsed(shards)["exclude"] == ("*.md",)
    assert parsed(command_line(["bpe", "pretrain", "--data", Path(name)]))["data"] == path
    for step in after_pretraining(name):
        assert path in parsed(command_line(["bpe", *step])).values()


def test_a_model_by_name_keeps_its_name() -> None:
    assert "org/name:Q8_0" in parsed(command_line(["bpe", *chat("org/name:Q8_0")])).values()
    assert "./-run" in parsed(command_line(["bpe", *generate(Path("-run"))])).values()


def test_a_corpus_from_stdin_is_not_encoded_again() -> None:
    assert [step[0] for step in after_training("my.json", ["-"], "text", (), "out")] == ["show"]
    assert [step[0] for step in after_training("my.json", [], "text", (), "out")] == ["show"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("make", [lambda stream: Reporter(), Lines, Events])
def test_only_a_person_at_a_terminal_is_told(make: object) -> None:
    steps: Sequence[Sequence[Word]] = [["show", "-c", "a b"], ["pretrain"]]
    stream, silent = Terminal(), io.StringIO()
    with reporting(Bars(stream)):
        name_next(*steps)
    assert stream.getvalue() == "next: bpe show -c 'a b'\n      bpe pretrain\n"
    with reporting(make(silent)):  # type: ignore[operator]
        name_next(*steps)
    assert silent.getvalue() == ""


def test_the_named_commands_lead_from_text_to_shards(corpora: Path, tmp_path: Path) -> None:
    status, screen = in_terminal([*BPE, "train", str(corpora), "-o", "my own.json", "--vocab-size", "800"], 200,
                                 cwd=tmp_path)  # fmt: skip
    assert status == 0
    show, shards = screen.lines[-2:]
    assert show == "next: bpe show -t 'my own.json' -c 'Hello, world!'"
    for line in (show.removeprefix("next: "), shards.strip()):
        status, screen = in_terminal([*BPE, *shlex.split(line)[1:]], 200, cwd=tmp_path)
        assert status == 0
    assert screen.lines[-1] == "next: bpe pretrain --data shards"


def test_training_by_another_algorithm_names_the_next_commands(corpora: Path, tmp_path: Path) -> None:
    options = ["--algorithm", "wordpiece", "--vocab-size", "600", "-o", "w.json"]
    status, screen = in_terminal([*BPE, "train", str(corpora / "prose.txt"), *options], 200, cwd=tmp_path)
    assert status == 0
    assert screen.lines[-2] == "next: bpe show -t w.json -c 'Hello, world!'"
    assert screen.lines[-1].strip() == f"bpe shards {corpora / 'prose.txt'} -t w.json -o shards"

"""Text for commands: -c TEXT, files, stdin, the keyboard, and arguments that are none of these."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from bpe import Tokenizer
from bpe.cli import COMMANDS, cli
from support.command_line import bpe, fails_with
from support.keyboard import END, at_keyboard

TEXT_COMMANDS = ["encode", "decode", "show", "count", "generate", "explain", "info", "compare", "eval", "verify"]
NAMES = ["-c", "-p", "--text", "--prompt"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", TEXT_COMMANDS)
def test_the_option_of_a_text_has_the_same_names_in_every_command(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    (option,) = (parameter for parameter in command.params if parameter.name == "texts")
    assert option.opts == NAMES
    assert option.multiple


def test_no_other_command_uses_a_name_of_a_text_for_another_value() -> None:
    for name in (name for commands in COMMANDS.values() for name in commands if name not in (*TEXT_COMMANDS, "chat")):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        taken = [parameter for parameter in command.params if {*parameter.opts} & {*NAMES}]
        assert all(getattr(parameter, "is_flag", False) for parameter in taken), name


@pytest.mark.parametrize("option", NAMES)
def test_encode_decode_count_and_show_take_a_text_by_each_name(my_json: Path, option: str) -> None:
    ids = bpe("encode", "-t", my_json, option, "Hello world").stdout
    assert ids.split() == [str(id) for id in Tokenizer.from_file(my_json).encode("Hello world")]
    assert bpe("decode", "-t", my_json, option, ids).stdout == "Hello world"
    assert bpe("count", "-t", my_json, option, "Hello world").stdout.split()[:2] == [str(len(ids.split())), "11"]
    assert bpe("show", "-t", my_json, option, "Hello world").stdout.replace("|", "") == "Hello world\n"


def test_several_texts_are_read_like_several_files(my_json: Path, folder: Path) -> None:
    (folder / "a").write_text("one")
    (folder / "b").write_text("two three")
    for command in ("encode", "show"):
        texts = bpe(command, "-t", my_json, "-c", "one", "-p", "two three").stdout
        assert texts == bpe(command, "-t", my_json, "a", "b").stdout
        assert len(texts.splitlines()) == 2
    assert bpe("count", "-t", my_json, "-c", "one", "-c", "two three").stdout.splitlines()[-1].endswith("  total")


@pytest.mark.parametrize("command", ["encode", "decode", "show", "count", "generate", "explain"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["Hello world"], "'Hello world'"),
        (["Hello", "world"], "'Hello world'"),
        (["Hello"], "Hello"),
        (["it's"], '"it\'s"'),
        (["What is a token?"], "'What is a token?'"),
        (["two\nlines"], "'two lines'"),
    ],
)
def test_an_argument_that_is_no_file_may_be_meant_as_text(command: str, arguments: list[str], text: str) -> None:
    model = ["no-model"] if command in ("generate", "explain") else []
    result = bpe(command, *model, *arguments)
    shown = ", ".join(arguments).replace("\n", " ")
    fails_with(result, 1, f"{shown}: no such file; did you mean -c {text}?\n")


def test_a_text_that_is_too_long_for_a_name_is_cut_in_the_error() -> None:
    result = bpe("encode", "word " * 2000)
    fails_with(result, 1, "word word", "...: no such file; did you mean -c '", "...'?")
    assert len(result.stderr) < 200


def test_a_misspelt_file_is_asked_for_before_a_text(folder: Path) -> None:
    (folder / "prose.txt").write_text("Hello")
    fails_with(bpe("count", "porse.txt"), 1, "porse.txt: no such file; did you mean prose.txt, or -c porse.txt?")
    fails_with(bpe("count", "prose.txt", "wrld"), 1, "bpe: wrld: no such file; did you mean -c wrld?")
    fails_with(
        bpe("train", "porse.txt", "-o", "x.json", "--vocab-size", "999"),
        1,
        "porse.txt: no such file or directory; did you mean prose",
    )


def test_a_directory_is_refused_where_files_are_read_one_by_one(folder: Path) -> None:
    (folder / "texts").mkdir()
    fails_with(bpe("encode", "texts"), 1, "texts: a directory; give its files, such as", "*")


@pytest.mark.parametrize("command", [["info", "gpt"], ["compare", "a", "b"], ["verify", "gpt"], ["eval", "gpt"]])
@pytest.mark.parametrize("text", ["Hello world", "What is this?"])
def test_a_source_of_documents_that_is_no_file_may_be_meant_as_text(command: list[str], text: str) -> None:
    fails_with(bpe(*command, text), 1, f"{text}: no such file or directory; did you mean -c '{text}'?\n")


def test_a_pattern_that_matches_nothing_is_no_text(my_json: Path) -> None:
    fails_with(bpe("compare", my_json, my_json, "*.txt"), 1, "*.txt: no file matches this pattern")


@pytest.mark.parametrize("command", ["generate", "explain", "eval", "chat"])
def test_a_text_in_the_place_of_the_model_is_told_apart_from_a_name(command: str) -> None:
    arguments = ["-c", "text"] if command == "eval" else []
    message = f"Hello world: not a model; name the model before the text: bpe {command} MODEL -p 'Hello world'\n"
    fails_with(bpe(command, "Hello world", *arguments), 1, message)


def test_files_and_texts_exclude_each_other_and_both_are_named(my_json: Path, folder: Path) -> None:
    (folder / "file").write_text("Hello")
    for command in (["encode"], ["decode"], ["count"], ["show"], ["generate", "m"], ["explain", "m"]):
        fails_with(bpe(*command, "file", "-c", "text"), 2, "-c / --text", "file", "not both")
    fails_with(bpe("encode", "-t", my_json, "-", "-"), 2, "stdin (-) can be read only once")


def test_binary_ids_are_not_read_from_the_command_line(my_json: Path) -> None:
    fails_with(bpe("decode", "-t", my_json, "-c", "ab", "--format", "u16"), 2, "--format u16 is binary", "-c")


def test_info_compare_and_verify_read_a_text_as_one_document(my_json: Path, folder: Path) -> None:
    (folder / "text").write_text("a text of some words")
    pair = [my_json, my_json]
    named = bpe("compare", *pair, "-c", "a text of some words")
    assert named.exit_code == 0, named.output
    cuts, table = named.stdout.split("\n\n", 1)  # a short text is shown as it is cut
    assert cuts.count("| of| some|") == 2
    assert table == bpe("compare", *pair, "text").stdout
    both = bpe("info", my_json, "text", "-c", "a text of some words")
    assert both.exit_code == 0, both.output
    assert "'a text of some words'" in both.stdout


@pytest.mark.parametrize(
    ("command", "awaited"),
    [
        (["encode"], "text"),
        (["encode", "-"], "text"),
        (["count"], "text"),
        (["show"], "text"),
        (["decode"], "ids"),
    ],
)
def test_what_is_read_from_the_keyboard_and_how_to_end_it_is_printed(
    my_json: Path, command: list[str], awaited: str
) -> None:
    result = at_keyboard(*command, "-t", my_json, typed=b"97 98\n" + END)
    assert result.returncode == 0, result.stderr
    line = f"bpe: reading {awaited} from the keyboard; Ctrl-D on an empty line ends it\n"
    assert result.stderr.decode().startswith(line)
    assert result.stdout


def test_training_and_documents_announce_the_keyboard(my_json: Path, folder: Path) -> None:
    typed = b"some text of some words\n" + END
    result = at_keyboard("train", "-", "-o", "my.json", "--vocab-size", "520", typed=typed, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert b"bpe: reading the corpus from the keyboard; Ctrl-D" in result.stderr
    result = at_keyboard("compare", my_json, my_json, "-", typed=typed, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert b"bpe: reading text from the keyboard; Ctrl-D" in result.stderr


def test_nothing_is_announced_without_a_keyboard(my_json: Path) -> None:
    assert bpe("encode", "-t", my_json, input="Hello").stderr == ""
    assert at_keyboard("encode", "-t", my_json, "-c", "Hello").stderr == b""

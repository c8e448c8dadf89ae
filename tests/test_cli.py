"""The command `bpe`: its help, its lazy loading, its exit statuses and errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bpe import Tokenizer
from bpe.cli import COMMANDS, cli
from support.command_line import BPE, bpe, fails_with

NAMES = [name for commands in COMMANDS.values() for name in commands]


def command_named(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python process of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_help_lists_every_command_under_its_heading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = bpe("--help").stdout.splitlines()
    places = [lines.index(f"{heading}:") for heading in COMMANDS]
    assert places == sorted(places)
    for place, commands in zip(places, COMMANDS.values(), strict=True):
        shown = [line.split()[0] for line in lines[place + 1 : place + 1 + len(commands)]]
        assert shown == list(commands)


def test_no_summary_is_cut_off_or_wrapped_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = bpe("--help").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    commands = lines[lines.index(f"{next(iter(COMMANDS))}:") :]
    for name in NAMES:
        (line,) = (line for line in commands if line.startswith(f"  {name} "))
        summary = line.removeprefix(f"  {name} ").strip()
        assert summary.endswith(".")
        assert "..." not in summary


def test_every_command_has_examples_and_every_option_has_a_description() -> None:
    for name in NAMES:
        command = command_named(name)
        page = bpe(name, "--help").stdout
        assert "Examples:" in page
        assert f"bpe {name}" in page
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.name} has no help"


def test_the_help_encode_and_train_load_no_heavy_module(my_json: Path, tmp_path: Path) -> None:
    ranks, text = tmp_path / "my.model", tmp_path / "text"
    text.write_text("some words " * 100)
    Tokenizer.from_file(my_json).save(ranks)
    program = """
import sys
from bpe.cli import main
try:
    main()
finally:
    heavy = {"torch", "numpy", "matplotlib", "pyarrow", "regex", "safetensors", "model.transformer", "asyncio"}
    print("loaded:", *sorted(heavy & {*sys.modules}), file=sys.stderr)
"""
    training = ["train", text, "-o", tmp_path / "x.json", "--vocab-size", 260, "--no-special", "--quiet"]
    encoding = ["encode", "-c", "hi", "-t", ranks, "--pattern", "llama3"]
    for arguments in (["--help"], ["pretrain", "--help"], encoding, training):
        finished = python(program, *arguments)
        assert (finished.returncode, finished.stderr) == (0, "loaded:\n"), arguments


def test_commands_about_tokenizers_do_not_import_those_about_models() -> None:
    program = """
import sys, importlib
for module in sys.argv[1:]:
    importlib.import_module(module)
print(*(name for name in sys.modules if name == "bpe.cli" or name.split(".")[0] == "model"))
"""
    modules = [module for commands in COMMANDS.values() for module in commands.values() if module.startswith("bpe.")]
    assert python(program, *modules).stdout == "\n"


def test_version_prints_the_installed_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.2.3")
    assert bpe("--version").stdout == "1.2.3\n"


def test_shell_completion_completes_commands_and_options() -> None:
    def completed(words: str, place: int) -> list[str]:
        environment = {"_BPE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(place)}
        program = "from bpe.cli import main; main()"
        command = [sys.executable, "-c", program]
        finished = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True)
        return finished.stdout.decode().split()

    assert completed("bpe en", 1) == ["plain,encode"]
    assert completed("bpe encode --allow", 2) == ["plain,--allow-special"]


def test_an_unknown_command_is_named() -> None:
    fails_with(bpe("enclode"), 2, "no such command: enclode; did you mean bpe encode?\n")


def test_wrong_usage_exits_with_status_2(my_json: Path, tmp_path: Path) -> None:
    fails_with(bpe("encode", "--nonsense"), 2, "nonsense")
    fails_with(bpe("encode", "-t", my_json, "-c", "text", "file"), 2, "not both")
    fails_with(bpe("encode", "-t", "llama3", "-c", "x", "--format", "u16"), 2, "u32")


def test_errors_name_missing_files(my_json: Path, tmp_path: Path) -> None:
    fails_with(bpe("encode", "-t", my_json, "nowhere.txt"), 1, "nowhere.txt", "no such file")
    fails_with(bpe("train", "nowhere", "-o", tmp_path / "x.json", "--vocab-size", "512"), 1, "nowhere", "no such file")
    fails_with(bpe("encode", "-t", "nowhere.json", "-c", "x"), 1, "nowhere.json", "no such file")


def test_debug_prints_the_traceback(tmp_path: Path) -> None:
    finished = subprocess.run(
        [*BPE, "--debug", "encode", "nowhere.txt"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert finished.returncode != 0
    assert "Traceback" in finished.stderr


def test_encode_exits_silently_when_the_reader_of_its_pipe_exits(my_json: Path, tmp_path: Path) -> None:
    big = tmp_path / "big.txt"
    big.write_bytes(b"many words here " * 200_000)
    script = f"{' '.join(BPE)} encode -t {my_json} {big} --format json | head -c 10"
    finished = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert len(finished.stdout) == 10
    assert finished.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_reported_in_one_line(my_json: Path, unbuffered: str) -> None:
    command = [*BPE, "encode", "-t", str(my_json), "-c", "text"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        finished = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, env=environment)
    assert finished.returncode == 1
    assert finished.stderr.count(b"\n") == 1
    assert b"No space left" in finished.stderr


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("train", "CORPUS (- for stdin, or --counts FILE)"),
        ("info", "NAME|FILE|DIRECTORY"),
        ("compare", "TOKENIZER TOKENIZER... FILE"),
        ("verify", "NAME|FILE"),
        ("shards", "CORPUS (- for stdin)"),
        ("finetune", "MODEL, DIALOGS..."),
        ("pull", "NAME"),
        ("generate", "MODEL"),
        ("chat", "MODEL"),
        ("eval", "MODEL, FILE, -c / --text TEXT or --choices FILE"),
        ("explain", "MODEL"),
        ("convert", "IN, OUT (or --format NAME)"),
    ],
)
def test_each_command_names_all_that_is_missing(command: str, missing: str) -> None:
    fails_with(bpe(command), 2, f"Error: missing {missing}\n")


@pytest.mark.parametrize("name", NAMES)
def test_no_help_page_is_wider_than_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = bpe(name, "--help").stdout.splitlines()
    assert [line for line in lines if len(line) > 80] == []


def test_the_help_prints_the_command_for_completion_in_one_line() -> None:
    assert '    eval "$(bpe completion bash)"\n' in bpe("--help").stdout

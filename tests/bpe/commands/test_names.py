"""Other names of options and commands."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click
import pytest

from bpe import Tokenizer
from bpe.cli import COMMANDS, cli
from bpe.commands.names import OTHER_COMMANDS, OTHER_OPTIONS, RELATED_OPTIONS
from support.command_line import BPE, bpe, fails_with

NAMES = [name for commands in COMMANDS.values() for name in commands]


def parameters_of(name: str) -> list[click.Parameter]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command.params


def names_of(parameter: click.Parameter) -> set[str]:
    if isinstance(parameter, click.Option):
        return {*parameter.opts, *parameter.secondary_opts}
    return {parameter.make_metavar(click.Context(cli)).replace("[", "").replace("]", "")}


def test_every_other_name_leads_to_an_option_or_an_argument_of_a_command() -> None:
    ours = {name for command in NAMES for parameter in parameters_of(command) for name in names_of(parameter)}
    assert {*OTHER_OPTIONS} <= ours
    assert {target for _, target, _ in RELATED_OPTIONS} <= ours
    assert {command for commands in OTHER_COMMANDS.values() for command in commands} <= {*NAMES}
    assert not {*OTHER_COMMANDS} & {*NAMES}


@pytest.mark.parametrize("command", NAMES)
def test_no_other_name_means_two_options_of_a_command(command: str) -> None:
    seen: dict[str, str] = {}
    for parameter in parameters_of(command):
        for own in parameter.opts if isinstance(parameter, click.Option) else ():
            for other in OTHER_OPTIONS.get(own, ()):
                assert seen.setdefault(other, own) == own, other


def test_options_are_found_by_the_names_of_other_programs(my_json: Path, tmp_path: Path, corpora: Path) -> None:
    text = corpora / "prose.txt"
    for number, names in enumerate((("--output", "--vocab-size"), ("--out", "--vocab"), ("--outfile", "--n_vocab"))):
        result = bpe("train", text, names[0], tmp_path / f"{number}.json", names[1], "600")
        assert result.exit_code == 0, result.output
        assert Tokenizer.from_file(tmp_path / f"{number}.json").n_vocab == 600
    encoded = bpe("encode", "--tok", my_json, "-c", "<|end_of_text|>", "--allowed-special")
    assert encoded.stdout == bpe("encode", "-t", my_json, "-c", "<|end_of_text|>", "--allow-special").stdout == "769\n"


@pytest.mark.parametrize("command", NAMES)
def test_every_option_may_be_written_with_underscores(command: str) -> None:
    for parameter in parameters_of(command):
        if not isinstance(parameter, click.Option):
            continue
        for name in names_of(parameter):
            if name.startswith("--") and "-" in name[2:]:
                spelled = "--" + name[2:].replace("-", "_")
                value = [] if parameter.is_flag else ["x"]
                result = bpe(command, spelled, *value, "--help")
                assert result.exit_code == 0, result.output


def test_the_value_of_another_option_is_not_taken_for_a_name(my_json: Path) -> None:
    expected = Tokenizer.from_file(my_json).encode("--allow_special")
    assert bpe("encode", "-t", my_json, "-c", "--allow_special").stdout.split() == [str(id) for id in expected]


def test_an_option_given_by_two_names_counts_as_one(my_json: Path) -> None:
    result = bpe("compare", my_json, my_json, "-c", "some text", "--samples", "100", "--num-samples", "200")
    assert result.exit_code == 0, result.output
    refused = bpe("info", my_json, "--ctx", "100")
    fails_with(refused, 2, "--length has no effect on a tokenizer")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "--batch-size", "8"], "no such option: --batch-size; did you mean --batch-tokens, which counts"),
        (["pretrain", "--batch_size=8"], "no such option: --batch_size; did you mean --batch-tokens, which counts"),
        (["pretrain", "--model", "micro"], "did you mean --config?"),
        (["train", "x", "--size", "9"], "did you mean --vocab-size, which counts all tokens?"),
        (["generate", "--model", "smollm2"], "did you mean the argument MODEL?"),
        (["chat", "-m", "smollm2"], "no such option: -m; did you mean the argument MODEL?"),
        (["encode", "--file", "x"], "did you mean the argument FILE...?"),
        (["shards", "--input", "x"], "did you mean the argument CORPUS...?"),
        (["finetune", "--resume"], "did you mean --output, which resumes the run in the directory?"),
        (["pretrain", "--learnin-rate", "3"], "no such option: --learnin-rate; did you mean --learning-rate?"),
        (["pretrain", "--learning", "3"], "did you mean --learning-rate?"),
        (["generate", "m", "--max-new-tokenz", "3"], "did you mean --max-tokens?"),
        (["shards", "x", "--no-bso"], "did you mean --no-bos"),
        (["encode", "--top-p", "1"], "no such option: --top-p; it is an option of bpe generate and bpe chat\n"),
        (["encode", "--temp", "1"], "no such option: --temp; it is an option of bpe generate and bpe chat\n"),
        (["train", "-c", "text"], "no such option: -c; other commands have it\n"),
        (["encode", "--debug"], "no such option: --debug; it stands before the command: bpe --debug encode ...\n"),
        (["encode", "--xyzzy"], "no such option: --xyzzy\n"),
    ],
)
def test_the_likeliest_option_is_suggested(arguments: list[str], message: str) -> None:
    fails_with(bpe(*arguments), 2, message)


@pytest.mark.parametrize(
    ("name", "likely"),
    [
        ("tokenize", "bpe encode"),
        ("Tokenise", "bpe encode"),
        ("detokenize", "bpe decode"),
        ("run", "bpe chat or bpe generate"),
        ("list", "bpe models"),
        ("fine-tune", "bpe finetune"),
        ("finetuning", "bpe finetune"),
        ("gen", "bpe generate"),
        ("downlaod", "bpe pull"),
    ],
)
def test_the_likeliest_command_is_suggested(name: str, likely: str) -> None:
    fails_with(bpe(name), 2, f"no such command: {name}; did you mean {likely}?\n")


def test_an_unlikely_command_leads_to_the_help() -> None:
    fails_with(bpe("xyzzy"), 2, "no such command: xyzzy; bpe --help lists the commands\n")


def test_help_and_version_are_found_where_other_programs_have_them() -> None:
    assert bpe("help").stdout == bpe("--help").stdout == bpe("-h").stdout
    assert bpe("help", "count").stdout == bpe("count", "--help").stdout
    # In processes of their own, because click looks the version up only once in a process.
    versions = [
        subprocess.run([*BPE, name], capture_output=True, check=True) for name in ("version", "-V", "--version")
    ]
    assert versions[0].stdout.strip()
    assert len({version.stdout for version in versions}) == 1

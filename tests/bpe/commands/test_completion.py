"""What the shell completes, through click and in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from bpe.cli import COMMANDS, cli
from bpe.commands.completers import CompletedText
from bpe.locate import SOURCES
from bpe.patterns import PATTERNS
from support.command_line import BPE, bpe, fails_with

NAMES = [name for names in COMMANDS.values() for name in names]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, my_json: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a tokenizer, a model by the names of its files, and other files."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(my_json, "my.json")
    run = tmp_path / "runs" / "tales"
    run.mkdir(parents=True)
    (run / "model.safetensors").touch()
    (run / "params.json").touch()
    for name in ("weights.gguf", "text.txt", "dialogs.jsonl", ".hidden.gguf"):
        (tmp_path / name).touch()
    return tmp_path


def completed(*words: str) -> list[str]:
    """Return what is completed for the last word, after the other ones; files that the shell finds are `<file>`."""
    items = ShellComplete(cli, {}, "bpe", "_BPE_COMPLETE").get_completions([*words[:-1]], words[-1])
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in items]


def test_commands_and_options_are_completed() -> None:
    assert completed("co") == ["compare", "count", "convert", "completion"]
    assert completed("encode", "--te") == ["--text"]
    assert completed("train", "--min") == ["--min-frequency"]


@pytest.mark.parametrize("words", [("encode", "-t"), ("shards", "--tokenizer"), ("train", "--base"), ("verify",)])
def test_tokenizers_are_completed_by_known_names_files_and_directories(words: tuple[str, ...]) -> None:
    assert {*SOURCES, "my.json", "runs/tales", "weights.gguf"} <= {*completed(*words, "")}
    assert completed(*words, "my") == ["my.json"]
    assert completed(*words, "lla") == ["llama3", "llama4"]
    assert "text.txt" not in completed(*words, "")
    assert ".hidden.gguf" not in completed(*words, "")


@pytest.mark.parametrize(
    "words",
    [("generate",), ("chat",), ("eval",), ("explain",), ("explain", "-m"), ("finetune",), ("pretrain", "--init")],
)
def test_models_are_completed_by_known_names_files_and_directories(words: tuple[str, ...]) -> None:
    found = completed(*words, "")
    assert {"smollm2", "runs/tales", "weights.gguf"} <= {*found}
    assert not {"llama3", "my.json", "text.txt"} & {*found}
    assert completed(*words, "runs/") == ["runs/tales"]


def test_what_is_no_name_is_left_to_the_shell() -> None:
    assert completed("encode", "te") == completed("train", "te") == completed("encode", "-t", "te") == ["<file>"]
    assert completed("shards", "-o", "") == completed("pretrain", "--data", "") == ["<dir>"]
    assert completed("generate", "none/") == ["<file>"]


def test_models_of_the_hub_are_completed(hub: object) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    snapshot = Path(constants.HF_HUB_CACHE) / "models--org--talker" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot / "talker-Q8_0.gguf").touch()
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("c0ffee")
    assert "org/talker:talker-Q8_0.gguf" in completed("chat", "org/")


def test_presets_patterns_devices_and_choices_are_completed() -> None:
    assert completed("pretrain", "--config", "mic") == ["micro"]
    assert completed("pretrain", "--config", "min") == ["ministral-8b", "mini"]
    assert "llama3.2-1b" in completed("info", "llama3.2")
    assert completed("encode", "--pattern", "") == [*PATTERNS]
    assert completed("generate", "m", "--device", "") == ["auto", "cpu", "cuda", "mps"]
    assert completed("generate", "m", "--dtype", "b") == ["bfloat16"]
    assert completed("finetune", "m", "--lora-target", "w1") == ["w1"]
    assert completed("finetune", "m", "d") == ["dialogs.jsonl"]
    assert completed("pull", "o200") == ["o200k_base"]


def test_chat_templates_of_the_model_are_completed(folder: Path) -> None:
    tales = folder / "runs" / "tales"
    (tales / "chat_template.jinja").write_text("{{ messages }}")
    (tales / "additional_chat_templates").mkdir()
    (tales / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")
    assert completed("chat", "runs/tales", "--template", "") == ["tool_use", "default"]
    assert completed("chat", "runs/tales", "--temperature", "1", "--template", "to") == ["tool_use"]
    assert completed("chat", "weights.gguf", "--template", "") == []  # which is no GGUF


@pytest.mark.parametrize("name", NAMES)
def test_every_name_file_and_directory_has_a_completion(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for parameter in command.params:
        metavar = (parameter.metavar or "").replace("[", "").replace("]", "")
        if any(word in metavar for word in ("FILE", "DIR", "MODEL", "CORPUS...", "NAME|", "TOKENIZER")):
            assert isinstance(parameter.type, CompletedText), f"{name} {parameter.opts}"


def test_completion_loads_no_heavy_module(folder: Path) -> None:
    program = """
import os, sys
os.environ |= {"_BPE_COMPLETE": "bash_complete", "COMP_WORDS": sys.argv[1], "COMP_CWORD": sys.argv[2]}
sys.argv = ["bpe"]
from bpe.cli import main
try:
    main()
finally:
    print(*sorted({"torch", "transformers", "httpx", "requests", "matplotlib"} & {*sys.modules}), file=sys.stderr)
"""
    for words, place in (("bpe generate ", 2), ("bpe encode -t ", 3), ("bpe pretrain --config ", 3)):
        command = [sys.executable, "-c", program, words, str(place)]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        assert finished.stdout
        assert finished.stderr == "\n", words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(shell: str) -> None:
    result = bpe("completion", shell)
    assert result.exit_code == 0, result.output
    assert f"_BPE_COMPLETE={shell}_complete" in result.stdout
    fails_with(bpe("completion"), 2, "missing SHELL")
    fails_with(bpe("completion", "csh"), 2, "'csh' is not one of bash, zsh, fish", "did you mean zsh?")


def test_a_real_bash_completes_with_the_script(folder: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    directory = folder / "bin"
    directory.mkdir()
    (directory / "bpe").write_text(f'#!/bin/sh\nexec {" ".join(BPE)} "$@"\n')
    (directory / "bpe").chmod(0o755)
    script = """
eval "$(bpe completion bash)"
complete -p bpe
complete_words() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _bpe_completion bpe
    echo "${COMPREPLY[@]}"
}
complete_words bpe dec
complete_words bpe encode -t my
complete_words bpe generate runs/t
"""
    environment = {**os.environ, "PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}
    finished = subprocess.run([bash, "-c", script], env=environment, capture_output=True, text=True, check=False)
    if "requires a Bash version" in finished.stderr or "not supported" in finished.stderr:
        pytest.skip("this bash is too old for completion")
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert "_bpe_completion bpe" in lines[0]
    assert lines[1:] == ["decode", "my.json", "runs/tales"]

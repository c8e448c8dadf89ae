"""`bpe pull`, and other commands with the names of repositories on the hub."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import constants

from bpe import Tokenizer
from bpe.commands.terminal import amount
from support.command_line import BPE, bpe, fails_with
from support.loopback_hub import Hub, Repository


@pytest.fixture
def name(hub: Hub, my_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a repository with a tokenizer."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    hub.repositories["org/name"] = Repository({"tokenizer.json": my_json.read_bytes(), "README.md": b"Read me."})
    return "org/name"


def test_pull_prints_the_path_that_other_commands_take(hub: Hub, name: str, my_json: Path) -> None:
    result = bpe("pull", name)
    assert result.exit_code == 0, result.output
    path = result.stdout.strip()
    assert result.stderr == f"org/name: 1 file, {amount(my_json.stat().st_size)}B\n"
    expected = bpe("encode", "-t", my_json, "-c", "Once upon a time").stdout
    hub.requests.clear()
    assert bpe("encode", "-t", path, "-c", "Once upon a time").stdout == expected
    assert bpe("encode", "-t", name, "-c", "Once upon a time").stdout == expected
    assert hub.requests == []


def test_a_name_is_downloaded_when_a_command_needs_it(hub: Hub, name: str, my_json: Path) -> None:
    ids = Tokenizer.from_file(my_json).encode("Once upon a time")
    assert Tokenizer.from_name(name).encode("Once upon a time") == ids
    assert bpe("count", "-t", name, "-c", "Once upon a time").stdout.split()[0] == str(len(ids))
    assert bpe("info", name).stdout.startswith("tokenizer ")
    assert hub.downloads() == ["tokenizer.json"]


def test_a_known_name_is_downloaded_from_its_repository(
    hub: Hub, name: str, my_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPE_CACHE", str(tmp_path / "cache"))
    hub.repositories["openai-community/gpt2"] = hub.repositories[name]
    result = bpe("pull", "gpt2")
    assert result.exit_code == 0, result.output
    assert Path(result.stdout.strip()).read_bytes() == my_json.read_bytes()
    fails_with(bpe("pull", "gpt2", "--revision", "v1"), 2, "--revision has no effect on the known name gpt2")
    fails_with(bpe("pull", "gpt2", "--tokenizer"), 2, "--tokenizer has no effect on the known name gpt2")


def test_pull_takes_the_tokenizer_alone_or_a_revision(hub: Hub, name: str) -> None:
    files = hub.repositories[name].files
    files |= {"config.json": b"{}", "model.safetensors": b"weights"}
    assert bpe("pull", name, "--tokenizer").exit_code == 0
    assert sorted(hub.downloads()) == ["config.json", "tokenizer.json"]
    assert bpe("pull", name, "--revision", "c" * 40).exit_code == 0
    assert hub.downloads()[-1] == "model.safetensors"
    fails_with(bpe("pull", name, "--revision", "v9"), 1, "org/name: no revision 'v9'")


@pytest.mark.parametrize("wrong", ["../x", "a/b/c", "org/name:../x.gguf", "org/", "/name", "org/name:", "name", ""])
def test_odd_names_are_refused_before_any_request(hub: Hub, name: str, tmp_path: Path, wrong: str) -> None:
    fails_with(bpe("pull", wrong), 1, wrong, "ORG/NAME:FILE.gguf")
    assert hub.requests == []
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("https://huggingface.co/org/name", "org/name"),
        ("https://huggingface.co/org/name/tree/main?x=1", "org/name"),
        ("https://huggingface.co/org/name/blob/main/x-Q8_0.gguf", "org/name:x-Q8_0.gguf"),
        ("hf.co/org/name:Q8_0", "org/name:Q8_0"),
        ("hf://org/name/", "org/name"),
        ("smolm2", "smollm2"),
    ],
)
def test_an_address_of_the_hub_and_a_misspelt_name_are_understood(wrong: str, meant: str) -> None:
    fails_with(bpe("pull", wrong), 1, wrong, f"did you mean {meant}?")
    fails_with(bpe("info", wrong), 1, wrong, f"did you mean {meant}?")


def test_pull_without_the_hub_returns_what_the_cache_has(hub: Hub, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = hub.repositories[name].files
    files |= {"tokenizer_config.json": b"{}"}
    hub.repositories["org/model"] = Repository({**files, "config.json": b"{}", "model.safetensors": b"weights"})
    paths = {org: bpe("pull", org).stdout for org in (name, "org/model")}
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for org, path in paths.items():
        assert path and bpe("pull", org).stdout == path
        assert bpe("pull", org, "--revision", "c" * 40).stdout == path
        fails_with(bpe("pull", org, "--revision", "v9"), 1, f"{org}: revision 'v9' is not in the hub's cache")
    Path(paths["org/model"].strip(), "model.safetensors").unlink()
    fails_with(bpe("pull", "org/model"), 1, "org/model: not in the hub's cache")
    assert bpe("pull", "org/model", "--tokenizer").stdout == paths["org/model"]
    assert hub.requests == []


def test_a_process_reads_the_settings_of_the_hub_from_the_environment(hub: Hub, name: str) -> None:
    pulled = subprocess.run([*BPE, "pull", name], capture_output=True, text=True, check=True)
    assert Path(pulled.stdout.strip(), "tokenizer.json").is_file()
    hub.requests.clear()
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [*BPE, "encode", "-t", name, "-c", "Hello"]
    subprocess.run(command, capture_output=True, env=offline, check=True)
    shutil.rmtree(os.environ["HF_HOME"])
    finished = subprocess.run(command, capture_output=True, text=True, env=offline)
    assert finished.stderr == (
        "bpe: org/name: not in the hub's cache, and HF_HUB_OFFLINE forbids downloads; unset it;"
        " there is no path of this name either\n"
    )
    assert hub.requests == []

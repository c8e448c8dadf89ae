"""`bpe models`: the tokenizers and models on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bpe.hub.repository import pull
from support.command_line import bpe
from support.loopback_hub import Hub, Repository
from support.repositories import hub_name


@pytest.fixture(autouse=True)
def work(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, empty caches, and a hub."""
    monkeypatch.setenv("BPE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def put(path: Path, size: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def entries(source: str) -> dict[str, Any]:
    """Return format and size by name, or the note if there is no path."""
    result = bpe("models", "--json")
    assert result.exit_code == 0, result.output
    return {
        entry["name"]: (entry["format"], entry["bytes"]) if entry["path"] else entry["note"]
        for entry in json.loads(result.stdout)
        if entry["source"] == source
    }


def test_known_names_are_listed_with_their_place_or_their_remedy(tmp_path: Path, hub: Hub) -> None:
    put(tmp_path / "cache" / "llama3" / "tokenizer.model", 7)
    known = entries("known")
    assert list(known) == ["llama3", "llama4", "o200k_base", "cl100k_base", "smollm2", "gpt2"]
    assert known["llama3"] == ("tokenizer", 7)
    assert known["gpt2"] == "run: bpe pull gpt2"
    assert bpe("models").stdout.splitlines()[:2] == ["Known names:", "  tokenizer        7 B  llama3  (cache)"]
    hub.repositories["openai-community/gpt2"] = Repository({"tokenizer.json": b"123456"})
    assert bpe("pull", "gpt2").exit_code == 0
    assert entries("known")["gpt2"] == ("tokenizer", 6)


def test_the_cache_of_the_hub_is_listed(hub: Hub) -> None:
    assert entries("hub") == {}
    hub.repositories["org/tokenizer"] = Repository({"tokenizer.json": b"1234"})
    hub.repositories["org/model"] = Repository({"config.json": b"12", "model.safetensors": b"345"})
    hub.repositories["org/ggufs"] = Repository({"a-Q8_0.gguf": b"1", "a-Q4_0.gguf": b"12"})
    hub.repositories["org/adapter"] = Repository({"adapter_config.json": b"1", "adapter_model.safetensors": b"2"})
    for name in ("org/tokenizer", "org/model", "org/ggufs:Q8_0", "org/ggufs:Q4_0", "org/adapter"):
        pull(hub_name(name), "any")
    hub.requests.clear()
    assert entries("hub") == {
        "org/adapter": ("adapter", 2),
        "org/ggufs:a-Q4_0.gguf": ("gguf", 2),
        "org/ggufs:a-Q8_0.gguf": ("gguf", 1),
        "org/model": ("huggingface", 5),
        "org/tokenizer": ("tokenizer", 4),
    }
    assert hub.requests == []
    assert "  gguf             2 B  org/ggufs:a-Q4_0.gguf\n" in bpe("models").stdout


def test_an_interrupted_download_is_listed_with_its_remedy(hub: Hub, tmp_path: Path) -> None:
    put(tmp_path / "hf" / "hub" / "models--org--name" / "blobs" / ("a" * 64 + ".incomplete"))
    assert entries("hub") == {"org/name": "incomplete; bpe pull org/name resumes"}


def test_models_and_tokenizers_of_the_folder_are_listed_down_to_its_folders(work: Path, my_json: Path) -> None:
    put(work / "runs" / "tales" / "params.json")
    put(work / "runs" / "tales" / "model.safetensors", 5)
    put(work / "hf" / "config.json")
    put(work / "hf" / "model-00001-of-00002.safetensors")
    put(work / "lora" / "adapter_config.json")
    put(work / "meta" / "params.json")
    put(work / "meta" / "consolidated.00.pth")
    put(work / "small.gguf", 3)
    put(work / "ranks.tiktoken")
    put(work / "only" / "tokenizer.model")
    (work / "my.json").write_bytes(my_json.read_bytes())
    put(work / "data.json")
    put(work / ".hidden" / "tokenizer.json")
    put(work / "a" / "b" / "c.gguf")  # deeper than is looked
    (work / "empty").mkdir()
    assert entries("folder") == {
        "hf": ("huggingface", 2),
        "lora": ("adapter", 1),
        "meta": ("meta", 2),
        "my.json": ("tokenizer", my_json.stat().st_size),
        "only": ("tokenizer", 1),
        "ranks.tiktoken": ("tokenizer", 1),
        "runs/tales": ("bpe-llama", 6),
        "small.gguf": ("gguf", 3),
    }
    assert "  bpe-llama        6 B  runs/tales\n" in bpe("models").stdout


def test_broken_links_are_skipped(work: Path, tmp_path: Path) -> None:
    (work / "gone.gguf").symlink_to(work / "nowhere")
    (work / "run").mkdir()
    (work / "run" / "gone.gguf").symlink_to(work / "nowhere")
    (tmp_path / "hf" / "hub" / "models--org--name" / "refs").mkdir(parents=True)
    put(tmp_path / "hf" / "hub" / "models--org--name" / "refs" / "main")
    assert entries("folder") == entries("hub") == {}

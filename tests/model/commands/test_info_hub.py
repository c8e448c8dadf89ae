"""`bpe info` of a model on the hub: it is described without a download of its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bpe import Tokenizer
from bpe.hub import outline as outline_module
from bpe.hub.repository import snapshot
from model import ModelConfig, Transformer, convert, save
from model.checkpoint import huggingface, open_checkpoint
from support.command_line import bpe, fails_with
from support.loopback_hub import Hub, Repository
from support.references import BYTE_RANKS

CONFIG = ModelConfig(
    dim=64, n_layers=4, n_heads=4, n_kv_heads=2, hidden_dim=192, vocab_size=20_000, max_seq_len=64,
    rope_scaling="llama3", tied_embeddings=True,
)  # fmt: skip


@pytest.fixture
def files(make_model: Callable[[ModelConfig], Transformer], tmp_path: Path) -> Path:
    """A folder with the same model in several formats, whose weights are larger than what describes them."""
    special = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257}
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)
    tokenizer.save(tmp_path / "tokenizer.json")
    save(tmp_path / "run", make_model(CONFIG), tmp_path / "tokenizer.json")
    convert(tmp_path / "run", tmp_path / "theirs")
    huggingface.write(open_checkpoint(tmp_path / "run"), tmp_path / "sharded", shard_bytes=2_000_000)
    (tmp_path / "gguf").mkdir()
    convert(tmp_path / "run", tmp_path / "gguf" / "m.gguf")
    return tmp_path


def put(hub: Hub, folder: Path) -> Repository:
    hub.repositories["org/name"] = Repository({path.name: path.read_bytes() for path in folder.iterdir()})
    return hub.repositories["org/name"]


def downloaded(hub: Hub, repository: Repository) -> int:
    """Return an upper limit of the bytes of contents that the hub was asked for."""
    total = 0
    for method, path, part in hub.requests:
        if method == "GET" and "/resolve/" in path:
            size = len(repository.files[path.split("/", 5)[5]])
            begin, _, end = (part or "bytes=0-").removeprefix("bytes=").partition("-")
            total += min(int(end or size) + 1, size) - int(begin)
    return total


@pytest.mark.parametrize("format", ["run", "theirs", "sharded", "gguf"])
def test_a_model_is_described_as_on_disk_without_its_weights(
    format: str, hub: Hub, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outline_module, "_FIRST", 4096)
    repository = put(hub, files / format)
    result = bpe("info", "org/name")
    assert result.exit_code == 0, result.output
    found = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    local = bpe("info", files / format / "m.gguf" if format == "gguf" else files / format)
    expected = dict(line.split(maxsplit=1) for line in local.stdout.splitlines())
    assert found.pop("model") == "org/name"
    size = found.pop("size")
    assert "on the hub, not downloaded" in size
    assert "bpe pull org/name" in size
    del expected["model"]
    assert found == expected
    weights = sum(len(content) for name, content in repository.files.items() if name.endswith((".gguf", "tensors")))
    assert weights > 5_000_000
    assert downloaded(hub, repository) < weights / 3
    directory = snapshot("org/name")
    assert directory is None or not [*directory.rglob("*.gguf"), *directory.rglob("*.safetensors")]


@pytest.mark.parametrize("format", ["theirs", "gguf"])
def test_a_hub_without_ranges_is_read_no_further_than_needed(
    format: str, hub: Hub, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outline_module, "_FIRST", 4096)
    hub.has_ranges = False
    put(hub, files / format)
    result = bpe("info", "org/name")
    assert result.exit_code == 0, result.output
    assert "not downloaded" in result.stdout


def test_a_model_in_the_cache_is_described_without_a_request(hub: Hub, files: Path) -> None:
    put(hub, files / "theirs")
    assert bpe("pull", "org/name").exit_code == 0
    hub.requests.clear()
    result = bpe("info", "org/name")
    assert result.exit_code == 0, result.output
    assert "not downloaded" not in result.stdout
    assert hub.requests == []


def test_a_repository_with_a_tokenizer_only_is_described_as_a_tokenizer(hub: Hub, files: Path) -> None:
    hub.repositories["org/name"] = Repository({"tokenizer.json": (files / "tokenizer.json").read_bytes()})
    assert "special tokens" in bpe("info", "org/name").stdout


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, (10**7).to_bytes(8, "little") + b"{}", b"\2" + bytes(7) + b"[]"]
)
def test_damaged_weights_are_named_in_one_line(content: bytes, hub: Hub, files: Path) -> None:
    put(hub, files / "theirs").files["model.safetensors"] = content
    result = bpe("info", "org/name")
    fails_with(result, 1, "org/name: model.safetensors")
    assert "bpe-info-" not in result.stderr


def test_a_silent_or_missing_hub_is_told_in_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(bpe("info", "org/missing"), 1, "org/missing", "no such repository on the hub")
    hub.is_silent = True
    monkeypatch.setattr("bpe.hub.download.FIRST_SECONDS", 0.2)
    monkeypatch.setattr("bpe.hub.download._LATER_SECONDS", 0.2)
    fails_with(bpe("info", "org/name"), 1, "org/name", "the hub does not answer")

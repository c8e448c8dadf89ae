"""Loading models by the name of a repository on the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bpe import InputError, Tokenizer
from model import ModelConfig, Transformer, generate, load, save
from support.command_line import bpe, fails_with
from support.loopback_hub import Hub, Repository
from support.references import BYTE_RANKS

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@pytest.fixture
def model(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Transformer:
    """A small model, which is on the hub as "org/model" and "org/model-gguf", beside other files."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    torch.manual_seed(1)
    special = {name: 256 + number for number, name in enumerate(SPECIAL)}
    tokenizer = tmp_path / "tokenizer.json"
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special).save(tokenizer)
    config = ModelConfig(dim=32, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=32, vocab_size=264, max_seq_len=64)
    model = Transformer(config)
    save(tmp_path / "saved", model, tokenizer, format="huggingface")
    save(tmp_path / "saved.gguf", model, tokenizer)
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    hub.repositories["org/model"] = Repository({**files, "pytorch_model.bin": b"pickle", "README.md": b"Read me."})
    gguf = (tmp_path / "saved.gguf").read_bytes()
    hub.repositories["org/model-gguf"] = Repository({"m-F32.gguf": gguf, "m-Q8_0.gguf": b"damaged"})
    return model


@pytest.mark.parametrize("name", ["org/model", "org/model-gguf:m-F32.gguf", "org/model-gguf:f32"])
def test_a_model_is_loaded_by_the_name_of_its_repository(hub: Hub, model: Transformer, name: str) -> None:
    loaded, tokenizer = load(name)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key].float(), tensor, rtol=0, atol=0)
    assert [*generate(loaded, tokenizer, "Hi", max_tokens=2, temperature=0)]
    assert {"pytorch_model.bin", "README.md", "m-Q8_0.gguf"}.isdisjoint(hub.downloads())
    hub.requests.clear()
    load(name)
    assert hub.requests == []


def test_commands_take_the_name_of_a_repository(hub: Hub, model: Transformer, tmp_path: Path) -> None:
    options = ("--temperature", "0", "--max-tokens", "3", "--threads", "1")
    expected = bpe("generate", tmp_path / "saved", "-p", "Hi", *options).stdout
    assert bpe("generate", "org/model", "-p", "Hi", *options).stdout == expected
    answer = bpe("chat", "org/model", *options, input="Hi")
    assert answer.exit_code == 0, answer.output
    assert "format" in bpe("info", "org/model").stdout
    assert bpe("convert", "org/model", "converted.gguf").exit_code == 0
    hub.requests.clear()
    assert bpe("encode", "-t", "org/model", "-c", "Hi").stdout == "72 105\n"
    assert hub.requests == []
    fails_with(bpe("generate", "org/model-gguf", "-p", "Hi"), 1, "choose one of 2 files", "m-F32.gguf (", "m-Q8_0.gguf")


def test_the_base_of_an_adapter_may_be_on_the_hub(hub: Hub, model: Transformer, tmp_path: Path) -> None:
    adapter = tmp_path / "work" / "adapter"
    adapter.mkdir()
    settings = {"base_model_name_or_path": "org/model", "peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: no such file"):
        load(adapter)
    assert "model.safetensors" in hub.downloads()
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "org/missing"}))
    with pytest.raises(InputError, match=r"base model not found \(org/missing: no such repository on the hub"):
        load(adapter)

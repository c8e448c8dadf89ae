"""Files of transformers 5 with the experts of a layer in one tensor (`save_original_format=False`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bpe import Tokenizer
from bpe.errors import InputError
from model.checkpoint import convert, open_checkpoint
from model.checkpoint.assemble import assemble
from support.model_families import make
from support.references import BYTE_RANKS

IDS = torch.randint(1, 300, (2, 20), generator=torch.Generator().manual_seed(5))


def stacked(name: str, directory: Path) -> Any:
    model = make(name)
    model.save_pretrained(directory, save_original_format=False)
    with safe_open(directory / "model.safetensors", "pt") as file:
        assert "model.layers.0.mlp.experts.gate_up_proj" in file.keys()  # noqa: SIM118
    return model


@torch.inference_mode()
@pytest.mark.parametrize("name", ["mixtral", "qwen3 moe", "qwen3 moe, step"])
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    if name == "qwen3 moe, step":  # whose first layer has no experts
        theirs = make(name)
        theirs.save_pretrained(tmp_path / "in", save_original_format=False)
    else:
        theirs = stacked(name, tmp_path / "in")
    tokenizer = Tokenizer("b", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens={"<|end_of_text|>": 256})
    tokenizer.save(tmp_path / "in" / "tokenizer.json")
    convert(tmp_path / "in", tmp_path / "out", "huggingface")
    for path in (tmp_path / "in", tmp_path / "out"):
        ours = assemble(open_checkpoint(path), torch.float32, torch.device("cpu")).eval()
        assert float((ours(IDS) - theirs(IDS).logits).abs().max()) < 1e-5


def refused(directory: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        assemble(open_checkpoint(directory), torch.float32, torch.device("cpu"))


def test_another_number_of_experts_than_in_config_json_is_refused(tmp_path: Path) -> None:
    stacked("mixtral", tmp_path)
    config = tmp_path / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"num_local_experts": 3}))
    refused(tmp_path, r"experts.down_proj has the shape \[4, 48, 80\], expected \[3, 48, 80\]; correct config.json")
    config.write_text(json.dumps(values | {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}))
    with pytest.raises(InputError):
        open_checkpoint(tmp_path)


def test_experts_that_are_missing_or_in_a_model_without_them_are_named(tmp_path: Path) -> None:
    stacked("mixtral", tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    name = "model.layers.1.mlp.experts.down_proj"
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, weights)
    refused(tmp_path, r"missing model\.layers\.1\..*experts\.0\.w2\.weight")
    make("mistral").save_pretrained(tmp_path / "plain")
    plain = tmp_path / "plain" / "model.safetensors"
    save_file(load_file(plain) | {name: tensors[name]}, plain)
    refused(tmp_path / "plain", rf"unknown tensor '{name}'; a model of this configuration")

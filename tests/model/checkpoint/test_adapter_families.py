"""LoRA adapters on the relatives of Llama: PEFT's open here, ours open in PEFT, with the same logits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bpe import Tokenizer
from bpe.errors import InputError
from model import Transformer, load
from model.checkpoint import open_adapter, open_checkpoint
from model.checkpoint.adapter import CONFIG, WEIGHTS, write_adapter
from model.checkpoint.assemble import assemble, fingerprint
from model.lora import LoraConfig, adapter_of, add_lora
from support.model_families import write
from support.references import BYTE_RANKS

IDS = torch.randint(1, 250, (2, 20), generator=torch.Generator().manual_seed(2))
ATTENTION = ("wq", "wk", "wv", "wo")
JOINED = ["qkv_proj", "gate_up_proj", "down_proj"]


def base(name: str, directory: Path) -> Any:
    """Write a tiny model with a tokenizer, and return it as transformers has it."""
    model = write(name, directory)
    special = {"<|end_of_text|>": 256}
    Tokenizer("b", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens=special).save(
        directory / "tokenizer.json"
    )
    return model


def by_peft(model: Any, base_directory: Path, directory: Path, targets: Any, **settings: Any) -> Tensor:
    """Write an adapter with random weights; return the logits of PEFT."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=targets, **settings)
    theirs = peft.get_peft_model(model, config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
            elif "modules_to_save" in name:
                parameter.mul_(1.5)
    theirs.save_pretrained(directory)
    change(directory, base_model_name_or_path=str(base_directory))
    return logits(theirs)


def change(directory: Path, **values: Any) -> None:
    path = directory / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        output = model(IDS)
    return output if isinstance(output, Tensor) else output.logits


def same(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("name", "targets", "settings"),
    [
        ("qwen3", "all-linear", {}),
        ("qwen3 moe", ["q_proj", "k_proj", "o_proj"], {}),
        ("gemma2", "all-linear", {}),
        ("olmo2", "all-linear", {}),
        ("mixtral", ["q_proj", "v_proj", "o_proj"], {}),
        ("phi3", "all-linear", {}),
        ("phi3", JOINED, {"use_rslora": True}),
        ("phi3", JOINED, {"use_dora": True}),
        ("phi3", JOINED, {"rank_pattern": {"qkv_proj": 5, "gate_up_proj": 6}, "alpha_pattern": {"qkv_proj": 2}}),
        ("phi3", ["qkv_proj"], {"rank_pattern": {"qkv_proj": 9}}),  # as many as three of rank 3
        ("phi3", ["o_proj"], {"modules_to_save": ["qkv_proj"]}),
        ("phi3, longrope, partial", ["qkv_proj"], {}),
    ],
)
def test_adapters_of_peft_give_its_logits(name: str, targets: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    theirs = base(name, tmp_path / "base")
    before = logits(theirs)
    expected = by_peft(theirs, tmp_path / "base", tmp_path / "adapter", targets, **settings)
    assert same(logits(load(tmp_path / "adapter", dtype="float32")[0]), expected)
    assert not torch.allclose(before, expected, atol=0.01)


def ours(directory: Path, base_directory: Path, targets: Sequence[str]) -> Transformer:
    """Write an adapter with random weights as training does, and return the adapted model."""
    checkpoint = open_checkpoint(base_directory)
    model = assemble(checkpoint, torch.float32, torch.device("cpu")).eval()
    config = LoraConfig(2, alpha=3.0, targets=targets)
    add_lora(model, config, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for _, b in adapter_of(model).values():
            b.copy_(0.05 * torch.randn(b.shape, generator=generator))
    directory.mkdir()
    write_adapter(directory, checkpoint, str(base_directory), config, adapter_of(model), fingerprint(checkpoint))
    return model


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("qwen3", (*ATTENTION, "w1", "w2", "w3")),
        ("gemma2", (*ATTENTION, "w1", "w2", "w3")),
        ("olmo2", (*ATTENTION, "w1", "w2", "w3")),
        ("mixtral", ATTENTION),
        ("mixtral", ("wv", "w1", "w2", "w3")),  # PEFT stacks the matrices of the experts itself
        ("phi3", (*ATTENTION, "w1", "w2", "w3")),
        ("phi3", ("wq", "w3")),
    ],
)
def test_adapters_of_ours_open_in_peft_and_here(name: str, targets: Sequence[str], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    theirs = base(name, tmp_path / "base")
    model = ours(tmp_path / "adapter", tmp_path / "base", targets)
    expected = logits(model)
    assert same(logits(peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()), expected)
    assert same(logits(load(tmp_path / "adapter", dtype="float32")[0]), expected)
    parts = open_adapter(tmp_path / "adapter")
    assert (parts.lora.rank, parts.lora.alpha, set(parts.lora.targets)) == (2, 3.0, set(targets))
    for name, (a, b) in adapter_of(model).items():
        assert torch.equal(parts.adapter[name][0], a)
        assert torch.equal(parts.adapter[name][1], b)


def test_lora_on_stacked_experts_is_refused(tmp_path: Path) -> None:
    theirs = base("mixtral", tmp_path / "base")
    by_peft(theirs, tmp_path / "base", tmp_path / "adapter", ["q_proj"])
    change(tmp_path / "adapter", target_parameters=["mlp.experts.down_proj"])
    with pytest.raises(InputError, match=r"adapter_config.json: target_parameters is .*; merge the adapter in PEFT"):
        load(tmp_path / "adapter")


def test_joined_matrices_of_another_shape_and_twice_are_refused(tmp_path: Path) -> None:
    by_peft(base("phi3", tmp_path / "base"), tmp_path / "base", tmp_path / "adapter", JOINED)
    weights = tmp_path / "adapter" / WEIGHTS
    whole, place = load_file(weights), "base_model.model.model.layers.0.self_attn"

    def refused(message: str, tensors: dict[str, Tensor]) -> None:
        save_file(tensors, weights)
        with pytest.raises(InputError, match=message):
            load(tmp_path / "adapter")

    fewer = {f"{place}.qkv_proj.lora_B.weight": torch.zeros(95, 3)}
    refused(r"has the shape \[95, 3\], which does not fit .*qkv_proj.weight \[96, 48\] of .*right base", whole | fewer)
    one_more = {f"{place}.q_proj.lora_A.weight": torch.zeros(3, 48)}
    refused("changes the same matrix as .*; remove one of the two", whole | one_more)

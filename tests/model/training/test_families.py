"""Training of the relatives of Llama: fused layers and LoRA, on tiny models with random weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.lora import LoraConfig, add_lora, merge_lora
from model.training.fused import fuse
from support.model_families import FAMILIES, write


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_fused_layers_and_lora_compute_the_same(name: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    plain = assemble(open_checkpoint(tmp_path), torch.float32, torch.device("cpu"))
    ids = torch.randint(1, 300, (2, 20), generator=torch.Generator().manual_seed(2))
    fused = copy.deepcopy(plain)
    fuse(fused)
    for model in (plain, fused):
        model(ids).square().mean().backward()
    for (key, one), other in zip(plain.named_parameters(), fused.parameters(), strict=True):
        assert one.grad is None or torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-5), key
    add_lora(fused, LoraConfig(4), torch.Generator().manual_seed(1))
    adapted = [module for module in fused.modules() if hasattr(module, "lora_b")]
    with torch.no_grad():
        for module in adapted:
            module.lora_b.normal_(std=0.02)
        before = fused(ids)
        merge_lora(fused)
        assert float((fused(ids) - before).abs().max()) < 1e-4
    assert len(adapted) >= 7 * plain.config.n_layers

"""Attention and steps of the relatives of Llama against transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.explain.steps import attention_maps, explain
from support.model_families import FAMILIES, write


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_attention_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = write(name, tmp_path)
    ours = assemble(open_checkpoint(tmp_path), torch.float32, torch.device("cpu")).eval()
    ids = torch.randint(1, 300, (20,), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = theirs(ids[None], output_attentions=True).attentions
    maps = attention_maps(ours, ids.tolist(), layers=range(4), heads=range(4))
    for layer in range(4):
        assert float((maps[layer] - expected[layer][0]).abs().max()) < 1e-5
        steps = list(explain(ours, ids.tolist(), layer=layer, head=1))
        (shares,) = (step.tensor for step in steps if step.picture == "shares")
        assert torch.equal(shares, maps[layer, 1])

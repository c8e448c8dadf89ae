"""A grown vocabulary for relatives of Llama: only the rows of the embeddings and of the output head change."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from bpe import Tokenizer
from model import load
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.checkpoint.weights import EMBEDDINGS, TIED
from support.command_line import bpe
from support.model_families import write
from support.references import BYTE_RANKS

GROWN = {**BYTE_RANKS, b"th": 256, b"the": 257}


@torch.inference_mode()
@pytest.mark.parametrize("name", ["gemma", "gemma2", "qwen3", "mixtral", "phi3"])
def test_old_rows_and_all_other_tensors_stay_exact(name: str, tmp_path: Path) -> None:
    theirs = write(name, tmp_path / "in", vocab_size=257)
    for ranks, path in ((BYTE_RANKS, tmp_path / "in" / "tokenizer.json"), (GROWN, tmp_path / "new.json")):
        special = {"<|end_of_text|>": len(ranks)}
        Tokenizer("b", pat_str="gpt2", mergeable_ranks=ranks, special_tokens=special).save(path)
    result = bpe("convert", tmp_path / "in", tmp_path / "out", "--resize-vocab", tmp_path / "new.json")
    assert result.exit_code == 0, result.output

    before, now = open_checkpoint(tmp_path / "in"), open_checkpoint(tmp_path / "out")
    assert now.config == dataclasses.replace(before.config, vocab_size=259)
    old, new = dict(before.tensors(torch.float32)), dict(now.tensors(torch.float32))
    assert old.keys() == new.keys()
    for tensor_name, tensor in old.items():
        if tensor_name not in (EMBEDDINGS, TIED):
            assert torch.equal(new[tensor_name], tensor), tensor_name
            continue
        rows = new[tensor_name]
        assert torch.equal(rows[:256], tensor[:256])
        assert torch.equal(rows[258], tensor[256])  # the special token moved
        torch.testing.assert_close(rows[256], tensor[list(b"th")].mean(0))
        torch.testing.assert_close(rows[257], tensor[list(b"the")].mean(0))

    ids = torch.tensor([[*b"the old bytes", 256]])
    moved = ids.where(ids < 256, torch.tensor(258))
    ours = assemble(now, torch.float32, torch.device("cpu")).eval()
    assert float((ours(moved)[..., :256] - theirs(ids).logits[..., :256]).abs().max()) < 1e-5
    assert load(tmp_path / "out")[1].n_vocab == 259

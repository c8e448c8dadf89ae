"""Training of the relatives of Llama: fused layers, LoRA, and losses, on tiny models with random weights."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, pad

from bpe.errors import InputError
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.evaluation.texts import EvaluationText, evaluate_texts
from model.evaluation.windows import windows
from model.lora import LoraConfig, add_lora, merge_lora
from model.training.base_model import BaseModel
from model.training.dialogs import texts_of
from model.training.finetune_settings import FinetuneConfig
from model.training.fused import fuse
from model.training.loss import IGNORED, TokenBatch
from model.training.preferences import Preferences
from model.training.settings import TrainConfig
from model.training.supervised import Supervised
from model.transformer import Transformer
from support.family_data import TEXT, tokenizer_of_bytes, write_dialogs, write_pairs
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


@pytest.mark.parametrize("is_fused", [False, True])
def test_experts_without_tokens_have_gradients_of_zero_as_in_transformers(is_fused: bool, tmp_path: Path) -> None:
    theirs = write("mixtral", tmp_path, num_local_experts=12)
    ours = assemble(open_checkpoint(tmp_path), torch.float32, torch.device("cpu"))
    if is_fused:
        fuse(ours)
    ids = torch.tensor([[5, 9, 200]])  # 3 tokens choose at most 6 experts
    for model in (ours, theirs):
        output = model(ids)
        getattr(output, "logits", output).square().mean().backward()
        assert all(each.grad is not None for each in model.parameters())
    for layer, their_layer in zip(ours.layers, theirs.model.layers, strict=True):
        expected = [bool(each.any()) for each in their_layer.mlp.experts.down_proj.grad]
        assert [bool(each.w2.weight.grad.any()) for each in layer.feed_forward.experts] == expected
        assert 2 <= sum(expected) <= 6


def nats_of(theirs: Any, ids: Tensor, targets: Tensor, length: int = 0) -> Tensor:
    """Return the loss of the targets of one text, read by itself, with padding at its end up to a length.

    The rotations of "dynamic" and "longrope" depend on the longest text of a batch.
    """
    padded = pad(ids, (0, max(0, length - len(ids))))
    logits = theirs(padded[None], use_cache=False).logits[0, : len(ids)]
    return cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED)


def losses_of(theirs: Any, batch: TokenBatch) -> list[Tensor]:
    texts = [(batch.inputs[text], batch.targets[text]) for text in texts_of(batch)]
    assert batch.positions is not None
    longest = int(batch.positions.max()) + 1
    return [nats_of(theirs, ids[:longest], targets[:longest], longest) for ids, targets in texts]


def gradients_agree(ours: Transformer, loss: Tensor, theirs: Any, expected: Tensor) -> None:
    """Assert that two losses are equal, and that their gradients have the same norm."""
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
    norms = []
    for model, value in ((ours, loss), (theirs, expected)):
        value.backward()
        norms.append(sum(float(each.grad.square().sum()) for each in model.parameters() if each.grad is not None))
        model.zero_grad()
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_evaluation_fine_tuning_and_preferences_have_the_loss_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = write(name, tmp_path / "model")
    tokenizer = tokenizer_of_bytes()
    tokenizer.save(tmp_path / "model" / "tokenizer.json")
    settings = TrainConfig(steps=1, batch_tokens=240, sequence_length=120, dtype="float32")
    config = FinetuneConfig(held_out=0.0)
    base = BaseModel(tmp_path / "model", tmp_path / "run", config)

    # 1. Evaluation, in windows that overlap.
    ours = base.model(0)
    ids = tokenizer.encode(TEXT * 2)
    found = evaluate_texts(ours, tokenizer, [EvaluationText("text", [ids], len(TEXT) * 2)], window=60, stride=40)
    expected = 0.0
    for window in windows(ids, 60, 40):
        targets = torch.tensor(window.ids[1:])
        targets[: -window.predicted] = IGNORED
        expected += float(nats_of(theirs, torch.tensor(window.ids[:-1]), targets).detach())
    assert found["all_texts"]["nats"] == pytest.approx(expected, rel=1e-5)

    # 2. A step of fine-tuning, in which several dialogs share a row.
    task = Supervised(base, [write_dialogs(tmp_path / "dialogs.jsonl")], settings)
    fuse(ours)
    (batch,) = task.batch(0)
    assert len(texts_of(batch)) > len(batch.inputs)
    gradients_agree(ours, task.loss(ours, batch), theirs, torch.stack(losses_of(theirs, batch)).sum())

    # 3. A step of preference optimization, away from the model that it started from.
    base = BaseModel(tmp_path / "model", tmp_path / "run", dataclasses.replace(config, beta=0.3))
    if ours.config.rope_scaling in ("dynamic", "longrope"):
        with pytest.raises(InputError, match=r"has 3\d tokens, but beyond 24 tokens .* set sequence_length to"):
            Preferences(base, [write_pairs(tmp_path / "pairs.jsonl")], settings)
        return
    preferences = Preferences(base, [write_pairs(tmp_path / "pairs.jsonl")], settings)
    ours = preferences.model()
    fuse(ours)
    (pairs,) = preferences.batch(0)
    reference = torch.stack(losses_of(theirs, pairs.texts)).detach()
    with torch.no_grad():
        ours.norm.weight.mul_(1.2)
        theirs.model.norm.weight.copy_(ours.norm.weight)
    nats = torch.stack(losses_of(theirs, pairs.texts)) - reference
    gained = nats[1::2] - nats[::2]
    assert bool((gained.abs() > 1e-3).all())
    gradients_agree(ours, preferences.loss(ours, pairs), theirs, -logsigmoid(0.3 * gained).sum())

"""The model under training: micro-batches, stored activations, and the MFU."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
import torch

from bpe.shards import Shards
from model import ModelConfig, Transformer
from model.training.metrics import read_metrics
from model.training.parallel import Parallel
from model.training.pretraining import Pretraining
from model.training.state import TrainState, checkpoint_activations
from support.training_runs import SETTINGS, train


def test_activation_checkpointing_stores_only_the_input_of_a_layer(config: ModelConfig) -> None:
    kept = []
    for checkpointed in (False, True):
        model, sizes = Transformer(config), []
        if checkpointed:
            checkpoint_activations(model)

        def count(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model.hidden(torch.zeros(2, 32, dtype=torch.long))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 4


@pytest.mark.parametrize("micro_batch_tokens", [16, 32, 48])
def test_micro_batches_add_up_to_the_whole_step(
    micro_batch_tokens: int, data: Path, tmp_path: Path, config: ModelConfig
) -> None:
    settings = dataclasses.replace(SETTINGS, micro_batch_tokens=micro_batch_tokens)
    task = Pretraining(Shards(data), config, settings)
    # A step whose micro-batches have different shares of targets, so that a mean of means would differ.
    number = next(n for n in range(50) if len({batch.n_targets / batch.n_tokens for batch in task.batch(n)}) > 1)
    parts = task.batch(number)
    assert [batch.n_tokens for batch in parts] == {16: [16] * 4, 32: [32, 32], 48: [48, 16]}[micro_batch_tokens]
    runs = []
    for each in (settings, SETTINGS):
        with Parallel(device="cpu") as alone:
            training = TrainState(Pretraining(Shards(data), config, each), each, alone)
            training.batch_number = number
            measured = [training.make_step(0.5) for _ in range(3)]
        runs.append((training, measured))
    for ours, whole in zip(*(measured for _, measured in runs), strict=True):
        assert ours["loss"] == pytest.approx(whole["loss"], rel=1e-6)
        assert ours["gradient_norm"] == pytest.approx(whole["gradient_norm"], rel=1e-5)
    for ours, whole in zip(*(training.trained.values() for training, _ in runs), strict=True):
        torch.testing.assert_close(ours, whole, rtol=0, atol=2e-5)  # the rate is 3e-3


def test_mfu_is_relative_to_the_given_peak_flops(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    said = io.StringIO()
    train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, steps=2, peak_flops=1e9), progress=said)
    assert "MFU is relative to 1 GFLOP/s, as set" in said.getvalue()
    # Three times the matrix products of a forward pass over 16 tokens: those of the layers, of queries with keys and
    # probabilities with values (136 pairs), and of the logits.
    layers = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)
    flops = 3 * 2 * (16 * layers + 2 * 2 * 4 * 8 * 136 + 16 * 259 * 32)
    assert config.training_flops(16) == flops
    for record in read_metrics(tmp_path / "run" / "metrics.jsonl"):
        if record["kind"] == "step":
            assert record["mfu"] == pytest.approx(record["tokens_per_second"] * flops / 16 / 1e9, rel=1e-3)
            assert 0 <= record["wait"] < 1

"""The training loop: results, interruptions, budgets, and batches that are skipped."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.shards import Shards
from model import ModelConfig, Transformer
from model.checkpoint import open_checkpoint
from model.checkpoint import save as save_model
from model.training.loss import TokenBatch
from model.training.metrics import read_metrics
from model.training.optimizer import learning_rate
from model.training.pretraining import Pretraining
from model.training.state import TrainState
from support.references import BYTE_RANKS
from support.training_runs import SETTINGS, interrupt_after, losses, train


def test_a_finished_run_holds_a_model_metrics_and_a_plot(
    data: Path, tmp_path: Path, config: ModelConfig, plot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr("model.training.loop.draw_loss", plot)
    result = train(data, run, config)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "loss.png", "metrics.jsonl", "model.safetensors", "params.json", "run.json", "tokenizer.json",
    ]  # fmt: skip
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "tokenizer.json").read_bytes() == (data / "tokenizer.json").read_bytes()
    assert open_checkpoint(run).config == config
    kinds = Counter(kind for kind, _, _ in losses(run))
    assert kinds == {"step": 12, "evaluation": 4}  # before, after 5 and 10 steps, and at the end
    assert result.steps == 12
    assert result.tokens == 12 * 64
    assert result.held_out_loss == losses(run)[-1][2]


def test_the_loss_falls_from_chance(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    settings = dataclasses.replace(SETTINGS, steps=60, learning_rate=1e-2)
    train(data, tmp_path / "run", config, settings)
    curve = [loss for kind, _, loss in losses(tmp_path / "run") if kind == "evaluation"]
    assert curve[0] == pytest.approx(math.log(259), rel=0.02)
    assert curve[-1] < 0.6 * curve[0]


def test_one_batch_is_memorized(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.randint(256, (4, 17), generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(Pretraining, "batch", lambda self, number: [TokenBatch(ids[:, :-1], ids[:, 1:])])
    settings = dataclasses.replace(SETTINGS, steps=150, learning_rate=1e-2, weight_decay=0.0, eval_every=1000)
    train(data, tmp_path / "run", config, settings)
    curve = [loss for kind, _, loss in losses(tmp_path / "run") if kind == "step"]
    assert curve[0] > 5
    assert curve[-1] < 0.05


def test_losses_and_gradient_norms_match_transformers(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    transformers = pytest.importorskip("transformers")
    settings = dataclasses.replace(SETTINGS, across_documents=True, weight_decay=0.1, warmup=0.2)
    task = Pretraining(Shards(data), config, settings)
    special = {"<|begin_of_text|>": 256}
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)
    tokenizer.save(tmp_path / "bytes.json")
    save_model(tmp_path / "hf", task.model(), tmp_path / "bytes.json", "huggingface")
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    matrices = [parameter for parameter in theirs.parameters() if parameter.dim() > 1]
    norms = [parameter for parameter in theirs.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    expected = []
    for step in range(12):
        (batch,) = task.batch(step)
        logits = theirs(batch.inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), settings.gradient_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / 12, settings)
        optimizer.step()
        optimizer.zero_grad()
        expected.append((loss.item(), norm.item()))

    train(data, tmp_path / "run", config, settings)
    records = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "step"]
    ours = [(record["loss"], record["gradient_norm"]) for record in records]
    assert ours[0][0] - ours[-1][0] > 0.5
    np.testing.assert_allclose(ours, expected, rtol=2e-5)


@pytest.mark.parametrize("how", ["checkpoint_activations", "compile"])
def test_activation_checkpointing_and_compile_do_not_change_the_losses(
    how: str, data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dynamo traces the layers and refuses what it cannot follow. Compiling C++ kernels would take a minute.
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compiled(self, backend="eager", fullgraph=True, dynamic=False)
    )
    runs = [tmp_path / "plain", tmp_path / how]
    for run, settings in zip(runs, (SETTINGS, dataclasses.replace(SETTINGS, **{how: True})), strict=True):
        train(data, run, config, dataclasses.replace(settings, steps=4))
    plain, other = ([loss for *_, loss in losses(run)] for run in runs)
    assert other == pytest.approx(plain, rel=1e-6)
    weights = [open_checkpoint(run).config for run in runs]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop_at", [1, 7])
def test_an_interrupted_run_resumes_bit_for_bit(
    stop_at: int, dtype: Any, data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SETTINGS, dtype=dtype, keep_checkpoints=1)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(data, whole, config, settings)
    with monkeypatch.context() as patch:
        interrupt_after(stop_at, patch)
        with pytest.raises(KeyboardInterrupt):
            train(data, halves, config, settings)
    assert [path.name for path in (halves / "checkpoints").iterdir()] == [f"step-{stop_at:06}"]
    assert max(step for _, step, _ in losses(halves)) == stop_at
    with pytest.raises(InputError, match="halves: the training of this model is not finished; to resume it"):
        open_checkpoint(halves)
    said = io.StringIO()
    train(data, halves, config, settings, progress=said)
    assert f"resuming after step {stop_at}" in said.getvalue()
    open_checkpoint(halves)
    assert losses(halves) == losses(whole)
    assert (halves / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_killed_run_resumes_from_its_last_checkpoint(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SETTINGS, checkpoint_every=1e-9)  # after every step
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(data, whole, config, settings)
    make_step = TrainState.make_step

    def killing(self: TrainState, share: float) -> dict[str, float]:
        if self.step == 6:
            raise SystemError("as if the power went out")
        return make_step(self, share)

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "make_step", killing)
        with pytest.raises(SystemError):
            train(data, killed, config, settings)
    with (killed / "metrics.jsonl").open("a") as file:  # records after the checkpoint, the last one incomplete
        file.write('{"kind": "step", "step": 7, "tokens": 448, "seconds": 1.0, "loss": 0.0}\n{"kind": "st')
    train(data, killed, config, settings)
    assert losses(killed) == losses(whole)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_sigterm_takes_effect_after_a_checkpoint_is_saved(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminated(Exception):
        pass

    def terminated(*_: object) -> None:
        assert (tmp_path / "run" / "checkpoints" / "step-000003").is_dir()
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        interrupt_after(3, monkeypatch, signal.SIGTERM)
        with pytest.raises(Terminated):
            train(data, tmp_path / "run", config)
        assert signal.getsignal(signal.SIGTERM) is terminated
    finally:
        signal.signal(signal.SIGTERM, before)


def spoil(monkeypatch: pytest.MonkeyPatch, *numbers: int, by: float = math.inf) -> None:
    """Multiply the losses of some batches."""
    loss = Pretraining.loss
    batch = Pretraining.batch

    spoilt: list[Any] = []

    def numbered(self: Pretraining, number: int) -> Any:
        batches = batch(self, number)
        spoilt.extend(batches if number in numbers else ())
        return batches

    def spoiled(self: Pretraining, model: Transformer, batch: Any) -> torch.Tensor:
        return loss(self, model, batch) * (by if any(batch is each for each in spoilt) else 1.0)

    monkeypatch.setattr(Pretraining, "batch", numbered)
    monkeypatch.setattr(Pretraining, "loss", spoiled)


@pytest.mark.parametrize("by", [math.inf, math.nan, 2.0])
def test_a_batch_whose_loss_spikes_is_named_and_skipped(
    by: float, data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said = tmp_path / "run", io.StringIO()
    spoil(monkeypatch, 4, 9, by=by)
    assert train(data, run, config, progress=said).steps == 12
    what = "the loss is 1" if by == 2 else "the loss is"
    assert f"step 4: {what}" in said.getvalue()
    assert "(batch 4, tokens train-00000.bin[" in said.getvalue()
    assert f" of {data}); back to step 0, skipping that batch" in said.getvalue()
    assert "step 8: " in said.getvalue()
    records = read_metrics(run / "metrics.jsonl")
    assert [record["step"] for record in records if record["kind"] == "step"] == list(range(1, 13))
    assert [record["step"] for record in records if record["kind"] == "rollback"] == [0, 0]
    assert (run / "loss.png").is_file()

    # The run equals one whose data never had those batches.
    other = tmp_path / "other"
    batch = Pretraining.batch
    monkeypatch.setattr(Pretraining, "batch", lambda self, n: batch(self, n + (n >= 4) + (n >= 8)))
    train(data, other, config)
    assert losses(other) == [each for each in losses(run) if each[0] != "rollback"]


@pytest.mark.parametrize("stop_at", [2, 6])
def test_a_run_with_a_skipped_batch_resumes_bit_for_bit(
    stop_at: int, data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    spoil(monkeypatch, 4)
    train(data, whole, config, dataclasses.replace(SETTINGS, checkpoint_every=1e-9))
    with monkeypatch.context() as patch:
        interrupt_after(stop_at, patch)
        with pytest.raises(KeyboardInterrupt):
            train(data, halves, config)
    train(data, halves, config)
    steps = [[each for each in losses(run) if each[0] != "rollback"] for run in (whole, halves)]
    assert steps[0] == steps[1]


def test_a_learning_rate_that_is_far_too_high_ends_with_one_clear_line(
    data: Path, tmp_path: Path, config: ModelConfig
) -> None:
    run, settings = tmp_path / "run", dataclasses.replace(SETTINGS, steps=200, learning_rate=30.0, warmup=0.05)
    with pytest.raises(InputError) as failure:
        train(data, run, config, settings)
    said = str(failure.value)
    assert re.search(
        r"^step \d+: the loss is .* after 3 skipped batches; restart with a learning_rate below 30\.0;", said
    )
    assert said.endswith(f"the last good checkpoint is {run / 'checkpoints' / 'step-000000'}")
    assert "\n" not in said
    assert not (run / "model.safetensors").exists()
    with pytest.raises(InputError, match="after 3 skipped batches"):  # again: the record of skipped batches is kept
        train(data, run, config, settings)


def test_a_budget_in_minutes_ends_the_run_and_the_schedule(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(step=0.002)
    monkeypatch.setattr("time.monotonic", lambda: next(ticks))  # each reading takes 2 ms
    result = train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, steps=None, minutes=0.01))
    assert result.steps > 5
    assert 0.6 < result.seconds < 0.7
    rates = [r["learning_rate"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "step"]
    assert rates[-1] == pytest.approx(3e-4, rel=0.2)  # a tenth of the highest


def test_a_budget_that_is_spent_at_once_allows_one_step(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    assert train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, steps=None, minutes=1e-9)).steps == 1

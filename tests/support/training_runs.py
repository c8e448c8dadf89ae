"""Short runs of pretraining, for several test files."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from model import ModelConfig
from model.training.metrics import read_metrics
from model.training.pretraining import pretrain
from model.training.settings import TrainConfig, TrainResult
from model.training.state import TrainState

# The tokenizer of the test data cannot be loaded from its file, so runs write no samples.
SETTINGS = TrainConfig(
    steps=12, batch_tokens=64, sequence_length=16, eval_every=5, learning_rate=3e-3, dtype="float32", sample_tokens=0
)


def train(
    data: Path, run: Path, config: ModelConfig, settings: TrainConfig = SETTINGS, **arguments: Any
) -> TrainResult:
    """Run pretraining without printing progress, and return its result."""
    return pretrain(data, run, config, settings, **{"progress": io.StringIO(), **arguments})


def losses(run: Path) -> list[tuple[str, int, float]]:
    """Return the kind, step and loss of each record in a run's metrics."""
    records = read_metrics(run / "metrics.jsonl")
    return [(record["kind"], record["step"], record.get("loss", 0.0)) for record in records]


def interrupt_after(step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    """Send a signal during a step."""
    make_step = TrainState.make_step

    def interrupted(self: TrainState, share: float) -> dict[str, float]:
        if self.step == step - 1:
            os.kill(os.getpid(), number)
        return make_step(self, share)

    monkeypatch.setattr(TrainState, "make_step", interrupted)


def interrupted(data: Path, run: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch, step: int = 3) -> Path:
    """Interrupt a run that saves after each step; return its newest checkpoint."""
    settings = dataclasses.replace(SETTINGS, checkpoint_every=1e-9)
    with monkeypatch.context() as patch:
        interrupt_after(step, patch)
        with pytest.raises(KeyboardInterrupt):
            train(data, run, config, settings)
    return run / "checkpoints" / f"step-{step:06}"

"""metrics.jsonl and the curves for TensorBoard."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from bpe.errors import InputError
from model import ModelConfig
from support.training_runs import SETTINGS, interrupt_after, losses, train


@pytest.mark.parametrize("peak_flops", [None, 1e9])
def test_metrics_are_json_with_tokens_and_seconds(
    peak_flops: float | None, data: Path, tmp_path: Path, config: ModelConfig
) -> None:
    train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, peak_flops=peak_flops))
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(record["tokens"] == 64 * record["step"] for record in records)
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds)
    keys = {"kind", "step", "tokens", "seconds", "loss", "learning_rate", "gradient_norm", "tokens_per_second",
            "wait"}  # fmt: skip
    keys |= {"mfu"} if peak_flops else set()  # a CPU's own peak is not known
    assert {key for record in records if record["kind"] == "step" for key in record} == keys


def test_tensorboard_curves_of_a_resumed_run_have_each_step_once(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, settings = tmp_path / "run", dataclasses.replace(SETTINGS, tensorboard=True, peak_flops=1e9)
    with monkeypatch.context() as patch:
        interrupt_after(7, patch)
        with pytest.raises(KeyboardInterrupt):
            train(data, run, config, settings)
    train(data, run, config, settings)
    read = accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    assert {"step/loss", "step/mfu", "step/wait", "evaluation/bits_per_byte"} <= set(read.Tags()["scalars"])
    shown = [(event.step, event.value) for event in read.Scalars("step/loss")]
    told = [(step, pytest.approx(loss)) for kind, step, loss in losses(run) if kind == "step"]
    assert shown == told


def test_without_tensorboard_installed_the_error_names_the_package(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'bpe-llama\[tensorboard\]'"):
        train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, tensorboard=True))

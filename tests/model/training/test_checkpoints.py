"""Checkpoints of a run: which are kept, what is refused, and what survives a crash."""

from __future__ import annotations

import dataclasses
import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bpe.errors import InputError
from model import ModelConfig
from support.training_runs import SETTINGS, interrupted, losses, train


def tensors_of(checkpoint: Path) -> Path:
    (path,) = checkpoint.glob("*.safetensors")
    return path


def test_the_newest_checkpoints_are_kept(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    settings = dataclasses.replace(SETTINGS, steps=6, checkpoint_every=1e-9, keep_checkpoints=3)
    train(data, tmp_path / "run", config, settings)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-000004", "step-000005", "step-000006"]
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        assert all(path.suffix in (".safetensors", ".json") for path in checkpoint.iterdir())  # no pickle


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda c: tensors_of(c).write_bytes(tensors_of(c).read_bytes()[:1000]),
            r"safetensors: has 1,000 bytes instead of",
        ),
        (lambda c: tensors_of(c).unlink(), r"safetensors: is missing"),
        (lambda c: tensors_of(c).write_bytes(b"\xff" * tensors_of(c).stat().st_size), r"cannot be read"),
        (lambda c: (c / "state.json").write_text('{"step": 3'), r"state\.json: cannot be read"),
        (lambda c: (c / "state.json").write_text("[]"), r"state\.json: cannot be read"),
        (
            lambda c: (c / "state.json").write_text('{"files": {}, "step": "x"}'),
            r"state\.json: step, tokens, .* missing",
        ),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_run_resumes_from_the_one_before_it(
    damage: Any, message: str, data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    checkpoint = interrupted(data, run, config, monkeypatch)
    damage(checkpoint)
    with pytest.raises(InputError, match=message) as failure:
        train(data, run, config)
    assert str(checkpoint) in str(failure.value)
    assert (run / "checkpoints" / "step-000002").is_dir()
    shutil.rmtree(checkpoint)
    said = io.StringIO()
    train(data, run, config, progress=said)
    assert "resuming after step 2" in said.getvalue()


def test_a_checkpoint_of_another_model_is_refused_and_the_tensor_is_named(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    checkpoint = interrupted(data, run, config, monkeypatch)
    shutil.rmtree(checkpoint)
    shutil.copytree(interrupted(data, other, dataclasses.replace(config, hidden_dim=64), monkeypatch), checkpoint)
    with pytest.raises(
        InputError, match=r"layers\.0\.feed_forward\.w1\.weight has the shape \[64, 32\], .* needs \[48, 32\]"
    ):
        train(data, run, config)


KILLED = """
import io, os, signal, sys
from pathlib import Path
import torch
from model import ModelConfig
from model.training.pretraining import pretrain
from model.training.checkpoints import RunCheckpoints
from model.training.settings import TrainConfig
from model.training.state import TrainState

torch.set_num_threads(1)
data, run, config, settings, victim, step = sys.argv[1], sys.argv[2], *map(eval, sys.argv[3:])

def killing(function):
    def killed(self, *arguments):
        if (arguments[0] if victim is RunCheckpoints else self.step) == step:
            if victim is RunCheckpoints:  # after the tensors are written, before state.json
                import model.training.checkpoints
                model.training.checkpoints.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(self, *arguments)
    return killed

if victim is RunCheckpoints:
    RunCheckpoints.save = killing(RunCheckpoints.save)
else:
    TrainState.make_step = killing(TrainState.make_step)
pretrain(data, run, config, settings)
"""


@pytest.mark.slow
def test_a_run_killed_during_a_step_and_during_a_save_resumes_bit_for_bit(
    data: Path, tmp_path: Path, config: ModelConfig
) -> None:
    settings = dataclasses.replace(SETTINGS, checkpoint_every=1e-9)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(data, whole, config, settings)
    for victim, step in (("RunCheckpoints", 4), ("TrainState", 9)):
        arguments = [str(data), str(killed), repr(config), repr(settings), victim, str(step)]
        finished = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
        assert finished.returncode == -signal.SIGKILL, finished.stderr.decode()
    assert sorted(path.name for path in (killed / "checkpoints").glob("step-*")) == ["step-000008", "step-000009"]
    train(data, killed, config, settings)
    assert losses(killed) == losses(whole)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on file sizes simulates the full disk: a write fails in the middle."""
    run = tmp_path / "run"
    checkpoint = interrupted(data, run, config, monkeypatch)
    before = (checkpoint / "state.json").read_bytes()
    script = (
        f"import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n{KILLED}"
    )
    settings = dataclasses.replace(SETTINGS, checkpoint_every=1e-9)
    arguments = [str(data), str(run), repr(config), repr(settings), "TrainState", "-1"]
    finished = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("OSError: [Errno 27] File too large: "), last
    assert "checkpoints/step-" in last
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name > "step-000002"] == ["step-000003"]
    assert (checkpoint / "state.json").read_bytes() == before
    assert train(data, run, config, settings).steps == 12

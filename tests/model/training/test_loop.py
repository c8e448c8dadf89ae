from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.shards import HELD_OUT, TRAIN, Shard, Shards, write_shards
from model import ModelConfig, Transformer
from model.checkpoint import open_checkpoint
from model.checkpoint import save as save_model
from model.training.loop import _Ahead, _checkpoint_layers, _Training
from model.training.loss import Batch, next_token_loss
from model.training.metrics import read_metrics
from model.training.optimizer import _check, _Failure, learning_rate
from model.training.parallel import Parallel
from model.training.plot import plot_loss
from model.training.pretraining import Pretraining, Windows, _batches, _held_out_batches, _window, pretrain, settings_of
from model.training.progress import Progress
from model.training.settings import TrainConfig, TrainResult
from support.references import BYTE_RANKS

# The tokenizer of the data here is a stand-in that cannot be read from its file, so no sample is written.
SETTINGS = TrainConfig(
    steps=12, batch_tokens=64, sequence_length=16, eval_every=5, learning_rate=3e-3, dtype="float32", sample_tokens=0
)


def train(
    data: Path, run: Path, config: ModelConfig, settings: TrainConfig = SETTINGS, **arguments: Any
) -> TrainResult:
    return pretrain(data, run, config, settings, **{"progress": io.StringIO(), **arguments})


@pytest.fixture(autouse=True)
def plot(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plots take longer than the runs here; a file stands for them. Gives the function that draws."""
    monkeypatch.setattr("model.training.loop.plot_loss", lambda records, path, title: path.write_text(title))
    return plot_loss


def losses(run: Path) -> list[tuple[str, int, float]]:
    records = read_metrics(run / "metrics.jsonl")
    return [(record["kind"], record["step"], record.get("loss", 0.0)) for record in records]


def interrupt_after(step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    """Send the signal while the given step is being made."""
    make_step = _Training.make_step

    def interrupted(self: _Training, share: float) -> dict[str, float]:
        if self.step == step - 1:
            os.kill(os.getpid(), number)
        return make_step(self, share)

    monkeypatch.setattr(_Training, "make_step", interrupted)


def test_a_run_leaves_a_model_directory_metrics_and_a_plot(
    data: Path, tmp_path: Path, config: ModelConfig, plot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr("model.training.loop.plot_loss", plot)
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


def test_one_batch_can_be_learned_by_heart(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.randint(256, (4, 17), generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(Pretraining, "batch", lambda self, number: [Batch(ids[:, :-1], ids[:, 1:])])
    settings = dataclasses.replace(SETTINGS, steps=150, learning_rate=1e-2, weight_decay=0.0, eval_every=1000)
    train(data, tmp_path / "run", config, settings)
    curve = [loss for kind, _, loss in losses(tmp_path / "run") if kind == "step"]
    assert curve[0] > 5
    assert curve[-1] < 0.05


def test_the_losses_are_those_of_transformers_step_by_step(data: Path, tmp_path: Path, config: ModelConfig) -> None:
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
def test_another_way_to_compute_gives_the_same_losses(
    how: str, data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dynamo takes the layers apart and refuses what it cannot follow; kernels from a C++ compiler take a minute.
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


def test_with_checkpointed_activations_a_layer_keeps_its_input_alone(config: ModelConfig) -> None:
    kept = []
    for checkpointed in (False, True):
        model, sizes = Transformer(config), []
        if checkpointed:
            _checkpoint_layers(model)

        def count(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model.hidden(torch.zeros(2, 32, dtype=torch.long))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop_at", [1, 7])
def test_an_interrupted_run_goes_on_bit_for_bit(
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
    said = io.StringIO()
    train(data, halves, config, settings, progress=said)
    assert f"going on after step {stop_at}" in said.getvalue()
    assert losses(halves) == losses(whole)
    assert (halves / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SETTINGS, checkpoint_every=1e-9)  # after every step
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(data, whole, config, settings)
    make_step = _Training.make_step

    def killing(self: _Training, share: float) -> dict[str, float]:
        if self.step == 6:
            raise SystemError("as if the power went out")
        return make_step(self, share)

    with monkeypatch.context() as patch:
        patch.setattr(_Training, "make_step", killing)
        with pytest.raises(SystemError):
            train(data, killed, config, settings)
    with (killed / "metrics.jsonl").open("a") as file:  # what was written after the checkpoint, the last line in part
        file.write('{"kind": "step", "step": 7, "tokens": 448, "seconds": 1.0, "loss": 0.0}\n{"kind": "st')
    train(data, killed, config, settings)
    assert losses(killed) == losses(whole)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_sigterm_saves_before_it_takes_effect(
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


def test_a_finished_run_is_left_alone_and_says_so(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    run = tmp_path / "run"
    first = train(data, run, config)
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    said = io.StringIO()
    again = train(data, run, config, progress=said)
    assert again == dataclasses.replace(first, already_finished=True)
    assert "finished already" in said.getvalue()
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_restart_throws_the_earlier_run_away(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    run = tmp_path / "run"
    train(data, run, config)
    other = dataclasses.replace(SETTINGS, seed=1)
    result = train(data, run, config, other, restart=True)
    assert not result.already_finished
    assert Counter(kind for kind, _, _ in losses(run)) == {"step": 12, "evaluation": 4}


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_naming_what_differs(
    finished: bool, data: Path, tmp_path: Path, config: ModelConfig, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    if finished:
        train(data, run, config)
    else:
        with monkeypatch.context() as patch:
            interrupt_after(3, patch)
            with pytest.raises(KeyboardInterrupt):
                train(data, run, config)
    with pytest.raises(InputError, match=r"\(learning_rate 0\.003 -> 0\.1, seed 0 -> 3\)"):
        train(data, run, config, dataclasses.replace(SETTINGS, learning_rate=0.1, seed=3))
    with pytest.raises(InputError, match=r"\(n_layers 2 -> 1\)"):
        train(data, run, dataclasses.replace(config, n_layers=1))
    write_shards(["Some other", "documents."], tokenizer, data, tokenizer_file=tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=r"\(the data\)"):
        train(data, run, config)
    (tmp_path / "tokenizer.json").write_text('{"kind": "other bytes"}')
    write_shards(["Some other", "documents."], tokenizer, data, tokenizer_file=tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=r"\(the data, the tokenizer\)"):
        train(data, run, config)


def test_the_newest_checkpoints_are_kept(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    settings = dataclasses.replace(SETTINGS, steps=6, checkpoint_every=1e-9, keep_checkpoints=3)
    train(data, tmp_path / "run", config, settings)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-000004", "step-000005", "step-000006"]
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        assert all(path.suffix in (".safetensors", ".json") for path in checkpoint.iterdir())  # and so no pickle


def interrupted(data: Path, run: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch, step: int = 3) -> Path:
    """The newest checkpoint of a run that was interrupted after some steps, each of which was saved."""
    settings = dataclasses.replace(SETTINGS, checkpoint_every=1e-9)
    with monkeypatch.context() as patch:
        interrupt_after(step, patch)
        with pytest.raises(KeyboardInterrupt):
            train(data, run, config, settings)
    return run / "checkpoints" / f"step-{step:06}"


def tensors_of(checkpoint: Path) -> Path:
    (path,) = checkpoint.glob("*.safetensors")
    return path


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: tensors_of(c).write_bytes(tensors_of(c).read_bytes()[:1000]), r"safetensors: 1,000 bytes, where"),
        (lambda c: tensors_of(c).unlink(), r"safetensors: missing"),
        (lambda c: tensors_of(c).write_bytes(b"\xff" * tensors_of(c).stat().st_size), r"cannot be read"),
        (lambda c: (c / "state.json").write_text('{"step": 3'), r"state\.json: cannot be read"),
        (lambda c: (c / "state.json").write_text("[]"), r"state\.json: cannot be read"),
        (
            lambda c: (c / "state.json").write_text('{"files": {}, "step": "x"}'),
            r"state\.json: step, tokens, .* missing",
        ),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(
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
    assert "going on after step 2" in said.getvalue()


def test_a_checkpoint_of_another_model_is_refused_by_the_tensor_that_differs(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    checkpoint = interrupted(data, run, config, monkeypatch)
    shutil.rmtree(checkpoint)
    shutil.copytree(interrupted(data, other, dataclasses.replace(config, hidden_dim=64), monkeypatch), checkpoint)
    with pytest.raises(InputError, match=r"layers\.0\.feed_forward\.w1\.weight is \[64, 32\], .* wants \[48, 32\]"):
        train(data, run, config)


def test_checkpoints_without_their_settings_are_not_written_over(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = interrupted(data, tmp_path / "run", config, monkeypatch)
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(InputError, match=r"run\.json: missing, and there are checkpoints"):
        train(data, tmp_path / "run", config)
    assert checkpoint.is_dir()


def test_how_often_to_save_may_change_when_a_run_is_gone_on_with(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(data, tmp_path / "run", config, monkeypatch)
    assert train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, keep_checkpoints=7)).steps == 12


KILLED = """
import io, os, signal, sys
from pathlib import Path
import torch
from model import ModelConfig
from model.training.pretraining import pretrain
from model.training.checkpoints import Checkpoints
from model.training.loop import _Training
from model.training.settings import TrainConfig

torch.set_num_threads(1)
data, run, config, settings, victim, step = sys.argv[1], sys.argv[2], *map(eval, sys.argv[3:])

def killing(function):
    def killed(self, *arguments):
        if (arguments[0] if victim is Checkpoints else self.step) == step:
            if victim is Checkpoints:  # with the tensors written, and the state not
                import model.training.checkpoints
                model.training.checkpoints.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(self, *arguments)
    return killed

if victim is Checkpoints:
    Checkpoints.save = killing(Checkpoints.save)
else:
    _Training.make_step = killing(_Training.make_step)
pretrain(data, run, config, settings)
"""


def test_a_run_killed_in_a_step_and_in_a_checkpoint_gives_the_same_losses_bit_for_bit(
    data: Path, tmp_path: Path, config: ModelConfig
) -> None:
    settings = dataclasses.replace(SETTINGS, checkpoint_every=1e-9)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(data, whole, config, settings)
    for victim, step in (("Checkpoints", 4), ("_Training", 9)):
        arguments = [str(data), str(killed), repr(config), repr(settings), victim, str(step)]
        finished = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
        assert finished.returncode == -signal.SIGKILL, finished.stderr.decode()
    assert sorted(path.name for path in (killed / "checkpoints").glob("step-*")) == ["step-000008", "step-000009"]
    train(data, killed, config, settings)
    assert losses(killed) == losses(whole)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit on the size of a file stands for the disk: a write fails in the middle."""
    run = tmp_path / "run"
    checkpoint = interrupted(data, run, config, monkeypatch)
    before = (checkpoint / "state.json").read_bytes()
    script = (
        f"import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n{KILLED}"
    )
    settings = dataclasses.replace(SETTINGS, checkpoint_every=1e-9)
    arguments = [str(data), str(run), repr(config), repr(settings), "_Training", "-1"]
    finished = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith("OSError: [Errno 27] File too large")
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name > "step-000002"] == ["step-000003"]
    assert (checkpoint / "state.json").read_bytes() == before
    assert train(data, run, config, settings).steps == 12


def spoil(monkeypatch: pytest.MonkeyPatch, *numbers: int, by: float = math.inf) -> None:
    """Make the losses of some batches larger."""
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
def test_a_batch_that_spoils_the_loss_is_named_and_skipped(
    by: float, data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said = tmp_path / "run", io.StringIO()
    spoil(monkeypatch, 4, 9, by=by)
    assert train(data, run, config, progress=said).steps == 12
    what = "the loss is 1" if by == 2 else "the loss is"
    assert f"step 4: {what}" in said.getvalue()
    assert "(batch 4, tokens train-00000.bin[" in said.getvalue()
    assert f" of {data}); back to step 0, and on without that batch" in said.getvalue()
    assert "step 8: " in said.getvalue()
    records = read_metrics(run / "metrics.jsonl")
    assert [record["step"] for record in records if record["kind"] == "step"] == list(range(1, 13))
    assert [record["step"] for record in records if record["kind"] == "rollback"] == [0, 0]
    assert (run / "loss.png").is_file()

    # As if those batches had never been in the data.
    other = tmp_path / "other"
    batch = Pretraining.batch
    monkeypatch.setattr(Pretraining, "batch", lambda self, n: batch(self, n + (n >= 4) + (n >= 8)))
    train(data, other, config)
    assert losses(other) == [each for each in losses(run) if each[0] != "rollback"]


@pytest.mark.parametrize("stop_at", [2, 6])
def test_a_run_with_a_skipped_batch_goes_on_bit_for_bit(
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


def test_a_learning_rate_that_is_far_too_high_ends_in_one_clear_line(
    data: Path, tmp_path: Path, config: ModelConfig
) -> None:
    run, settings = tmp_path / "run", dataclasses.replace(SETTINGS, steps=200, learning_rate=30.0, warmup=0.05)
    with pytest.raises(InputError) as failure:
        train(data, run, config, settings)
    said = str(failure.value)
    assert re.search(r"^step \d+: the loss is .* after 3 batches .* restart with a learning_rate below 30\.0;", said)
    assert said.endswith(f"{run / 'checkpoints' / 'step-000000'} is the last good checkpoint")
    assert "\n" not in said
    assert not (run / "model.safetensors").exists()
    with pytest.raises(InputError, match="after 3 batches"):  # and again, for all that is known of it is kept
        train(data, run, config, settings)


def test_a_spike_is_far_above_the_spread_of_the_last_losses() -> None:
    calm = [2.0 + 0.01 * (-1) ** n for n in range(50)]
    _check(2.39, 1.0, calm, spike=10)  # ten times 2% of the median
    with pytest.raises(_Failure, match=r"the loss is 2\.450, and the median of the last 50 steps"):
        _check(2.45, 1.0, calm, spike=10)
    _check(2.45, 1.0, calm, spike=20)
    restless = [2.0 + 0.5 * (-1) ** n for n in range(50)]
    _check(4.4, 1.0, restless, spike=10)
    _check(4.9, 1.0, calm[:10], spike=10)  # too few to know their spread
    with pytest.raises(_Failure):
        _check(5.1, 1.0, calm[:10], spike=10)
    for loss, norm in ((math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan)):
        with pytest.raises(_Failure):
            _check(loss, norm, [], spike=10)


def test_a_budget_of_minutes_ends_the_run_and_the_schedule(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(step=0.002)
    monkeypatch.setattr(
        "model.training.loop.time.monotonic", lambda: next(ticks)
    )  # a clock on which each look takes 2 ms
    result = train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, steps=None, minutes=0.01))
    assert result.steps > 5
    assert 0.6 < result.seconds < 0.7
    rates = [r["learning_rate"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "step"]
    assert rates[-1] == pytest.approx(3e-4, rel=0.2)  # a tenth of the highest


def test_a_budget_that_is_spent_before_the_first_step_makes_one(
    data: Path, tmp_path: Path, config: ModelConfig
) -> None:
    assert train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, steps=None, minutes=1e-9)).steps == 1


def test_numbers_go_to_tensorboard_and_a_run_that_goes_on_writes_over_what_is_lost(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, settings = tmp_path / "run", dataclasses.replace(SETTINGS, tensorboard=True)
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


def test_without_tensorboard_installed_the_wish_for_it_is_refused_with_the_remedy(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'bpe-llama\[tensorboard\]'"):
        train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, tensorboard=True))


def test_mfu_is_the_share_of_the_peak_that_was_given(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    said = io.StringIO()
    train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, steps=2, peak_flops=1e9), progress=said)
    assert "MFU is the share of 1 GFLOP a second, as given" in said.getvalue()
    # Three times the forward pass of 16 tokens, in matrix products: those of the layers, of queries with keys and
    # probabilities with values (136 pairs), and the logits.
    layers = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)
    flops = 3 * 2 * (16 * layers + 2 * 2 * 4 * 8 * 136 + 16 * 259 * 32)
    assert config.training_flops(16) == flops
    for record in read_metrics(tmp_path / "run" / "metrics.jsonl"):
        if record["kind"] == "step":
            assert record["mfu"] == pytest.approx(record["tokens_per_second"] * flops / 16 / 1e9, rel=1e-3)
            assert 0 <= record["wait"] < 1


def test_a_sample_of_the_models_writing_goes_with_each_evaluation(
    data: Path, tmp_path: Path, config: ModelConfig, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.training.pretraining.Tokenizer.from_file", lambda path: tokenizer)
    said = io.StringIO()
    train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, sample_tokens=5), progress=said)
    samples = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "sample"]
    assert [sample["step"] for sample in samples] == [0, 5, 10, 12]
    for sample in samples:
        assert "  " + " ".join(sample["text"].split()) in said.getvalue()


def test_a_run_can_be_gone_on_with_by_its_directory_alone(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    interrupted(data, run, config, monkeypatch)
    directory, shape, kept = settings_of(run)
    assert (directory, shape) == (data, config)
    assert train(directory, run, shape, dataclasses.replace(SETTINGS, **kept)).steps == 12
    with pytest.raises(InputError, match="no run to go on with; give --data"):
        settings_of(tmp_path / "none")


def test_training_without_held_out_documents_works(tmp_path: Path, tokenizer: Any, config: ModelConfig) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    write_shards(["A text.", "And one more."], tokenizer, tmp_path / "data", tokenizer_file=tmp_path / "tokenizer.json",
                 held_out=0)  # fmt: skip
    result = train(tmp_path / "data", tmp_path / "run", config)
    assert result.held_out_loss is None
    assert {kind for kind, _, _ in losses(tmp_path / "run")} == {"step"}
    assert train(tmp_path / "data", tmp_path / "run", config).already_finished


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "either steps or minutes"),
        ({"minutes": 1.0}, "either steps or minutes"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_tokens": 65}, r"batch_tokens \(65\) is not a multiple of sequence_length \(16\)"),
        ({"micro_batch_tokens": 24}, r"micro_batch_tokens \(24\) is not a multiple of sequence_length \(16\)"),
        ({"sequence_length": 0}, "sequence_length is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warmup": 1.5}, "warmup is 1.5"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"schedule": "wsd", "warmup": 0.5, "decay": 0.6}, "more than the whole budget"),
        ({"decay": -0.1}, "decay is -0.1"),
        ({"peak_flops": 0.0}, "peak_flops is 0.0"),
        ({"sample_tokens": -1}, "sample_tokens is -1"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"max_skipped": -1}, "max_skipped is -1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SETTINGS, **changes)


def test_a_model_too_small_for_the_data_is_refused(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    with pytest.raises(InputError, match="set vocab_size to 259"):
        train(data, tmp_path / "run", dataclasses.replace(config, vocab_size=258))
    with pytest.raises(InputError, match="sequence_length is 16, and the context of the model holds 8"):
        train(data, tmp_path / "run", dataclasses.replace(config, max_seq_len=8))
    assert not (tmp_path / "run").exists()


def test_warm_up_stable_decay_stays_at_the_highest_and_falls_at_the_end() -> None:
    settings = TrainConfig(steps=1, learning_rate=2.0, warmup=0.1, schedule="wsd", decay=0.25)
    rates = [learning_rate(share / 1000, settings) for share in range(1001)]
    assert rates[50] == pytest.approx(1.0)
    assert set(rates[100:751]) == {2.0}
    assert rates[875] == pytest.approx(1.1)  # half-way between the highest and a tenth of it
    assert rates[1000] == pytest.approx(0.2)
    assert learning_rate(1.0, dataclasses.replace(settings, decay=0.0)) == 2.0


def test_the_learning_rate_rises_falls_and_ends_at_a_tenth() -> None:
    settings = TrainConfig(steps=1, learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(share / 1000, settings) for share in range(1001)]
    assert 0 < rates[0] <= 0.01
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[50] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(2.0)
    assert rates[550] == pytest.approx(1.1)  # half-way between the highest and a tenth of it
    assert rates[1000] == pytest.approx(0.2)


def shard(ids: Any, *offsets: int) -> Shard:
    ids = np.asarray(ids, np.uint16)
    return Shard("train-00000.bin", ids, np.array([0, *offsets, len(ids)]), "", "train-00000.docs", "")


def test_an_epoch_reads_each_token_once_and_targets_follow_inputs() -> None:
    windows = Windows([shard(np.arange(0, 40)), shard(np.arange(100, 140))], sequence_length=8, sequences=2, seed=3)
    for epoch in range(3):
        ids = torch.cat([windows[step][0] for step in range(5 * epoch, 5 * epoch + 5)])
        assert Counter(ids[:, :-1].flatten().tolist()) == Counter([*range(40), *range(100, 140)])
        steps = (ids[:, 1:] - ids[:, :-1]).flatten().tolist()
        assert set(steps) <= {1, -39}  # the next token, or the first after the last


def test_what_comes_next_is_read_ahead_and_what_does_not_is_read_at_once() -> None:
    read: list[int] = []
    ahead = _Ahead(lambda number: read.append(number) or [number])  # type: ignore[func-returns-value]
    assert [ahead.get(0, 1), ahead.get(1, 2), ahead.get(7, 8), ahead.get(8, 9)] == [[0], [1], [7], [8]]
    ahead.close()
    assert read[:4] in ([0, 1, 2, 7], [0, 1, 7, 2])
    assert set(read) <= {0, 1, 2, 7, 8, 9}


def test_epochs_differ_and_batches_follow_from_seed_and_number() -> None:
    shards = [shard(np.arange(1000))]
    one, other = Windows(shards, 8, 4, seed=1), Windows(shards, 8, 4, seed=1)
    in_order = [one[step][0] for step in range(70)]
    for step in (69, 3, 31, 0, 32):
        assert torch.equal(other[step][0], in_order[step])
    assert not torch.equal(torch.cat(in_order[:31]), torch.cat(in_order[31:62]))
    assert not torch.equal(Windows(shards, 8, 4, seed=2)[0][0], in_order[0])


def test_a_corpus_shorter_than_a_sequence_is_read_around() -> None:
    window = Windows([shard(np.arange(5))], 12, 1, seed=0)[0][0][0].tolist()
    assert len(window) == 13
    assert all((after - before) % 5 == 1 for before, after in itertools.pairwise(window))


def test_a_corpus_of_one_token_is_refused() -> None:
    with pytest.raises(InputError, match="fewer than two tokens"):
        Windows([shard(np.zeros(1))], 8, 1, seed=0)


def test_places_in_a_window_count_from_the_beginning_of_the_document_or_of_the_window() -> None:
    # Documents of 3, 0, 9 and 4 tokens, whose ids tell the place in the document.
    windows = Windows([shard([*range(3), *range(9), *range(4)], 3, 3, 12)], 6, 1, seed=0)
    for number in range(20):
        ids, positions = (tensor[0].tolist() for tensor in windows[number])
        expected = []
        for index, id in enumerate(ids):
            expected.append(0 if index == 0 or id == 0 else expected[-1] + 1)
        assert positions == expected


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("eval_tokens", [1 << 17, 50, 1])
def test_held_out_tokens_are_predicted_once_each(eval_tokens: int, across: bool, data: Path) -> None:
    shards = Shards(data)
    settings = dataclasses.replace(SETTINGS, eval_tokens=eval_tokens, across_documents=across)
    batches = _held_out_batches(shards, settings)
    (ids,) = shards.tokens(HELD_OUT)
    targets = torch.cat([batch.targets.flatten() for batch in batches])
    wanted = [id for id in ids[1 : 1 + eval_tokens].tolist() if across or id != shards.bos_id]
    assert targets[targets >= 0].tolist() == wanted
    inputs = torch.cat([batch.inputs.flatten() for batch in batches])
    if across:
        assert inputs[targets >= 0].tolist() == ids[:-1][:eval_tokens].tolist()
    assert shards.token_count(TRAIN) > shards.token_count(HELD_OUT) > 50


def test_the_loss_and_gradients_of_a_packed_window_are_those_of_each_document_alone(
    model: Transformer, config: ModelConfig
) -> None:
    lengths = (3, 1, 20, 2, 14)
    ids = torch.randint(256, (sum(lengths),), generator=torch.Generator().manual_seed(0)).numpy()
    ends = np.cumsum(lengths).tolist()
    window = [torch.from_numpy(each)[None] for each in _window(shard(ids, *ends[:-1]), 0, len(ids))]
    (packed,) = _batches(*window, dataclasses.replace(SETTINGS, sequence_length=len(ids), batch_tokens=len(ids)))
    model, documents = model.double(), np.split(ids.astype(np.int64), ends[:-1])
    next_token_loss(model, packed).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}

    model.zero_grad()
    alone = [Batch(torch.from_numpy(d[None, :-1]), torch.from_numpy(d[None, 1:])) for d in documents if len(d) > 1]
    losses = [next_token_loss(model, batch) for batch in alone]
    sum(losses).backward()  # type: ignore[union-attr]
    assert packed.n_targets == sum(batch.n_targets for batch in alone) == sum(lengths) - len(lengths)
    # The loss itself is float32, whatever the model is in.
    torch.testing.assert_close(next_token_loss(model, packed), torch.stack(losses).sum(), rtol=1e-6, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-6, msg=name)

    logits = model(packed.inputs, positions=packed.positions)[0].split(lengths[:-1] + (lengths[-1] - 1,))
    for document, ours in zip(documents, logits, strict=True):
        expected = model(torch.from_numpy(document[None]))[0, : len(ours)]
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)  # rotations are float32


def test_across_documents_a_window_is_one_text(model: Transformer) -> None:
    ids = torch.arange(17)[None]
    (batch,) = _batches(ids, ids % 5, dataclasses.replace(SETTINGS, across_documents=True))
    assert batch.positions is None
    assert batch.targets.tolist() == ids[:, 1:].tolist()


@pytest.mark.parametrize("micro_batch_tokens", [16, 32, 48])
def test_parts_of_a_step_add_up_to_the_whole(
    micro_batch_tokens: int, data: Path, tmp_path: Path, config: ModelConfig
) -> None:
    settings = dataclasses.replace(SETTINGS, micro_batch_tokens=micro_batch_tokens)
    task = Pretraining(Shards(data), config, settings)
    # A step whose parts have unlike numbers of targets, so that a mean of means would differ.
    number = next(n for n in range(50) if len({batch.n_targets / batch.n_tokens for batch in task.batch(n)}) > 1)
    parts = task.batch(number)
    assert [batch.n_tokens for batch in parts] == {16: [16] * 4, 32: [32, 32], 48: [48, 16]}[micro_batch_tokens]
    runs = []
    for each in (settings, SETTINGS):
        with Parallel(device="cpu") as alone:
            training = _Training(Pretraining(Shards(data), config, each), each, alone)
            training.batch = number
            measured = [training.make_step(0.5) for _ in range(3)]
        runs.append((training, measured))
    for ours, whole in zip(*(measured for _, measured in runs), strict=True):
        assert ours["loss"] == pytest.approx(whole["loss"], rel=1e-6)
        assert ours["gradient_norm"] == pytest.approx(whole["gradient_norm"], rel=1e-5)
    for ours, whole in zip(*(training.trained.values() for training, _ in runs), strict=True):
        torch.testing.assert_close(ours, whole, rtol=0, atol=2e-5)  # the rate is 3e-3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_redraws_itself_and_vanishes() -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.step(0.25, 2.5, 12345.0, 0.375, 95.0)
    assert "25%  loss 2.500  12,345 tokens/s, MFU 38%  1:35 left" in stream.getvalue()
    progress.evaluation(10, 3.0, 1.25, 30.0)
    progress.step(0.5, 2.25, 12000.0, 0.4, 3700.0)
    assert "held-out 3.000 (1.250 bits/byte)  12,000 tokens/s, MFU 40%  1:01:40 left" in stream.getvalue()
    progress.say("done")
    assert "\n" not in stream.getvalue().removesuffix("\r\x1b[Kdone\n")


def test_elsewhere_each_evaluation_has_a_line_and_steps_have_none() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.step(0.25, 2.5, 12345.0, 0.375, 95.0)
    progress.evaluation(10, 3.0, 1.25, 30.0)
    progress.clear()
    assert stream.getvalue() == "0:30  step 10  held-out 3.000 (1.250 bits/byte)\n"


def test_metrics_are_json_with_tokens_and_seconds(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    train(data, tmp_path / "run", config)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(record["tokens"] == 64 * record["step"] for record in records)
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds)
    keys = {"kind", "step", "tokens", "seconds", "loss", "learning_rate", "gradient_norm", "tokens_per_second", "mfu",
            "wait"}  # fmt: skip
    assert {key for record in records if record["kind"] == "step" for key in record} == keys

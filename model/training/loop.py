"""The training loop: steps of AdamW on whatever a task gives, in a run directory that can be gone on with.

The loop knows the optimizer, its schedule, checkpoints, signals and reports; a `Task` knows the data, the loss and the
model. A run directory holds `run.json` (its settings and, when finished, the result), `metrics.jsonl` (one JSON object
a line), `checkpoints/` (see `model.training.checkpoints`), and when finished also `loss.png` and what the task leaves.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bpe.errors import InputError
from bpe.files import replacing, write_json
from model.memory import keep_freed_memory
from model.training.checkpoints import STATE, Checkpoints
from model.training.fused import fuse
from model.training.interrupts import SignalsBetweenSteps
from model.training.loss import Evaluation
from model.training.metrics import MetricsLog, read_metrics
from model.training.optimizer import _REMEMBERED_LOSSES, _check, _Failure, _optimizer, _resolved, learning_rate
from model.training.parallel import Parallel
from model.training.plot import plot_loss
from model.training.progress import Progress
from model.training.settings import TrainConfig, TrainResult, _decisive
from model.training.task import Task
from model.training.throughput import measured_peak
from model.transformer import Transformer

RUN, METRICS, CHECKPOINTS, PLOT, TENSORBOARD = "run.json", "metrics.jsonl", "checkpoints", "loss.png", "tensorboard"


def train(
    task: Task,
    run: str | os.PathLike[str],
    config: TrainConfig,
    *,
    restart: bool = False,
    progress: TextIO | None = None,
    parallel: Parallel | None = None,
    notes: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train what the task says; the run directory is left with what the task saves, metrics, a plot and checkpoints.

    Called again with the same settings, it goes on where an interrupted run stopped, and says so when the run is
    finished. Other settings are refused, naming what differs; `restart` throws the earlier run away instead.

    An interrupt (Ctrl-C) or SIGTERM ends the step under way, saves, and then takes effect: KeyboardInterrupt is raised.
    A second one takes effect at once. Progress is told on `progress`, by default stderr.

    notes: what run.json is to say beside the settings.
    parallel: the processes that train together, entered; each calls this function, and all see the same directories.
        None: those that torchrun has started, each with the whole model, or this one alone.

    A step whose loss is no number, or far above the last ones, takes the run back to its last checkpoint; it goes on
    from there without that step's data. Raises InputError when that happens too often, and for data, settings and
    checkpoints that do not fit.
    """
    if parallel is None:
        with Parallel(device=config.device) as parallel:
            return train(task, run, config, restart=restart, progress=progress, parallel=parallel, notes=notes)
    run, metrics = Path(run), Path(run) / METRICS
    if not parallel.is_main:  # what only one is to write and to say
        progress, metrics = io.StringIO(), Path(os.devnull)
    show = Progress(sys.stderr if progress is None else progress)
    checkpoints = Checkpoints(run / CHECKPOINTS, config.keep_checkpoints, parallel)

    # 1. Look at what is there: a finished run, an interrupted one, or none.
    settings = {"kind": task.kind, **task.settings(), "train": _decisive(config)}
    if restart and parallel.is_main:
        _clear(run)
    parallel.barrier()
    if result := _earlier_result(run, settings):
        show.say(f"{run}: finished already, {_summary(result)}; nothing was done (restart to train it again)")
        return result

    # 2. Build the model and its optimizer, and take up where the newest checkpoint stopped.
    training = _Training(task, config, parallel)
    newest = checkpoints.newest()
    if newest is not None:
        training.restore(checkpoints, newest)
        show.say(f"{run}: going on after step {training.step}")
    if parallel.is_main:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / RUN, {"finished": False, "settings": settings, **(notes or {})})

    def evaluation() -> Evaluation | None:
        measured, sample = training.evaluate()
        if measured is not None:
            bits_per_byte = _bits_per_byte(measured)
            log.write("evaluation", training, loss=measured.loss, bits_per_byte=bits_per_byte)
            show.evaluation(training.step, measured.loss, bits_per_byte, training.elapsed)
        if sample is not None:
            log.write("sample", training, text=sample)
            show.sample(sample)
        return measured

    def save() -> Path:
        return checkpoints.save(training.step, training.tensors(), training.state())

    def go_back(failure: _Failure, checkpoint: Path) -> None:
        """To the checkpoint, and on from there without the batch that failed."""
        failed = f"step {training.step}: {failure} ({task.describe(training.batch)})"
        if len(training.skipped) >= config.max_skipped:
            raise InputError(
                f"{failed}, after {len(training.skipped)} batches that were skipped for the like; restart with a "
                f"learning_rate below {config.learning_rate}; {checkpoint} is the last good checkpoint"
            )
        checkpoints.update_state(checkpoint, skipped=[*training.skipped, training.batch])
        training.restore(checkpoints, checkpoint)
        log.rewind(training.step)
        log.write("rollback", training, reason=failed)
        show.say(f"{failed}; back to step {training.step}, and on without that batch")

    signals = SignalsBetweenSteps(patient=parallel.size > 1)
    board = run / TENSORBOARD if config.tensorboard and parallel.is_main else None
    with (
        contextlib.closing(training),
        contextlib.closing(MetricsLog(metrics, None if newest is None else training.step, board)) as log,
        signals,
        torch.random.fork_rng(devices=[]),
    ):
        show.say(f"{run}: MFU is the share of {training.peak_flops / 1e9:,.0f} GFLOP a second, {training.peak_source}")
        if newest is None:
            evaluation()
            newest = save()
        saved = time.monotonic()
        while (share := training.share()) < 1 or training.step == 0:
            # 3. Make one step.
            try:
                measured = training.make_step(share)
            except _Failure as failure:
                go_back(failure, newest)
                continue
            # 4. Tell of it; every so often, look at the held-out data.
            log.write("step", training, **measured)
            speed, mfu = measured["tokens_per_second"], measured["mfu"]
            show.step(share, training.loss, speed, mfu, training.seconds_left())
            if training.step % config.eval_every == 0 and training.share() < 1:
                evaluation()
            # 5. Every so often, and when told to stop, save.
            interrupted = parallel.any(signals.received)
            if interrupted or parallel.main(time.monotonic() - saved) >= config.checkpoint_every:
                newest, saved = save(), time.monotonic()
            if interrupted:
                show.say(f"{run}: interrupted, and saved after step {training.step}; the same call goes on from there")
                signals.take_effect(interrupted)

        # 6. Measure once more; leave what was trained, the plot and the verdict.
        last = evaluation()
        save()
        result = TrainResult(
            directory=run,
            steps=training.step,
            tokens=training.tokens,
            seconds=round(training.elapsed, 3),
            train_loss=training.loss,
            held_out_loss=None if last is None else last.loss,
            bits_per_byte=None if last is None else _bits_per_byte(last),
        )
        if (whole := parallel.gather(training.model)) is not None:
            task.save(run, whole)
            records = read_metrics(run / METRICS)
            n_parameters = sum(parameter.numel() for parameter in training.trained.values())
            with replacing(run / PLOT) as path:
                plot_loss(records, path, f"{task.kind} of {n_parameters / 1e6:.1f} million parameters")
            told = asdict(result)
            outcome = {key: told[key] for key in told if key not in ("directory", "already_finished")}
            write_json(run / RUN, {"finished": True, "result": outcome, "settings": settings, **(notes or {})})
        parallel.barrier()
    show.say(f"{run}: finished, {_summary(result)}")
    return result


class _Ahead:
    """Reads what the next step needs while a step is made."""

    def __init__(self, read: Callable[[int], Sequence[Any]]) -> None:
        self._read, self._thread = read, ThreadPoolExecutor(1)
        self._number, self._reading = -1, Future[Sequence[Any]]()

    def get(self, number: int, following: int) -> Sequence[Any]:
        """The batches of one number; those of the following one are read from now on."""
        batches = self._reading.result() if self._number == number else self._read(number)
        self._number, self._reading = following, self._thread.submit(self._read, following)
        return batches

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)


class _Training:
    """The model under training and its optimizer, and how far they are."""

    def __init__(self, task: Task, config: TrainConfig, parallel: Parallel) -> None:
        self.task, self.config, self.parallel = task, config, parallel
        if parallel.device.type == "cpu":
            keep_freed_memory()
        self.model = task.model().to(parallel.device)
        fuse(self.model)
        self._dtype = _resolved(config.dtype, parallel.device)
        self._flops_per_token = self.model.config.training_flops(config.sequence_length) / config.sequence_length
        self.peak_flops = (config.peak_flops or measured_peak(parallel.device, self._dtype)) * parallel.size
        self.peak_source = "as given" if config.peak_flops else f"measured with products of matrices in {self._dtype}"
        if config.checkpoint_activations:
            _checkpoint_layers(self.model)
        if config.compile:
            for layer in self.model.layers:
                layer.compile()
        self.loss_of = parallel.prepare(self.model, task.loss)
        parallel.rehearse(self.loss_of, task.batch)
        self.trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.optimizer = _optimizer(list(self.trained.values()), config)
        # How far it is: steps made, tokens read, the next batch, those left out, and the losses of the last steps.
        self.step, self.tokens, self.batch = 0, 0, 0
        self.skipped: list[int] = []
        self.losses: list[float] = []
        self._elapsed_before, self._began = 0.0, time.monotonic()
        self._batches = _Ahead(task.batch)

    def close(self) -> None:
        """Stop reading ahead."""
        self._batches.close()

    @property
    def loss(self) -> float:
        """The last step's, in nats."""
        return self.losses[-1] if self.losses else math.nan

    @property
    def elapsed(self) -> float:
        """Seconds of this run and of those it goes on from."""
        return self._elapsed_before + time.monotonic() - self._began

    def share(self) -> float:
        """How much of the budget is used; 1 or more when it is spent."""
        if self.config.minutes is not None:
            return self.parallel.main(self.elapsed) / (60 * self.config.minutes)
        assert self.config.steps is not None  # TrainConfig has exactly one of the two
        return self.step / self.config.steps

    def seconds_left(self) -> float:
        """An estimate, from the pace so far."""
        share = self.share()
        return self.elapsed * (1 - share) / share if share else math.inf

    def make_step(self, share: float) -> dict[str, float]:
        """One step of the optimizer; returns what metrics.jsonl says of it.

        Raises _Failure, with the weights as they were, when the loss is not what it should be."""
        began = time.perf_counter()
        # 1. Read the step's data. Whatever is drawn at random follows from its number, so there is no state to keep.
        batches = self._batches.get(self.batch, self._after(self.batch))
        waited = time.perf_counter() - began
        n_targets = sum(batch.n_targets for batch in batches)
        processes, rank = self.parallel.data, self.parallel.data_rank
        torch.manual_seed((self.config.seed << 32) + (rank << 48) + self.batch)
        # 2. Forward and backward: the gradients of the parts add up to that of the mean over the whole. Those of the
        # processes are averaged, and it is their sum that is wanted.
        total = torch.zeros((), device=self.parallel.device)
        for number, batch in enumerate(batches, 1):
            with self.parallel.accumulating(self.model, last=number == len(batches)):
                with self._autocast():
                    part = self.loss_of(batch.part(rank, processes)) * processes / max(1, n_targets)
                part.backward()
            total += part.detach()
        # 3. Update the weights, unless something has gone wrong.
        norm = self.parallel.clip(self.trained.values(), self.config.gradient_clip)
        loss = self.parallel.sum(total.item()) / processes
        try:
            _check(loss, norm, self.losses, self.config.spike)
            rate = learning_rate(share, self.config)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        # 4. Move on.
        n_tokens = sum(batch.n_tokens for batch in batches)
        self.step, self.tokens, self.batch = self.step + 1, self.tokens + n_tokens, self._after(self.batch)
        self.losses = [*self.losses[1 - _REMEMBERED_LOSSES :], loss]
        took = time.perf_counter() - began
        return {
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "tokens_per_second": round(n_tokens / took),
            "mfu": round(n_tokens / took * self._flops_per_token / self.peak_flops, 4),
            "wait": round(waited / took, 5),
        }

    def evaluate(self) -> tuple[Evaluation | None, str | None]:
        """How well held-out data is predicted, where there is some, and a sample of what the model does."""
        self.model.eval()
        with torch.no_grad():
            with self._autocast():
                measured, whole = self.task.evaluate(self.model), self.parallel.gather(self.model)
            sample = None if whole is None else self.task.sample(whole)
        self.model.train()
        return measured, sample

    def tensors(self) -> dict[str, Tensor]:
        """The weights under training and what the optimizer keeps of each, to be saved, or filled from a checkpoint."""
        tensors = {f"model.{name}": value.detach() for name, value in self.trained.items()}
        for name, value in self.trained.items():
            tensors |= {f"optimizer.{name}.{key}": kept for key, kept in self.optimizer.state[value].items()}
        return tensors

    def state(self) -> dict[str, Any]:
        """All else that training goes on from."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "batch": self.batch,
            "skipped": self.skipped,
            "losses": self.losses,
            "elapsed": self.elapsed,
        }

    def restore(self, checkpoints: Checkpoints, checkpoint: Path) -> None:
        """Be as far as a checkpoint. Time runs on: what was done since then and is lost has been paid for."""
        state = checkpoints.read_state(checkpoint)
        if wrong := [name for name, now in self.state().items() if type(state.get(name)) is not type(now)]:
            raise InputError(f"{checkpoint / STATE}: {', '.join(wrong)} missing, or of another type; restart")
        checkpoints.load(checkpoint, self.tensors())
        self.step, self.tokens, self.losses = state["step"], state["tokens"], state["losses"]
        self.skipped = state["skipped"]
        self.batch = self._after(state["batch"] - 1)
        self._elapsed_before, self._began = max(self.elapsed, state["elapsed"]), time.monotonic()

    def _after(self, batch: int) -> int:
        """The number of the batch that follows, past those to be left out."""
        return next(number for number in itertools.count(batch + 1) if number not in self.skipped)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.parallel.device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16)


def _checkpoint_layers(model: Transformer) -> None:
    """Have each layer keep its input alone, and compute the rest again where gradients are made."""
    for layer in model.layers:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def _earlier_result(run: Path, settings: dict[str, Any]) -> TrainResult | None:
    """What an earlier call arrived at, if it did. Raises InputError where the run is another one."""
    path = run / RUN
    try:
        record = json.loads(path.read_bytes())
        result, before = record["result"] if record["finished"] else None, dict(record["settings"])
        finished = None if result is None else TrainResult(directory=run, already_finished=True, **result)
    except FileNotFoundError:
        if (run / CHECKPOINTS).exists():
            raise InputError(f"{path}: missing, and there are checkpoints; restart, or use another directory") from None
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); restart, or use another run directory") from None
    if changes := _changes(before, settings):
        raise InputError(
            f"{path}: made with other settings ({', '.join(changes)}); "
            "use those again, another run directory, or restart"
        )
    return finished


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    changes = []
    for part in sorted(before.keys() | now.keys()):
        old, new = before.get(part), now.get(part)
        if isinstance(old, dict) and isinstance(new, dict):
            names = sorted(old.keys() | new.keys())
            changes += [
                f"{name} {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)
            ]
        elif old != new:
            changes.append(f"the {part}")
    return changes


def _clear(run: Path) -> None:
    for name in (CHECKPOINTS, TENSORBOARD):
        shutil.rmtree(run / name, ignore_errors=True)
    for name in (RUN, METRICS, PLOT):
        (run / name).unlink(missing_ok=True)


def _bits_per_byte(measured: Evaluation) -> float | None:
    """None where what is measured is no text."""
    return measured.bits_per_byte if measured.bytes else None


def _summary(result: TrainResult) -> str:
    text = f"{result.steps} steps, {result.tokens:,} tokens in {result.seconds:.0f} s"
    text += f", training loss {result.train_loss:.3f}"
    if result.held_out_loss is not None:
        text += f", held-out loss {result.held_out_loss:.3f}"
    if result.bits_per_byte is not None:
        text += f" ({result.bits_per_byte:.3f} bits per byte)"
    return text

"""The training loop: steps of AdamW on whatever a task gives, in a run directory that can be gone on with.

The loop knows the optimizer, its schedule, checkpoints, signals and reports; a `Task` knows the data, the loss and the
model. A run directory holds `run.json` (its settings and, when finished, the result), `metrics.jsonl` (one JSON object
a line), `checkpoints/` (see `model.resume`), and when finished also `loss.png` and what the task leaves.
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
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bpe.errors import InputError
from bpe.files import replacing, write_json
from model.cpu import multiplies
from model.fused import fuse
from model.interrupts import SignalsBetweenSteps
from model.loss import Evaluation
from model.memory import keep_freed_memory
from model.parallel import Parallel
from model.report import MetricsLog, Progress, plot_loss, read_metrics
from model.resume import STATE, Checkpoints
from model.throughput import measured_peak
from model.transformer import Transformer

RUN, METRICS, CHECKPOINTS, PLOT, TENSORBOARD = "run.json", "metrics.jsonl", "checkpoints", "loss.png", "tensorboard"

# Settings that do not change what is learned.
_CHANGEABLE = ("checkpoint_every", "keep_checkpoints", "max_skipped", "sample_tokens", "tensorboard", "peak_flops")


class Batch(Protocol):
    """What goes through the model at a time: as much of a step as memory holds."""

    @property
    def n_tokens(self) -> int:
        """How many tokens the model reads."""

    @property
    def n_targets(self) -> int:
        """How many terms `Task.loss` sums, by whose number over the whole step the gradient is divided."""

    def part(self, number: int, parts: int) -> Batch:
        """One of so many parts, of equal shapes, which processes work on at the same time."""


class Task(Protocol):
    """What is trained, and on what. Its numbers follow from its settings alone, so that a run can be gone on with."""

    kind: str
    """A word for it: "pretraining"."""

    def settings(self) -> dict[str, Any]:
        """What must be equal for a run to be the same run, as JSON: a text for each part, or a dict of its numbers."""

    def model(self) -> Transformer:
        """The model that training begins with, on the CPU. What requires no gradient is neither trained nor saved.

        Raises InputError where data, model and settings do not fit each other."""

    def batch(self, number: int) -> Sequence[Any]:
        """A step's data, as `Batch`es whose gradients add up. It follows from the number alone, whatever was read
        before; numbers begin at 0 and have no end. It is called from another thread, ahead of its step."""

    def describe(self, number: int) -> str:
        """Where the data of a step comes from, for a person who wants to look at it."""

    def loss(self, model: Transformer, batch: Any) -> Tensor:
        """The sum of the losses of a batch's targets, in nats: a float32 scalar that has a gradient."""

    def evaluate(self, model: Transformer) -> Evaluation | None:
        """How good the model is on held-out data; None when nothing is held out."""

    def sample(self, model: Transformer) -> str | None:
        """A short text by the model, shown with each evaluation; None for none."""

    def save(self, directory: Path, model: Transformer) -> None:
        """Leave what was trained in the run directory."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Exactly one of `steps` and `minutes` is the budget; it also sets the pace of the learning rate.

    steps: so many optimizer steps. Runs of equal settings on one machine are equal bit for bit, interrupted or not.
    minutes: wall time, evaluations included and pauses between resumed runs left out. The learning rate follows the
        elapsed share, so how many steps are made, and with it the result, depends on the machine.
    batch_tokens: tokens in a step; a multiple of sequence_length, the tokens of one sequence.
    micro_batch_tokens: tokens that go through the model at a time, where memory does not hold a step; the gradients of
        the parts add up to those of the step. None for all at once.
    across_documents: whether tokens see those of documents that stand before their own in a sequence.
    learning_rate: the highest; reached linearly within the first `warmup` share of the budget.
    schedule: how it falls to a tenth. "cosine": along a cosine from then on. "wsd", for warm-up, stable, decay (Hu et
        al. 2024, arXiv:2404.06395): it stays, and falls linearly within the last `decay` share of the budget.
    weight_decay: of matrices (embeddings included); norms are not decayed. The default is ten times the usual, for
        text that is read many times: fifteen epochs of the demo ended at 1.94 bits per byte, with 0.3 at 1.99.
    gradient_clip: the highest norm of all gradients taken together.
    eval_every: steps between two evaluations on the held-out text, of which the first `eval_tokens` tokens are used.
    checkpoint_every: seconds between two checkpoints, of which the newest `keep_checkpoints` are kept.
    spike: how far above the last losses a loss may be, in multiples of their spread (see `_check`).
    max_skipped: how many batches may be skipped for a loss that is a spike, or no number.
    dtype: of the matrix products; weights, optimizer and loss are float32 throughout. "auto": bfloat16, but float32 on
        a CPU without instructions for it, where it would take several times as long.
    checkpoint_activations: keep of each layer its input alone, and compute the rest again for the gradients: a third
        more arithmetic, and a fraction of the memory (Chen et al. 2016, arXiv:1604.06174).
    compile: have torch.compile make kernels for the layers.
    sample_tokens: how many tokens the model writes at each evaluation, for one to see; 0 for none.
    tensorboard: write the curves for TensorBoard, too, into the directory of that name within the run's.
    peak_flops: floating-point operations a second that a device could do, of which the use is told (MFU); None to
        measure it with a few matrix products.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_tokens: int = 1024
    sequence_length: int = 256
    micro_batch_tokens: int | None = None
    across_documents: bool = False
    learning_rate: float = 2e-3
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup: float = 0.03
    decay: float = 0.2
    weight_decay: float = 1.0
    gradient_clip: float = 1.0
    seed: int = 0
    eval_every: int = 200
    eval_tokens: int = 1 << 17
    checkpoint_every: float = 60.0
    keep_checkpoints: int = 2
    spike: float = 10.0
    max_skipped: int = 3
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "cpu"
    checkpoint_activations: bool = False
    compile: bool = False
    sample_tokens: int = 48
    tensorboard: bool = False
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise InputError("give the budget as either steps or minutes, one of the two")
        for name in ("batch_tokens", "micro_batch_tokens"):
            if (getattr(self, name) or 0) % max(1, self.sequence_length):
                raise InputError(
                    f"{name} ({getattr(self, name)}) is not a multiple of sequence_length ({self.sequence_length})"
                )
        positive = ("steps", "minutes", "batch_tokens", "sequence_length", "micro_batch_tokens", "learning_rate",
                    "gradient_clip", "eval_every", "eval_tokens", "checkpoint_every", "keep_checkpoints",
                    "spike", "peak_flops")  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value}; it must be positive")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it is a share of the budget, from 0 to 1")
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise InputError(f"warmup ({self.warmup}) and decay ({self.decay}) are more than the whole budget together")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay is {self.weight_decay}; it cannot be negative")
        for name in ("seed", "max_skipped", "sample_tokens"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it cannot be negative")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise InputError(f"dtype is {self.dtype!r}; it is float32, bfloat16 or auto")
        if self.schedule not in ("cosine", "wsd"):
            raise InputError(f"schedule is {self.schedule!r}; it is cosine or wsd")


@dataclass(frozen=True)
class TrainResult:
    """What came out of a run.

    steps, tokens, seconds: how far it went. held_out_loss (nats per token) and bits_per_byte: how good it became; None
    when nothing is held out, and the latter when that is no text. already_finished: nothing was done, for an earlier
    call had finished the run.
    """

    directory: Path
    steps: int
    tokens: int
    seconds: float
    train_loss: float
    held_out_loss: float | None
    bits_per_byte: float | None
    already_finished: bool = False


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


class _Failure(Exception):
    """What is wrong with a step that must not be taken."""


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


def _resolved(dtype: str, device: torch.device) -> torch.dtype:
    """What matrix products are computed in."""
    if dtype == "auto":
        return torch.bfloat16 if device.type != "cpu" or multiplies(torch.bfloat16) else torch.float32
    resolved: torch.dtype = getattr(torch, dtype)
    return resolved


def _checkpoint_layers(model: Transformer) -> None:
    """Have each layer keep its input alone, and compute the rest again where gradients are made."""
    for layer in model.layers:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


_REMEMBERED_LOSSES = 100
_FEW_LOSSES = 20


def _check(loss: float, gradient_norm: float, before: Sequence[float], spike: float) -> None:
    """Raises _Failure for a step that would spoil the model, or comes from one that is spoilt.

    A loss is a spike when it exceeds the median of the last steps' by more than `spike` times their spread, which is
    the median distance from the median, scaled to be the standard deviation of normal numbers, and not taken below 2%
    of the median. Before there are enough of them, a loss 3 nats above the median is one: training begins at chance,
    and 3 nats worse is to be sure of the wrong tokens.
    """
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        raise _Failure(f"the loss is {loss} and the norm of the gradient {gradient_norm}")
    if not before:
        return
    median = statistics.median(before)
    spread = 1.4826 * statistics.median(abs(each - median) for each in before)
    allowed = 3.0 if len(before) < _FEW_LOSSES else spike * max(spread, 0.02 * median)
    if loss > median + allowed:
        raise _Failure(f"the loss is {loss:.3f}, and the median of the last {len(before)} steps {median:.3f}")


def learning_rate(share: float, config: TrainConfig) -> float:
    """The learning rate when `share` of the budget is used: a linear rise, then down to a tenth by the schedule.

    >>> config = TrainConfig(steps=1, learning_rate=1.0, warmup=0.2)
    >>> [round(learning_rate(share, config), 2) for share in (0.1, 0.2, 1)]
    [0.5, 1.0, 0.1]
    """
    if share < config.warmup:
        # The very first step is at share 0; a thousandth of the highest rate makes it count.
        return config.learning_rate * max(share / config.warmup, 1e-3)
    if config.schedule == "wsd":
        left = min(1.0, max(0.0, 1 - share) / config.decay) if config.decay else 1.0
        return config.learning_rate * (0.1 + 0.9 * left)
    rest = min(1.0, (share - config.warmup) / (1 - config.warmup)) if config.warmup < 1 else 1.0
    return config.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * rest)) / 2)


def _optimizer(parameters: Sequence[Tensor], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), with Llama's betas; only matrices decay."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = torch.device(config.device).type in ("cpu", "cuda", "mps", "xpu")
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=fused)
    for parameter in parameters:  # what the first step would make; a checkpoint is to have a place to go before it
        step = torch.zeros((), device=parameter.device if fused else "cpu")
        zeros = (torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2))
        optimizer.state[parameter] = dict(zip(("step", "exp_avg", "exp_avg_sq"), (step, *zeros), strict=True))
    return optimizer


def _decisive(config: TrainConfig) -> dict[str, Any]:
    """The settings that the result depends on; the others may change when a run is gone on with."""
    return {name: value for name, value in asdict(config).items() if name not in _CHANGEABLE}


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

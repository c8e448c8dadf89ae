"""The training loop: steps of AdamW on whatever a task gives, in a run directory that can be gone on with.

The loop knows the optimizer, its schedule, checkpoints, signals and reports; a `Task` knows the data, the loss and the
model. A run directory holds, while training, `run.json` (its settings), `metrics.jsonl` (one JSON object a line) and
`checkpoint/state.pt`; when finished also `loss.png` and what the task leaves, while the checkpoint is gone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol, TextIO

import torch
from torch import Tensor

from bpe.errors import InputError
from bpe.files import replacing, write_atomically, write_json
from model.loss import Evaluation
from model.memory import keep_freed_memory
from model.report import Progress, plot_loss, read_metrics
from model.transformer import Transformer

RUN, METRICS, STATE, PLOT = "run.json", "metrics.jsonl", "checkpoint/state.pt", "loss.png"


class Batch(Protocol):
    """What goes through the model at a time: as much of a step as memory holds."""

    @property
    def n_tokens(self) -> int:
        """How many tokens the model reads."""

    @property
    def n_targets(self) -> int:
        """How many terms `Task.loss` sums, by whose number over the whole step the gradient is divided."""


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
        before; numbers begin at 0 and have no end."""

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
    learning_rate: the highest; reached linearly within the first `warmup` share of the budget, then falling along a
        cosine to a tenth.
    weight_decay: of matrices (embeddings included); norms are not decayed. The default is ten times the usual, for
        text that is read many times: fifteen epochs of the demo ended at 1.94 bits per byte, with 0.3 at 1.99.
    gradient_clip: the highest norm of all gradients taken together.
    eval_every: steps between two evaluations on the held-out text, of which the first `eval_tokens` tokens are used.
    checkpoint_every: seconds between two checkpoints.
    dtype: of the matrix products; weights, optimizer and loss are float32 throughout.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_tokens: int = 1024
    sequence_length: int = 256
    learning_rate: float = 2e-3
    warmup: float = 0.03
    weight_decay: float = 1.0
    gradient_clip: float = 1.0
    seed: int = 0
    eval_every: int = 200
    eval_tokens: int = 1 << 17
    checkpoint_every: float = 60.0
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise InputError("give the budget as either steps or minutes, one of the two")
        if self.batch_tokens % max(1, self.sequence_length):
            raise InputError(
                f"batch_tokens ({self.batch_tokens}) is not a multiple of sequence_length ({self.sequence_length})"
            )
        positive = ("steps", "minutes", "batch_tokens", "sequence_length", "learning_rate", "gradient_clip",
                    "eval_every", "eval_tokens", "checkpoint_every")  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value}; it must be positive")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup is {self.warmup}; it is a share of the budget, from 0 to 1")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay is {self.weight_decay}; it cannot be negative")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; it cannot be negative")
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(f"dtype is {self.dtype!r}; it is float32 or bfloat16")


@dataclass(frozen=True)
class TrainResult:
    """What came out of a run.

    steps, tokens, seconds: how far it went. held_out_loss (nats per token) and bits_per_byte: how good it became; None
    when nothing is held out. already_finished: nothing was done, for an earlier call had finished the run.
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
) -> TrainResult:
    """Train what the task says; the run directory is left with what the task saves, metrics and a plot.

    Called again with the same settings, it goes on where an interrupted run stopped, and says so when the run is
    finished. Other settings are refused, naming what differs; `restart` throws the earlier run away instead.

    An interrupt (Ctrl-C) or SIGTERM ends the step under way, saves, and then takes effect: KeyboardInterrupt is raised.
    A second one takes effect at once. Progress is told on `progress`, by default stderr.

    Raises InputError for data and settings that do not fit, and when the loss stops being a number.
    """
    run, show = Path(run), Progress(sys.stderr if progress is None else progress)

    # 1. Look at what is there: a finished run, an interrupted one, or none.
    settings = {"kind": task.kind, **task.settings(), "train": asdict(config)}
    if restart:
        _clear(run)
    if result := _finished(run, settings):
        show.say(f"{run}: finished already, {_summary(result)}; nothing was done (restart to train it again)")
        return result
    state = _read_state(run / STATE, settings)

    # 2. Build the model and its optimizer, and take up where the checkpoint stopped.
    training = _Training(task, config)
    if state is not None:
        training.restore(state)
        show.say(f"{run}: going on after step {training.step}")
        del state
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / RUN, {"finished": False, "settings": settings})

    def evaluation() -> Evaluation | None:
        measured, sample = training.evaluate()
        if measured is not None:
            log.write("evaluation", training, loss=measured.loss, bits_per_byte=measured.bits_per_byte)
            show.evaluation(training.step, measured.loss, measured.bits_per_byte, training.elapsed)
        if sample is not None:
            log.write("sample", training, text=sample)
            show.sample(sample)
        return measured

    def save() -> None:
        state = training.state() | {"settings": json.dumps(settings)}
        (run / STATE).parent.mkdir(exist_ok=True)
        with replacing(run / STATE) as path:
            torch.save(state, path)

    signals = _SignalsBetweenSteps()
    with contextlib.closing(_Log(run / METRICS, training.step)) as log, signals:
        if training.step == 0:
            evaluation()
        saved = time.monotonic()
        while (share := training.share()) < 1:
            # 3. Make one step.
            measured = training.make_step(share)
            # 4. Tell of it; every so often, look at the held-out data.
            log.write("step", training, **measured)
            show.step(share, training.loss, measured["tokens_per_second"], training.seconds_left())
            if training.step % config.eval_every == 0 and training.share() < 1:
                evaluation()
            # 5. Every so often, and when told to stop, save.
            if signals.received or time.monotonic() - saved >= config.checkpoint_every:
                save()
                saved = time.monotonic()
            if signals.received:
                show.say(f"{run}: interrupted, and saved after step {training.step}; the same call goes on from there")
                signals.take_effect()

        # 6. Measure once more; leave what was trained, the plot and the verdict. Then the checkpoint has served.
        last = evaluation()
        task.save(run, training.model)
        records = read_metrics(run / METRICS)
        n_parameters = sum(parameter.numel() for parameter in training.parameters)
        with replacing(run / PLOT) as path:
            plot_loss(records, path, f"{task.kind} of {n_parameters / 1e6:.1f} million parameters")
        result = TrainResult(
            directory=run,
            steps=training.step,
            tokens=training.tokens,
            seconds=round(training.elapsed, 3),
            train_loss=training.loss,
            held_out_loss=None if last is None else last.loss,
            bits_per_byte=None if last is None else last.bits_per_byte,
        )
        outcome = {key: value for key, value in asdict(result).items() if key not in ("directory", "already_finished")}
        write_json(run / RUN, {"finished": True, "result": outcome, "settings": settings})
        shutil.rmtree((run / STATE).parent, ignore_errors=True)
    show.say(f"{run}: finished, {_summary(result)}")
    return result


class _Training:
    """The model under training and its optimizer, and how far they are."""

    def __init__(self, task: Task, config: TrainConfig) -> None:
        self.task, self.config = task, config
        if torch.device(config.device).type == "cpu":
            keep_freed_memory()
        self.model = task.model().to(config.device)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(self.parameters, config)
        self.step, self.tokens, self.loss = 0, 0, math.nan
        self._elapsed_before, self._began = 0.0, time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of this run and of those it goes on from."""
        return self._elapsed_before + time.monotonic() - self._began

    def share(self) -> float:
        """How much of the budget is used; 1 or more when it is spent."""
        if self.config.minutes is not None:
            return self.elapsed / (60 * self.config.minutes)
        assert self.config.steps is not None  # TrainConfig has exactly one of the two
        return self.step / self.config.steps

    def seconds_left(self) -> float:
        """An estimate, from the pace so far."""
        share = self.share()
        return self.elapsed * (1 - share) / share if share else math.inf

    def make_step(self, share: float) -> dict[str, float]:
        """One step of the optimizer; returns what metrics.jsonl says of it."""
        began = time.perf_counter()
        # 1. Read the step's data.
        batches = self.task.batch(self.step)
        n_targets = sum(batch.n_targets for batch in batches)
        # 2. Forward and backward: the gradients of the parts add up to that of the mean over the whole.
        loss = torch.zeros((), device=self.config.device)
        for batch in batches:
            with self._autocast():
                part = self.task.loss(self.model, batch) / max(1, n_targets)
            part.backward()
            loss += part.detach()
        # 3. Update the weights, unless something has gone wrong.
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip).item()
        self.loss = loss.item()
        if not (math.isfinite(self.loss) and math.isfinite(norm)):
            raise InputError(
                f"the loss is {self.loss} and the gradient {norm} at step {self.step} "
                f"({self.task.describe(self.step)}); try a learning_rate below {self.config.learning_rate}"
            )
        rate = learning_rate(share, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        n_tokens = sum(batch.n_tokens for batch in batches)
        self.step, self.tokens = self.step + 1, self.tokens + n_tokens
        speed = round(n_tokens / (time.perf_counter() - began))
        return {"loss": self.loss, "learning_rate": rate, "gradient_norm": norm, "tokens_per_second": speed}

    def evaluate(self) -> tuple[Evaluation | None, str | None]:
        """How well held-out data is predicted, where there is some, and a sample of what the model does."""
        self.model.eval()
        with torch.no_grad(), self._autocast():
            measured = self.task.evaluate(self.model), self.task.sample(self.model)
        self.model.train()
        return measured

    def state(self) -> dict[str, Any]:
        """All that training goes on from. Data follows from the seed and the step, so there is no random state."""
        return {
            "model": {name: value for name, value in self.model.named_parameters() if value.requires_grad},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "tokens": self.tokens,
            "loss": self.loss,
            "elapsed": self.elapsed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.tokens, self.loss = state["step"], state["tokens"], state["loss"]
        self._elapsed_before = state["elapsed"]

    def _autocast(self) -> torch.autocast:
        device_type = torch.device(self.config.device).type
        return torch.autocast(device_type, torch.bfloat16, enabled=self.config.dtype == "bfloat16")


def learning_rate(share: float, config: TrainConfig) -> float:
    """The learning rate when `share` of the budget is used: a linear rise, then a cosine down to a tenth.

    >>> [round(learning_rate(share, TrainConfig(steps=1, learning_rate=1.0, warmup=0.2)), 2) for share in (0.1, 0.2, 1)]
    [0.5, 1.0, 0.1]
    """
    if share < config.warmup:
        # The very first step is at share 0; a thousandth of the highest rate makes it count.
        return config.learning_rate * max(share / config.warmup, 1e-3)
    rest = min(1.0, (share - config.warmup) / (1 - config.warmup)) if config.warmup < 1 else 1.0
    return config.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * rest)) / 2)


def _optimizer(parameters: Sequence[Tensor], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), with Llama's betas; only matrices decay."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = torch.device(config.device).type in ("cpu", "cuda", "mps", "xpu")
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=fused)


def _refuse_other_settings(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
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
    if changes:
        raise InputError(
            f"{path}: made with other settings ({', '.join(changes)}); "
            "use those again, another run directory, or restart"
        )


def _finished(run: Path, settings: dict[str, Any]) -> TrainResult | None:
    path = run / RUN
    try:
        record = json.loads(path.read_bytes())
        if not record["finished"]:
            return None
        result = TrainResult(directory=run, already_finished=True, **record["result"])
        before = record["settings"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); restart, or use another run directory") from None
    _refuse_other_settings(path, before, settings)
    return result


def _read_state(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        before = json.loads(state["settings"])
        missing = {"model", "optimizer", "step", "tokens", "loss", "elapsed"} - state.keys()
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: not a checkpoint of this program ({error}); restart") from None
    if missing:
        raise InputError(f"{path}: without {', '.join(sorted(missing))}; restart")
    _refuse_other_settings(path, before, settings)
    return state


def _clear(run: Path) -> None:
    shutil.rmtree((run / STATE).parent, ignore_errors=True)
    for name in (RUN, METRICS, PLOT):
        (run / name).unlink(missing_ok=True)


def _summary(result: TrainResult) -> str:
    text = f"{result.steps} steps, {result.tokens:,} tokens in {result.seconds:.0f} s"
    text += f", training loss {result.train_loss:.3f}"
    if result.held_out_loss is not None:
        text += f", held-out loss {result.held_out_loss:.3f} ({result.bits_per_byte:.3f} bits per byte)"
    return text


class _Log:
    """metrics.jsonl, flushed at each line. What an interrupted run wrote after its last checkpoint is dropped."""

    def __init__(self, path: Path, step: int) -> None:
        kept = [record for record in read_metrics(path) if record["step"] <= step] if step else []
        text = "".join(json.dumps(record) + "\n" for record in kept)
        with write_atomically(path) as file:
            file.write(text.encode())
        self._file = path.open("a", encoding="utf-8")

    def close(self) -> None:
        self._file.close()

    def write(self, kind: str, training: _Training, **values: float | str) -> None:
        place = {"kind": kind, "step": training.step, "tokens": training.tokens, "seconds": round(training.elapsed, 3)}
        self._file.write(json.dumps(place | values) + "\n")
        self._file.flush()


class _SignalsBetweenSteps:
    """Holds SIGINT and SIGTERM back until a step is whole and saved; a second one takes effect at once.

    Without it, an interrupt in the middle of an update would leave weights that are neither before nor after the step.
    Only the main thread may handle signals; elsewhere this does nothing, and none arrive there.
    """

    _held = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hold) for number in self._held}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _hold(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self.__exit__()

    def take_effect(self) -> None:
        """Let the signal do what it would have done."""
        if self.received is not None:
            signal.raise_signal(self.received)

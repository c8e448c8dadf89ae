"""Pretraining: token shards in, a model directory out.

A run directory holds, while training, `run.json` (its settings), `metrics.jsonl` (one JSON object a line) and
`checkpoint/state.pt`; when finished also `model.safetensors`, `params.json` and the tokenizer, which make it a model
directory, and `loss.png`, while the checkpoint is gone.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TextIO

import numpy as np
import torch
from torch import Tensor

from bpe.errors import InputError
from bpe.files import replacing, write_atomically, write_json
from bpe.shards import HELD_OUT, TRAIN, Ids, Shards
from model.checkpoint import save as save_model
from model.config import ModelConfig
from model.loss import IGNORED, Evaluation, cross_entropy_sum, evaluate
from model.memory import keep_freed_memory
from model.report import Progress, plot_loss, read_metrics
from model.transformer import Transformer

RUN, METRICS, STATE, PLOT = "run.json", "metrics.jsonl", "checkpoint/state.pt", "loss.png"


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


def pretrain(
    data: str | os.PathLike[str],
    run: str | os.PathLike[str],
    config: ModelConfig,
    train: TrainConfig,
    *,
    restart: bool = False,
    progress: TextIO | None = None,
) -> TrainResult:
    """Train a new model of the given shape on a shard directory; the model is left in the run directory.

    Called again with the same settings, it goes on where an interrupted run stopped, and says so when the run is
    finished. Other settings are refused, naming what differs; `restart` throws the earlier run away instead.

    An interrupt (Ctrl-C) or SIGTERM ends the step under way, saves, and then takes effect: KeyboardInterrupt is raised.
    A second one takes effect at once. Progress is told on `progress`, by default stderr.

    Raises InputError for data and settings that do not fit, and when the loss stops being a number.
    """
    run, show = Path(run), Progress(sys.stderr if progress is None else progress)

    # 1. Look at what is there: a finished run, an interrupted one, or none.
    shards = Shards(data)
    settings = _settings(shards, config, train)
    if restart:
        _clear(run)
    if result := _finished(run, settings):
        show.say(f"{run}: finished already, {_summary(result)}; nothing was done (restart to train it again)")
        return result
    state = _read_state(run / STATE, settings)

    # 2. Build the model, its optimizer and its batches, and take up where the checkpoint stopped.
    shards.check()
    training = _Training(shards, config, train)
    if state is not None:
        training.restore(state)
        show.say(f"{run}: going on after step {training.step}")
        del state
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / RUN, {"finished": False, "settings": settings})

    def evaluation() -> Evaluation | None:
        if (measured := training.evaluate()) is not None:
            log.write("evaluation", training, loss=measured.loss, bits_per_byte=measured.bits_per_byte)
            show.evaluation(training.step, measured.loss, measured.bits_per_byte, training.elapsed)
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
            # 4. Tell of it; every so often, look at the held-out text.
            log.write("step", training, **measured)
            show.step(share, training.loss, measured["tokens_per_second"], training.seconds_left())
            if training.step % train.eval_every == 0 and training.share() < 1:
                evaluation()
            # 5. Every so often, and when told to stop, save.
            if signals.received or time.monotonic() - saved >= train.checkpoint_every:
                save()
                saved = time.monotonic()
            if signals.received:
                show.say(f"{run}: interrupted, and saved after step {training.step}; the same call goes on from there")
                signals.take_effect()

        # 6. Measure once more; leave the model, the plot and the verdict. Then the checkpoint has served.
        last = evaluation()
        save_model(run, training.model, shards.tokenizer_path)
        title = f"{config.n_parameters / 1e6:.1f}M parameters, {shards.token_count(TRAIN):,} training tokens"
        records = read_metrics(run / METRICS)
        with replacing(run / PLOT) as path:
            plot_loss(records, path, title)
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
    """The model under training, its optimizer and batches, and how far they are."""

    def __init__(self, shards: Shards, config: ModelConfig, train: TrainConfig) -> None:
        if train.sequence_length > config.max_seq_len:
            raise InputError(
                f"sequence_length is {train.sequence_length}, and the context of the model holds {config.max_seq_len}"
            )
        if shards.n_vocab > config.vocab_size:
            raise InputError(
                f"{shards.directory}: ids below {shards.n_vocab}, and the model has {config.vocab_size} tokens; "
                f"set vocab_size to {shards.n_vocab}"
            )
        self.train = train
        if torch.device(train.device).type == "cpu":
            keep_freed_memory()
        self.model = Transformer(config)
        self.model.init_weights(torch.Generator().manual_seed(train.seed))
        self.model.to(train.device)
        self.optimizer = _optimizer(self.model, train)
        sequences = train.batch_tokens // train.sequence_length
        self.batches = Batches(shards.tokens(TRAIN), train.sequence_length, sequences, train.seed)
        self.held_out = _held_out_batches(shards, train)
        self.token_bytes = torch.from_numpy(shards.token_bytes.astype(np.int64)).to(train.device)
        self.step, self.loss = 0, math.nan
        self._elapsed_before, self._began = 0.0, time.monotonic()

    @property
    def tokens(self) -> int:
        return self.step * self.train.batch_tokens

    @property
    def elapsed(self) -> float:
        """Seconds of this run and of those it goes on from."""
        return self._elapsed_before + time.monotonic() - self._began

    def share(self) -> float:
        """How much of the budget is used; 1 or more when it is spent."""
        if self.train.minutes is not None:
            return self.elapsed / (60 * self.train.minutes)
        assert self.train.steps is not None  # TrainConfig has exactly one of the two
        return self.step / self.train.steps

    def seconds_left(self) -> float:
        """An estimate, from the pace so far."""
        share = self.share()
        return self.elapsed * (1 - share) / share if share else math.inf

    def make_step(self, share: float) -> dict[str, float]:
        """One step of the optimizer; returns what metrics.jsonl says of it."""
        began = time.perf_counter()
        # 1. Read a batch: the tokens, and for each the one that follows it.
        window = self.batches[self.step].to(self.train.device)
        inputs, targets = window[:, :-1], window[:, 1:]
        # 2. Forward and backward.
        with self._autocast():
            loss = cross_entropy_sum(self.model, self.model.hidden(inputs), targets) / targets.numel()
        loss.backward()  # type: ignore[no-untyped-call]
        # 3. Update the weights, unless something has gone wrong.
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.gradient_clip).item()
        self.loss = loss.item()
        if not (math.isfinite(self.loss) and math.isfinite(norm)):
            raise InputError(
                f"the loss is {self.loss} and the gradient {norm} at step {self.step}; "
                f"try a learning_rate below {self.train.learning_rate}"
            )
        rate = learning_rate(share, self.train)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        speed = round(self.train.batch_tokens / (time.perf_counter() - began))
        return {"loss": self.loss, "learning_rate": rate, "gradient_norm": norm, "tokens_per_second": speed}

    def evaluate(self) -> Evaluation | None:
        """How well the held-out text is predicted; None when nothing is held out."""
        if not self.held_out:
            return None
        with self._autocast():
            return evaluate(self.model, self.held_out, self.token_bytes)

    def state(self) -> dict[str, Any]:
        """All that training goes on from. Batches follow from the seed and the step, so there is no random state."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "loss": self.loss,
            "elapsed": self.elapsed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.loss, self._elapsed_before = state["step"], state["loss"], state["elapsed"]

    def _autocast(self) -> torch.autocast:
        device_type = torch.device(self.train.device).type
        return torch.autocast(device_type, torch.bfloat16, enabled=self.train.dtype == "bfloat16")


def learning_rate(share: float, train: TrainConfig) -> float:
    """The learning rate when `share` of the budget is used: a linear rise, then a cosine down to a tenth.

    >>> [round(learning_rate(share, TrainConfig(steps=1, learning_rate=1.0, warmup=0.2)), 2) for share in (0.1, 0.2, 1)]
    [0.5, 1.0, 0.1]
    """
    if share < train.warmup:
        # The very first step is at share 0; a thousandth of the highest rate makes it count.
        return train.learning_rate * max(share / train.warmup, 1e-3)
    rest = min(1.0, (share - train.warmup) / (1 - train.warmup)) if train.warmup < 1 else 1.0
    return train.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * rest)) / 2)


class Batches:
    """Training windows in random order: `batches[step]` is ids [sequences, sequence_length + 1], int64.

    In every epoch each token is read once, give or take a window: each shard is closed to a ring, cut into windows from
    a random place on, and all windows are shuffled. A batch follows from `seed` and `step` alone, so a resumed run
    needs no random state. Windows cross from one document into the next; the token that ends a document is all that
    tells the model.
    """

    def __init__(self, shards: list[Ids], sequence_length: int, sequences: int, seed: int) -> None:
        self._shards = [ids for ids in shards if len(ids)]
        if sum(map(len, self._shards)) < 2:
            raise InputError("there are fewer than two tokens to train on")
        self._length, self._sequences, self._seed = sequence_length, sequences, seed
        self._windows = [max(1, len(ids) // sequence_length) for ids in self._shards]
        self._first = np.cumsum([0, *self._windows])
        self._epochs: dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}

    def __getitem__(self, step: int) -> Tensor:
        total = int(self._first[-1])
        windows = []
        for number in range(step * self._sequences, (step + 1) * self._sequences):
            order, offsets = self._epoch(number // total)
            window = int(order[number % total])
            shard = int(np.searchsorted(self._first, window, side="right")) - 1
            start = int(offsets[shard]) + (window - int(self._first[shard])) * self._length
            places = np.arange(start, start + self._length + 1) % len(self._shards[shard])
            windows.append(self._shards[shard][places].astype(np.int64))
        return torch.from_numpy(np.stack(windows))

    def _epoch(self, epoch: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        if epoch not in self._epochs:
            random = np.random.default_rng((self._seed, epoch))
            offsets = random.integers([len(ids) for ids in self._shards])
            self._epochs = {e: drawn for e, drawn in self._epochs.items() if e == epoch - 1}  # a batch may span two
            self._epochs[epoch] = (random.permutation(int(self._first[-1])), offsets)
        return self._epochs[epoch]


def _held_out_batches(shards: Shards, train: TrainConfig) -> list[tuple[Tensor, Tensor]]:
    """The held-out text in windows one after the other, so that each token but a shard's first is predicted once."""
    left, windows = train.eval_tokens, []
    for ids in shards.tokens(HELD_OUT):
        for start in range(0, min(len(ids) - 1, left), train.sequence_length):
            end = min(start + train.sequence_length, len(ids) - 1, start + left)
            window = np.full((2, train.sequence_length), 0, np.int64)
            window[1] = IGNORED
            window[0, : end - start], window[1, : end - start] = ids[start:end], ids[start + 1 : end + 1]
            windows.append(torch.from_numpy(window))
            left -= end - start
    sequences = train.batch_tokens // train.sequence_length
    batches = (torch.stack(windows[i : i + sequences], dim=1) for i in range(0, len(windows), sequences))
    return [(pair[0].to(train.device), pair[1].to(train.device)) for pair in batches]


def _optimizer(model: Transformer, train: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), with Llama's betas; only matrices decay."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    fused = torch.device(train.device).type in ("cpu", "cuda", "mps", "xpu")
    return torch.optim.AdamW(groups, lr=train.learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=fused)


def _settings(shards: Shards, config: ModelConfig, train: TrainConfig) -> dict[str, Any]:
    """What must be equal for a run to be the same run."""
    return {"data": shards.fingerprint, "model": config.to_params(), "train": asdict(train)}


def _refuse_other_settings(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changes = []
    if before.get("data") != now["data"]:
        changes.append("the data")
    for part in ("model", "train"):
        old, new = before.get(part, {}), now[part]
        names = sorted(old.keys() | new.keys())
        changes += [f"{name} {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]
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
        missing = {"model", "optimizer", "step", "loss", "elapsed"} - state.keys()
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

    def write(self, kind: str, training: _Training, **numbers: float) -> None:
        place = {"kind": kind, "step": training.step, "tokens": training.tokens, "seconds": round(training.elapsed, 3)}
        self._file.write(json.dumps(place | numbers) + "\n")
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

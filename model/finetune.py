"""Fine-tuning: a model learns from dialogs what an assistant says, or from preferences which answer is better.

A finished run directory holds, beside what every run leaves (see `model.train`), a model directory, or the adapter that
was learned beside the model's own weights (see `model.lora`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bpe.chat import ChatFormat, chat_format
from bpe.errors import InputError
from bpe.locate import locate
from model.checkpoint import WRITTEN, format_of, open_checkpoint
from model.checkpoint.adapter import CONFIG as ADAPTER
from model.checkpoint.adapter import write_adapter
from model.checkpoint.assemble import assemble, fingerprint
from model.checkpoint.companions import read_tokenizer
from model.checkpoint.huggingface import CONFIG, config_json
from model.checkpoint.native import PARAMS
from model.dialogs import (
    Dialog,
    Pair,
    PathLike,
    Rows,
    batch_of,
    in_rows,
    read_dialogs,
    read_pairs,
    texts_of,
)
from model.dialogs import fingerprint as fingerprint_of
from model.generate import generate_ids
from model.lora import LoraConfig, adapter_of, add_lora, merge_lora
from model.loss import CHUNK_LOGITS, IGNORED, Batch, Evaluation, cross_entropy_sum
from model.parallel import Parallel
from model.report import Progress
from model.train import TrainConfig, TrainResult, train
from model.transformer import Transformer

# What is learned is little, and near zero a loss jumps by large factors: only what is no number is a failure.
_DEFAULTS: dict[str, Any] = {"weight_decay": 0.0, "dtype": "float32", "eval_every": 100, "spike": 1e9}
LEARNING_RATE = 2e-5
_LONGEST = 1024


@dataclass(frozen=True)
class FinetuneConfig:
    """What is learned, and from what.

    lora: the matrices that are learned beside the model's own; None to train all of the model.
    merge: leave a model with what was learned added to it, in place of the adapter alone.
    beta: for preferences, how dear it is to move away from the model as it was (Rafailov et al. 2023,
        arXiv:2305.18290); None where the data are dialogs.
    packed: several dialogs share a row; otherwise each has one, with padding. The loss is the same.
    held_out: the share of the examples that is not trained on; or a file, or several, with others.
    epochs: how often each example is read, where TrainConfig says neither steps nor minutes.
    """

    lora: LoraConfig | None = None
    merge: bool = False
    beta: float | None = None
    packed: bool = True
    held_out: float | Sequence[PathLike] = 0.1
    epochs: float = 3.0

    def __post_init__(self) -> None:
        if self.merge and self.lora is None:
            raise InputError("merge adds what LoRA has learned to the model; give lora, too")
        if self.beta is not None and not (math.isfinite(self.beta) and self.beta > 0):
            raise InputError(f"beta is {self.beta}; it must be positive")
        if isinstance(self.held_out, (int, float)) and not 0 <= self.held_out < 1:
            raise InputError(f"held_out is {self.held_out}; it is a share, from 0 to below 1")
        if not (math.isfinite(self.epochs) and self.epochs > 0):
            raise InputError(f"epochs is {self.epochs}; it must be positive")


def finetune(
    model: PathLike,
    data: Sequence[PathLike],
    run: PathLike,
    config: FinetuneConfig | None = None,
    *,
    restart: bool = False,
    progress: TextIO | None = None,
    parallel: Parallel | None = None,
    **settings: Any,
) -> TrainResult:
    """Go on training a model, on files of dialogs (see `read_dialogs`), or with `beta` of preferences (`read_pairs`).

    model: what `load` takes. It is computed with in float32, or bfloat16 for the products, and is not changed.
    run: the directory for the result. An interrupted run goes on there, see `model.train.train`.
    parallel: the processes that train together, entered; see there, too.
    settings: fields of `TrainConfig`. Here, sequence_length is the most that is read of an example, whose rest is cut
        off (by default the model's context, 1,024 at the most); batch_tokens, by default the same, are what the rows of
        a step hold; of what is held out, whole examples up to eval_tokens are used; learning_rate is by default 2e-5,
        with LoRA ten times that, for preferences a tenth.

    Raises InputError for data, model and settings that do not fit, before anything is written.
    """
    config = config or FinetuneConfig()
    base = _Base(model, Path(run), config)
    context = base.checkpoint.config.max_seq_len
    length = settings.get("sequence_length", min(context, _LONGEST))
    if length > context:
        raise InputError(f"sequence_length is {length}, and the context of the model holds {context}")
    factor = (1.0 if config.lora is None else 10.0) * (1.0 if config.beta is None else 0.1)
    defaults = {"sequence_length": length, "batch_tokens": length, "learning_rate": LEARNING_RATE * factor}
    by_epochs = settings.get("steps") is None and settings.get("minutes") is None
    given = TrainConfig(**{**_DEFAULTS, **defaults, **settings, **({"steps": 1} if by_epochs else {})})
    kind = Supervised if config.beta is None else Preferences
    task: Supervised | Preferences = kind(base, data, given)
    if parallel is None or parallel.is_main:
        show = Progress(sys.stderr if progress is None else progress)
        for line in task.told:
            show.say(line)
    if by_epochs:
        given = dataclasses.replace(given, steps=task.steps(config.epochs))
    return train(task, run, given, restart=restart, progress=progress, parallel=parallel)


class _Base:
    """The model that fine-tuning begins with, and the form in which what becomes of it is left."""

    def __init__(self, name: PathLike, run: Path, config: FinetuneConfig) -> None:
        self.name, self.config = os.fspath(name), config
        path = locate(self.name)
        self.checkpoint = open_checkpoint(path)
        self.tokenizer = read_tokenizer(self.checkpoint)
        self.chat_format = chat_format(self.checkpoint.tokenizer, self.tokenizer)
        directory = path if path.is_dir() else path.parent
        if run.exists() and run.resolve() == directory.resolve():
            raise InputError(f"{run}: the model is there that is to be fine-tuned; give the run another directory")
        found = format_of(path)
        self.format = "native" if found == "native" else "huggingface"
        if self.keeps_adapter and found == "adapter":
            raise InputError(f"{path}: an adapter cannot have another on top; merge the new one, or this (bpe convert)")
        if not self.keeps_adapter and self.format == "huggingface":
            config_json(self.checkpoint.config, torch.float32)  # what it has no place for is said now

    @property
    def keeps_adapter(self) -> bool:
        """Whether an adapter is left, and no model."""
        return self.config.lora is not None and not self.config.merge

    def model(self, seed: int) -> Transformer:
        """The model, ready to learn."""
        model = assemble(self.checkpoint, torch.float32, torch.device("cpu"))
        if self.config.lora is not None:
            add_lora(model, self.config.lora, torch.Generator().manual_seed(seed))
        return model

    @functools.cached_property
    def fingerprint(self) -> str:
        """What tells the weights from others."""
        return fingerprint(self.checkpoint)

    def save(self, directory: Path, model: Transformer) -> None:
        """Leave what was learned, and nothing that would make an earlier result of it."""
        for name in (ADAPTER, PARAMS, CONFIG):
            (directory / name).unlink(missing_ok=True)
        if self.config.lora is not None and self.keeps_adapter:
            write_adapter(directory, self.checkpoint, self.name, self.config.lora, adapter_of(model), self.fingerprint)
            return
        merge_lora(model)
        weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        learned = dataclasses.replace(
            self.checkpoint,
            dtype=torch.float32,
            source=directory,
            tensors=lambda dtype: weights.items(),
            name_of=str,
            stored="",
            kinds={},
            rows=None,
        )
        WRITTEN[self.format].write(learned, directory)


Example = TypeVar("Example", bound=Dialog | Pair)


class _Examples(Generic[Example]):
    """What is learned from: examples in rows, of which a step takes some, and others that are held out."""

    def __init__(self, base: _Base, train: list[Example], held_out: list[Example], settings: TrainConfig) -> None:
        length = settings.sequence_length
        ends = np.cumsum([len(example) for example in held_out])
        held_out = held_out[: 1 + int(np.searchsorted(ends, settings.eval_tokens))]
        self.base, self.train, self.held_out, self.seed = base, train, held_out, settings.seed
        self._rows = Rows([len(example) for example in train], length, settings.seed)
        self._rows_of_a_step = settings.batch_tokens // length
        rows = in_rows(range(len(held_out)), [len(example) for example in held_out], length)
        self._rows_at_a_time = (settings.micro_batch_tokens or settings.batch_tokens) // length
        self.held_out_rows = self._parts(rows)
        self._weights = base.fingerprint[:16]
        self.told = [f"{self._counted(train)} to train on; {self._counted(held_out)} held out"]
        if cut := [example.place for example in (*train, *held_out) if not example.whole]:
            more = f" and {len(cut) - 1} more" if len(cut) > 1 else ""
            self.told.append(f"{cut[0]}{more}: longer than {length} tokens (sequence_length); the rest is not read")

    @staticmethod
    def _counted(examples: Sequence[Dialog | Pair]) -> str:
        learned: int = sum(sum(text.written[1:]) for example in examples for text in example.texts)
        return f"{len(examples):,} examples, {sum(map(len, examples)):,} tokens ({learned:,} learned)"

    def steps(self, epochs: float) -> int:
        """How many steps read every example so often."""
        return max(1, math.ceil(self._rows.count(epochs) / self._rows_of_a_step))

    def rows(self, number: int) -> list[list[list[int]]]:
        """The indices of the examples of a step, in rows, as many of these together as the model reads at a time."""
        first = number * self._rows_of_a_step
        return self._parts([self._rows[row] for row in range(first, first + self._rows_of_a_step)])

    def _parts(self, rows: list[list[int]]) -> list[list[list[int]]]:
        return [rows[begin : begin + self._rows_at_a_time] for begin in range(0, len(rows), self._rows_at_a_time)]

    def describe(self, number: int) -> str:
        return ", ".join(self.train[index].place for rows in self.rows(number) for row in rows for index in row)

    def settings(self) -> dict[str, Any]:
        config = self.base.config
        return {
            "data": f"{fingerprint_of(self.train)} {fingerprint_of(self.held_out)}",
            "weights": self._weights,
            "model": self.base.checkpoint.config.to_params(),
            "lora": {} if config.lora is None else {**asdict(config.lora), "targets": [*config.lora.targets]},
            "finetune": {"merge": config.merge, "beta": config.beta, "packed": config.packed},
        }

    def save(self, directory: Path, model: Transformer) -> None:
        self.base.save(directory, model)


def _read(
    read: Callable[[Iterable[PathLike], ChatFormat, int], list[Example]],
    base: _Base,
    data: Sequence[PathLike],
    settings: TrainConfig,
) -> tuple[list[Example], list[Example]]:
    """The examples to train on, and those that are held out: from other files, or drawn at random."""
    held_out = base.config.held_out
    examples = read(data, base.chat_format, settings.sequence_length)
    if not isinstance(held_out, (int, float)):
        return examples, read(held_out, base.chat_format, settings.sequence_length)
    count = min(len(examples) - 1, max(1, round(held_out * len(examples)))) if held_out > 0 and examples else 0
    drawn = {*np.random.default_rng((settings.seed, 1)).permutation(len(examples))[:count].tolist()}
    kept = [example for index, example in enumerate(examples) if index not in drawn]
    return kept, [example for index, example in enumerate(examples) if index in drawn]


class Supervised(_Examples[Dialog]):
    """The model learns what the assistant says in dialogs, and when it ends its turn."""

    kind = "fine-tuning"

    def __init__(self, base: _Base, data: Sequence[PathLike], settings: TrainConfig) -> None:
        train, held_out = _read(read_dialogs, base, data, settings)
        super().__init__(base, train, held_out, settings)
        tokenizer = base.tokenizer
        self._held_out_bytes = sum(
            len(tokenizer.decode_single_token_bytes(id))
            for dialog in self.held_out
            for id, written in zip(dialog.ids[1:], dialog.written[1:], strict=True)
            if written and not tokenizer.is_special_token(id)
        )
        self._exact = 0

    def model(self) -> Transformer:
        return self.base.model(self.seed)

    def batch(self, number: int) -> list[Batch]:
        return [self._batch(self.train, rows) for rows in self.rows(number)]

    def _batch(self, dialogs: list[Dialog], rows: list[list[int]]) -> Batch:
        return batch_of([[dialogs[index] for index in row] for row in rows], self.base.config.packed)

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        learned = (batch.targets != IGNORED).to(model.device)
        return cross_entropy_sum(model, _hidden(model, batch)[learned], batch.targets.to(model.device)[learned])

    def evaluate(self, model: Transformer) -> Evaluation | None:
        if not self.held_out:
            return None
        nats, tokens, self._exact = 0.0, 0, 0
        for rows in self.held_out_rows:
            batch = self._batch(self.held_out, rows)
            hidden, targets = _hidden(model, batch), batch.targets.to(model.device)
            for text in texts_of(batch):
                learned = targets[text] != IGNORED
                loss, exact = _predicted(model, hidden[text][learned], targets[text][learned])
                nats, self._exact = nats + loss, self._exact + exact
            tokens += batch.n_targets
        return Evaluation(nats, tokens, self._held_out_bytes)

    def sample(self, model: Transformer) -> str | None:
        """How many of the held-out dialogs greedy choice would write, and what it writes at the end of one of them."""
        if not self.held_out:
            return None
        dialog, tokenizer = self.held_out[0], self.base.tokenizer
        last = len(dialog.ids) - dialog.written[::-1].index(True)
        first = last - next((n for n in range(last) if not dialog.written[last - 1 - n]), last)
        ends = self.base.chat_format.end_ids
        wanted = [id for id in dialog.ids[first:last] if id not in ends]
        room = max(0, min(len(wanted) + 16, model.config.max_seq_len - first))
        with torch.autocast(model.device.type, enabled=False):  # the cache has the dtype of the weights
            written = generate_ids(
                model, dialog.ids[:first], max_tokens=room, temperature=0, end_ids=ends, n_vocab=tokenizer.n_vocab
            )
            said = tokenizer.decode([*written])
        exact = f"{self._exact} of {len(self.held_out)} held-out dialogs exactly"
        return f"{exact}; {said!r} for {tokenizer.decode(wanted)!r}"


@dataclass(frozen=True)
class PairBatch:
    """Pairs of texts, the chosen before the rejected one, and by how much the reference prefers the former: [pairs]."""

    texts: Batch
    reference: Tensor

    @property
    def n_tokens(self) -> int:
        return self.texts.n_tokens

    @property
    def n_targets(self) -> int:
        return len(self.reference)

    def part(self, number: int, parts: int) -> PairBatch:
        """One of so many parts, of equally many rows each. Raises InputError where rows cannot be shared evenly."""
        if parts == 1:
            return self
        texts = texts_of(self.texts)
        rows = len(self.texts.inputs)
        units = rows // 2 if self.texts.positions is None else rows  # a pair is two rows, or some in one
        if units % parts:
            raise InputError(
                f"{parts} processes cannot share the {units} rows of a step evenly; "
                f"make batch_tokens a multiple of {parts} x sequence_length"
            )
        share = range(number * rows // parts, (number + 1) * rows // parts)
        pairs = [pair for pair, (row, _) in enumerate(texts[::2]) if row in share]
        return PairBatch(self.texts.part(number, parts), self.reference[pairs])


class Preferences(_Examples[Pair]):
    """The model learns to prefer answers, measured against itself as it was: DPO (Rafailov et al. 2023,
    arXiv:2305.18290, equation 7)."""

    kind = "preference optimization"

    def __init__(self, base: _Base, data: Sequence[PathLike], settings: TrainConfig) -> None:
        train, held_out = _read(read_pairs, base, data, settings)
        super().__init__(base, train, held_out, settings)
        self.beta, self._run = base.config.beta or 0.0, settings
        self._reference = self._held_out_reference = torch.empty(0)
        self._preferred, self._mean = 0, 0.0

    def model(self) -> Transformer:
        """The model as it begins, which is the reference as well: what that prefers is computed here, once."""
        model = self.base.model(self.seed).to(self._run.device).eval()
        device_type = torch.device(self._run.device).type
        with torch.no_grad(), torch.autocast(device_type, torch.bfloat16, enabled=self._run.dtype == "bfloat16"):
            self._reference, self._held_out_reference = (
                torch.cat([torch.empty(0), *(preference(model, batch_of([[pair]])).cpu() for pair in pairs)])
                for pairs in (self.train, self.held_out)
            )
        return model.train()

    def batch(self, number: int) -> list[PairBatch]:
        return [self._batch(self.train, self._reference, rows) for rows in self.rows(number)]

    def _batch(self, pairs: list[Pair], reference: Tensor, rows: list[list[int]]) -> PairBatch:
        texts = batch_of([[pairs[index] for index in row] for row in rows], self.base.config.packed)
        return PairBatch(texts, reference[[index for row in rows for index in row]])

    def loss(self, model: Transformer, batch: PairBatch) -> Tensor:
        return -F.logsigmoid(self.beta * self._gained(model, batch)).sum()

    def _gained(self, model: Transformer, batch: PairBatch) -> Tensor:
        """By how much more than the reference the model prefers the chosen texts, in nats: [pairs]."""
        return preference(model, batch.texts) - batch.reference.to(model.device)

    def evaluate(self, model: Transformer) -> Evaluation | None:
        if not self.held_out:
            return None
        batches = [self._batch(self.held_out, self._held_out_reference, rows) for rows in self.held_out_rows]
        gained = torch.cat([self._gained(model, batch).float() for batch in batches])
        self._preferred, self._mean = int((gained > 0).sum()), gained.mean().item()
        return Evaluation(-F.logsigmoid(self.beta * gained).sum().item(), len(gained), 0)

    def sample(self, model: Transformer) -> str | None:
        """In how many of the held-out pairs the model has moved to what was chosen, and how far."""
        if not self.held_out:
            return None
        count = f"{self._preferred} of {len(self.held_out)} held-out pairs moved to the chosen one"
        return f"{count}, by {self._mean:.3f} nats on average"


def _hidden(model: Transformer, batch: Batch) -> Tensor:
    positions = None if batch.positions is None else batch.positions.to(model.device)
    return model.hidden(batch.inputs.to(model.device), positions=positions)


def preference(model: Transformer, batch: Batch) -> Tensor:
    """log p(chosen) - log p(rejected) of the pairs of a batch, in nats: float32 [pairs]."""
    hidden, targets = _hidden(model, batch), batch.targets.to(model.device)
    nats = [
        cross_entropy_sum(model, hidden[text][learned], targets[text][learned])
        for text in texts_of(batch)
        for learned in (targets[text] != IGNORED,)
    ]
    return torch.stack(nats[1::2]) - torch.stack(nats[::2])


def _predicted(model: Transformer, hidden: Tensor, targets: Tensor) -> tuple[float, bool]:
    """The loss of targets [n] in nats, and whether each of them is the likeliest."""
    nats, exact = 0.0, True
    size = max(1, CHUNK_LOGITS // model.config.vocab_size)
    for some_hidden, some_targets in zip(torch.split(hidden, size), torch.split(targets, size), strict=True):
        logits = model.head(some_hidden).float()
        nats += F.cross_entropy(logits, some_targets, reduction="sum").item()
        exact = exact and bool((logits.argmax(-1) == some_targets).all())
    return nats, exact

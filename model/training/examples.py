"""TODO: examples."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from bpe.chat import ChatFormat, chat_format
from bpe.errors import InputError
from bpe.locate import locate
from model.checkpoint import WRITABLE_FORMATS, format_of, open_checkpoint
from model.checkpoint.adapter import CONFIG as ADAPTER
from model.checkpoint.adapter import write_adapter
from model.checkpoint.assemble import assemble, fingerprint
from model.checkpoint.bpe_llama import PARAMS
from model.checkpoint.companions import read_tokenizer
from model.checkpoint.huggingface import CONFIG, config_json
from model.lora import LoraConfig, adapter_of, add_lora, merge_lora
from model.training.dialogs import Dialog, Pair, PathLike, Rows, in_rows
from model.training.dialogs import fingerprint as fingerprint_of
from model.training.loss import Batch
from model.training.settings import TrainConfig
from model.transformer import Transformer


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
        self.format = "bpe-llama" if found == "bpe-llama" else "huggingface"
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
        WRITABLE_FORMATS[self.format].write(learned, directory)


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


def _hidden(model: Transformer, batch: Batch) -> Tensor:
    positions = None if batch.positions is None else batch.positions.to(model.device)
    return model.hidden(batch.inputs.to(model.device), positions=positions)

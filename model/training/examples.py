"""What fine-tuning on dialogs and on preferences have in common: examples, in rows, some of them held out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from bpe.drawing import common_directory
from bpe.errors import InputError
from model.training.base_model import BaseModel
from model.training.dialogs import Dialog, Pair, PathLike, Reading, Rows, examples_fingerprint, in_rows
from model.training.settings import TrainConfig
from model.training.task import About
from model.transformer import Transformer

Example = TypeVar("Example", bound=Dialog | Pair)

ReadExamples = Callable[[Iterable[PathLike], BaseModel, Reading], list[Example]]
"""Reads examples with the tokenizer or the chat format of a model."""


class ExampleTask(Generic[Example]):
    """The part of a `Task` that fine-tuning on dialogs and on preferences have in common.

    Attributes:
        base: The model to fine-tune.
        train: The examples to train on.
        held_out: The held-out examples that evaluations use.
        held_out_rows: Their indices: a list of rows for each micro-batch.
        kind: Name of the kind of training.
        summary: What is trained on, held out and cut off: lines to print before training.
    """

    kind: str

    def __init__(
        self, read: ReadExamples[Example], base: BaseModel, data: Sequence[PathLike], settings: TrainConfig
    ) -> None:
        """Read the examples, and draw or read those that are held out.

        Args:
            read: Reads the examples of files.
            base: The model to fine-tune.
            data: Files of examples.
            settings: Settings of the run. Evaluations use whole held-out examples up to eval_tokens.

        Raises:
            InputError: When there is no example, or an example cannot be read.
        """
        self.base, self.seed = base, settings.seed
        self._files = [os.fspath(path) for path in data]
        length = settings.sequence_length
        end_id = next(iter(base.tokenizer.eos_ids), None)
        config = base.config
        how = Reading(length, config.learn_end, end_id, config.field, config.separator)
        self.train, held_out = _read_examples(read, base, data, settings, how)
        if not self.train:
            raise InputError(f"{', '.join(self._files)}: there are no examples to train on")
        ends = np.cumsum([len(example) for example in held_out])
        self.held_out = held_out[: 1 + int(np.searchsorted(ends, settings.eval_tokens))]
        self._rows = Rows([len(example) for example in self.train], length, settings.seed)
        self._rows_per_step = settings.batch_tokens // length
        self._rows_per_micro_batch = (settings.micro_batch_tokens or settings.batch_tokens) // length
        rows = in_rows(range(len(self.held_out)), [len(example) for example in self.held_out], length)
        self.held_out_rows = self._micro_batches(rows)
        self._weights = base.start[:16]
        self.summary = [f"{_counted(self.train)} to train on; {_counted(self.held_out)} held out"]
        if cut := [example.place for example in (*self.train, *self.held_out) if not example.whole]:
            more = f" and {len(cut) - 1} more" if len(cut) > 1 else ""
            self.summary.append(f"{cut[0]}{more}: longer than {length} tokens (sequence_length); the rest is cut off")
        self.summary += how.notes.lines(base.config.learn_end)

    def steps(self, epochs: float) -> int:
        """Return the number of steps that read every example this many times."""
        return max(1, math.ceil(self._rows.count(epochs) / self._rows_per_step))

    def about(self) -> About:
        """Return the model that is fine-tuned, and the files of examples."""
        lora = self.base.config.lora
        adapter = "" if lora is None else f" with LoRA of rank {lora.rank}"
        files = (
            self._files[0] if len(self._files) == 1 else f"{len(self._files)} files in {common_directory(self._files)}"
        )
        return About(
            f"{self.kind} of {self.base.name}{adapter}",
            f"tokenizer of {self.base.tokenizer.n_vocab:,} tokens; {files}, {len(self.train):,} examples to train on,"
            f" {len(self.held_out):,} held out",
            self._rows.count(1) / self._rows_per_step,
            is_text=self.base.config.beta is None,
        )

    def rows(self, number: int) -> list[list[list[int]]]:
        """Return the examples of a step, as indices: for each micro-batch a list of rows."""
        first = number * self._rows_per_step
        return self._micro_batches([self._rows[row] for row in range(first, first + self._rows_per_step)])

    def _micro_batches(self, rows: list[list[int]]) -> list[list[list[int]]]:
        size = self._rows_per_micro_batch
        return [rows[begin : begin + size] for begin in range(0, len(rows), size)]

    def describe(self, number: int) -> str:
        """Return the files and lines of a step's examples."""
        return ", ".join(self.train[index].place for rows in self.rows(number) for row in rows for index in row)

    def settings(self) -> dict[str, Any]:
        """Return what must be equal for a run to be resumed: data, weights, model and settings."""
        config = self.base.config
        return {
            "data": f"{examples_fingerprint(self.train)} {examples_fingerprint(self.held_out)}",
            "weights": self._weights,
            "model": self.base.checkpoint.config.to_params(),
            "lora": {} if config.lora is None else {**asdict(config.lora), "targets": [*config.lora.targets]},
            "finetune": {"merge": config.merge, "beta": config.beta, "packed": config.packed},
        }

    def save(self, directory: Path, model: Transformer) -> None:
        """Save the adapter or the model in the run directory."""
        self.base.save(directory, model)


def _read_examples(
    read: ReadExamples[Example],
    base: BaseModel,
    data: Sequence[PathLike],
    settings: TrainConfig,
    how: Reading,
) -> tuple[list[Example], list[Example]]:
    """Return the examples to train on, and those held out, from other files or drawn at random."""
    held_out = base.config.held_out
    examples = read(data, base, how)
    if not isinstance(held_out, (int, float)):
        return examples, read(held_out, base, how)
    count = min(len(examples) - 1, max(1, round(held_out * len(examples)))) if held_out > 0 and examples else 0
    drawn = {*np.random.default_rng((settings.seed, 1)).permutation(len(examples))[:count].tolist()}
    kept = [example for index, example in enumerate(examples) if index not in drawn]
    return kept, [example for index, example in enumerate(examples) if index in drawn]


def _counted(examples: Sequence[Dialog | Pair]) -> str:
    learned: int = sum(sum(text.written[1:]) for example in examples for text in example.texts)
    return f"{len(examples):,} examples, {sum(map(len, examples)):,} tokens ({learned:,} learned)"

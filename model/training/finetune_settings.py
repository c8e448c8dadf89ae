"""The settings of fine-tuning that `TrainConfig` does not have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bpe.arguments import checked
from bpe.errors import InputError
from model.lora import LoraConfig
from model.training.dialogs import PathLike


@checked
@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of fine-tuning.

    Attributes:
        lora: Train LoRA matrices of this shape and keep the model's own weights; None to train all weights.
        merge: Save a model with the LoRA matrices merged into its weights, instead of the adapter.
        beta: Train on preferences with this beta of DPO (Rafailov et al. 2023, arXiv:2305.18290). Larger values keep
            the model closer to where it started. None: train on dialogs.
        packed: Put several dialogs into one row. Otherwise each has a row of its own, with padding. The loss is the
            same.
        held_out: Share of the examples to hold out, from 0 to below 1; or paths of files with other examples.
        epochs: Number of times that each example is read, when TrainConfig sets neither steps nor minutes.
        learn_end: Whether to learn the token that ends an answer. None: where the chat format writes one. True: also
            after the last answer of a dialog where it writes none.
        text: Train on plain texts instead of dialogs: continued pretraining.
        field: Key or column of plain texts in .jsonl and Parquet files.
        separator: String between plain texts within a file; None if each file is one text.

    Raises:
        InputError: When a setting is out of range, or settings contradict each other.
    """

    lora: LoraConfig | None = None
    merge: bool = False
    beta: float | None = None
    packed: bool = True
    held_out: float | Sequence[PathLike] = 0.1
    epochs: float = 3.0
    learn_end: bool | None = None
    text: bool = False
    field: str = "text"
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.merge and self.lora is None:
            raise InputError("merge needs lora: it merges the LoRA matrices into the model")
        if self.beta is not None and not (math.isfinite(self.beta) and self.beta > 0):
            raise InputError(f"beta is {self.beta}; it must be positive")
        if not self.text and (self.field != "text" or self.separator is not None):
            raise InputError("field and separator need text: they are about plain texts")
        if self.text and self.beta is not None:
            raise InputError("text and beta exclude each other: plain texts have no preferences")
        if isinstance(self.held_out, (int, float)) and not 0 <= self.held_out < 1:
            raise InputError(f"held_out is {self.held_out}; it must be a share, from 0 to below 1")
        if not (math.isfinite(self.epochs) and self.epochs > 0):
            raise InputError(f"epochs is {self.epochs}; it must be positive")

    @property
    def keeps_adapter(self) -> bool:
        """Whether fine-tuning saves an adapter instead of a model."""
        return self.lora is not None and not self.merge

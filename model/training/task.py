"""TODO: task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from model.training.loss import Evaluation
from model.transformer import Transformer


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

"""The interface between the training loop and a task, such as pretraining or fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from model.training.loss import Evaluation
from model.transformer import Transformer


class MicroBatch(Protocol):
    """The data of one forward and backward pass: as much of a step as memory holds."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens that the model reads."""

    @property
    def n_targets(self) -> int:
        """Number of terms that `Task.loss` sums. The gradient of a step is divided by their total over the step."""

    def part(self, number: int, parts: int) -> MicroBatch:
        """Return one of `parts` parts of equal shapes, for the processes that work on a step at the same time."""


@dataclass(frozen=True)
class About:
    """What is trained on what, for the titles of a plot.

    Attributes:
        title: The kind of training, and the model.
        subtitle: The tokenizer and the data.
        steps_per_epoch: Number of steps that read the data once.
        is_text: Whether the loss is per token, rather than per pair of texts.
    """

    title: str
    subtitle: str
    steps_per_epoch: float
    is_text: bool = True


class Task(Protocol):
    """A model to train, the data and the loss.

    All numbers follow from the settings of the task alone, so that a run can be resumed.
    """

    kind: str
    """Name of the kind of training, such as "pretraining". `run.json` records it."""

    def settings(self) -> dict[str, Any]:
        """Return what must be equal for a run to be resumed, as JSON: for each part a string, or a dict of values."""

    def about(self) -> About:
        """Return what is trained on what."""

    def model(self) -> Transformer:
        """Build the model that training starts from, on the CPU.

        Parameters that require no gradient are neither trained nor saved in checkpoints.

        Raises:
            InputError: When data, model and settings do not fit each other.
        """

    def batch(self, number: int) -> Sequence[Any]:
        """Return the data of a step, as `MicroBatch`es whose gradients add up to that of the step.

        The data follows from the number alone, whatever was read before. Another thread calls this method ahead of
        the step.

        Args:
            number: Number of the batch, from 0 on, without an end.
        """

    def describe(self, number: int) -> str:
        """Return where the data of a step comes from, for a person who wants to look at it."""

    def loss(self, model: Transformer, batch: Any) -> Tensor:
        """Return the summed loss over the targets of a micro-batch, in nats: a float32 scalar that has a gradient."""

    def evaluate(self, model: Transformer) -> Evaluation | None:
        """Measure the model on held-out data; None when nothing is held out."""

    def sample(self, model: Transformer) -> str | None:
        """Return a short text that shows what the model does, printed with each evaluation; None for no text."""

    def save(self, directory: Path, model: Transformer) -> None:
        """Save the trained model in the run directory."""

"""Direct preference optimization (DPO; Rafailov et al. 2023, arXiv:2305.18290)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bpe.errors import InputError
from model.config import ModelConfig
from model.rotary import depends_on_length
from model.training.base_model import BaseModel
from model.training.dialogs import Pair, PathLike, batch_of, read_pairs, texts_of
from model.training.examples import ExampleTask
from model.training.loss import IGNORED, Evaluation, TokenBatch, counted, cross_entropy_sum, hidden_states
from model.training.settings import TrainConfig
from model.transformer import Transformer


@dataclass(frozen=True)
class PairBatch:
    """Pairs of texts.

    Attributes:
        texts: The texts, the chosen text of each pair before the rejected text.
        reference: Preference of the reference model for the chosen texts, in nats (see `preference`): float32 [pairs].
    """

    texts: TokenBatch
    reference: Tensor

    @property
    def n_tokens(self) -> int:
        """Number of tokens that the model reads."""
        return self.texts.n_tokens

    @property
    def n_targets(self) -> int:
        """Number of pairs."""
        return len(self.reference)

    def part(self, number: int, parts: int) -> PairBatch:
        """Return one of `parts` parts, with equally many rows each.

        Raises:
            InputError: When the rows cannot be divided evenly.
        """
        if parts == 1:
            return self
        texts = texts_of(self.texts)
        rows = len(self.texts.inputs)
        units = rows // 2 if self.texts.positions is None else rows  # a pair takes two rows, or shares one with others
        if units % parts:
            raise InputError(
                f"{parts} processes cannot share the {units} rows of a step evenly; "
                f"set batch_tokens to a multiple of {parts} x sequence_length"
            )
        share = range(number * rows // parts, (number + 1) * rows // parts)
        pairs = [pair for pair, (row, _) in enumerate(texts[::2]) if row in share]
        return PairBatch(self.texts.part(number, parts), self.reference[pairs])


class Preferences(ExampleTask[Pair]):
    """Fine-tuning on which of two answers is better, relative to the model as it started.

    The loss is equation 7 of Rafailov et al. 2023 (arXiv:2305.18290).
    """

    kind = "preference optimization"

    def __init__(self, base: BaseModel, data: Sequence[PathLike], settings: TrainConfig) -> None:
        """Read pairs; see `ExampleTask`.

        Raises:
            InputError: Also when the rotations of a text would depend on the other texts of its batch.
        """
        super().__init__(lambda data, base, how: read_pairs(data, base.chat_format, how), base, data, settings)
        _refuse_mixed_rotations(base.checkpoint.config, [*self.train, *self.held_out])
        self.beta, self._run = base.config.beta or 0.0, settings
        self._reference = self._held_out_reference = torch.empty(0)
        self._preferred, self._mean = 0, 0.0

    def model(self) -> Transformer:
        """Load the model to fine-tune. It is the reference, too: its preferences are computed here, once."""
        model = self.base.model(self.seed).to(self._run.device).eval()
        device_type = torch.device(self._run.device).type
        with torch.no_grad(), torch.autocast(device_type, torch.bfloat16, enabled=self._run.dtype == "bfloat16"):
            self._reference, self._held_out_reference = (
                torch.cat(
                    [
                        torch.empty(0),
                        *(
                            preference(model, batch_of([[pair]])).cpu()
                            for pair in counted(pairs, "measuring the reference", "pairs")
                        ),
                    ]
                )
                for pairs in (self.train, self.held_out)
            )
        return model.train()

    def batch(self, number: int) -> list[PairBatch]:
        """Return the data of a step."""
        return [self._batch(self.train, self._reference, rows) for rows in self.rows(number)]

    def _batch(self, pairs: list[Pair], reference: Tensor, rows: list[list[int]]) -> PairBatch:
        texts = batch_of([[pairs[index] for index in row] for row in rows], self.base.config.packed)
        return PairBatch(texts, reference[[index for row in rows for index in row]])

    def loss(self, model: Transformer, batch: PairBatch) -> Tensor:
        """Return the summed loss over the pairs, in nats."""
        return -F.logsigmoid(self.beta * self._gained(model, batch)).sum()

    def _gained(self, model: Transformer, batch: PairBatch) -> Tensor:
        """Return how much more than the reference the model prefers the chosen texts, in nats: [pairs]."""
        return preference(model, batch.texts) - batch.reference.to(model.device)

    def evaluate(self, model: Transformer) -> Evaluation | None:
        """Measure the loss on held-out pairs, per pair, and count those that moved to the chosen text."""
        if not self.held_out:
            return None
        gained = torch.cat(
            [
                self._gained(model, self._batch(self.held_out, self._held_out_reference, rows)).float()
                for rows in counted(self.held_out_rows)
            ]
        )
        self._preferred, self._mean = int((gained > 0).sum()), gained.mean().item()
        return Evaluation(-F.logsigmoid(self.beta * gained).sum().item(), len(gained), 0)

    def sample(self, model: Transformer) -> str | None:
        """Return in how many held-out pairs the model has moved to the chosen text, and how far.

        The numbers are those of the last call to `evaluate`.
        """
        if not self.held_out:
            return None
        count = f"{self._preferred} of {len(self.held_out)} held-out pairs moved to the chosen one"
        return f"{count}, by {self._mean:.3f} nats on average"


def _refuse_mixed_rotations(config: ModelConfig, pairs: Sequence[Pair]) -> None:
    """Raise InputError if a step would rotate a text otherwise than the reference did, which reads each pair alone."""
    longest = max((len(text) for pair in pairs for text in pair.texts), default=0)
    if depends_on_length(config) and longest > config.rope_original_length:
        raise InputError(
            f"a preference has {longest:,} tokens, but beyond {config.rope_original_length:,} tokens the rotations of"
            f" this model (rope_scaling {config.rope_scaling!r}) depend on the longest text of a batch; set"
            f" sequence_length to {config.rope_original_length:,} or less"
        )


def preference(model: Transformer, batch: TokenBatch) -> Tensor:
    """Return log p(chosen) - log p(rejected) of each pair in a batch, in nats: float32 [pairs].

    Args:
        model: The model.
        batch: Texts by `batch_of`, the chosen text of each pair before the rejected text.
    """
    hidden, targets = hidden_states(model, batch), batch.targets.to(model.device)
    nats = [
        cross_entropy_sum(model, hidden[text][learned], targets[text][learned])
        for text in texts_of(batch)
        for learned in (targets[text] != IGNORED,)
    ]
    return torch.stack(nats[1::2]) - torch.stack(nats[::2])

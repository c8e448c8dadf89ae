"""TODO: preferences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bpe.errors import InputError
from model.training.dialogs import Pair, PathLike, batch_of, read_pairs, texts_of
from model.training.examples import _Base, _Examples, _hidden, _read
from model.training.loss import IGNORED, Batch, Evaluation, cross_entropy_sum
from model.training.settings import TrainConfig
from model.transformer import Transformer


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


def preference(model: Transformer, batch: Batch) -> Tensor:
    """log p(chosen) - log p(rejected) of the pairs of a batch, in nats: float32 [pairs]."""
    hidden, targets = _hidden(model, batch), batch.targets.to(model.device)
    nats = [
        cross_entropy_sum(model, hidden[text][learned], targets[text][learned])
        for text in texts_of(batch)
        for learned in (targets[text] != IGNORED,)
    ]
    return torch.stack(nats[1::2]) - torch.stack(nats[::2])

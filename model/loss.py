"""Next-token loss: for training, in bounded memory; for evaluation, in nats and in bits per byte."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from model.transformer import Transformer

IGNORED = -100  # as a target: no loss here

# 64 MiB of float32. A batch whose logits fit is done in one go: computing them again costs a tenth of a step.
CHUNK_LOGITS = 1 << 24


def cross_entropy_sum(model: Transformer, hidden: Tensor, targets: Tensor, chunk_logits: int = CHUNK_LOGITS) -> Tensor:
    """The sum over all positions of -log p(target), in nats: a float32 scalar.

    hidden: what `model.hidden` gave, [..., dim]; targets: ids [...], of which those equal to IGNORED count nothing.
    chunk_logits: how many logits exist at a time. Beyond that, positions are done in chunks whose logits are thrown
        away and computed once more for the gradients, which are the same as without chunks.
    """
    hidden, targets = hidden.flatten(0, -2), targets.flatten()  # [b, t, dim] -> [b * t, dim]

    def chunk_loss(hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model.head(hidden).float(), targets, reduction="sum", ignore_index=IGNORED)

    chunk = max(1, chunk_logits // model.config.vocab_size)
    if len(hidden) <= chunk:
        return chunk_loss(hidden, targets)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for some_hidden, some_targets in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
        if torch.is_grad_enabled():
            loss = checkpoint(chunk_loss, some_hidden, some_targets, use_reentrant=False, preserve_rng_state=False)
        else:
            loss = chunk_loss(some_hidden, some_targets)
        total = total + loss
    return total


@dataclass(frozen=True)
class Batch:
    """Tokens, and what follows each of them.

    inputs: ids [batch, time]. targets: ids [batch, time], of which those equal to IGNORED are none.
    positions: integers [batch, time], as `Transformer.forward` takes them; None where each row is one text.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor | None = None

    @property
    def n_tokens(self) -> int:
        """How many tokens the model reads."""
        return self.inputs.numel()

    @functools.cached_property
    def n_targets(self) -> int:
        """How many tokens the model predicts."""
        return int((self.targets != IGNORED).sum())

    def part(self, number: int, parts: int) -> Batch:
        """One of so many parts, of equally many rows each; where rows are missing, there are some without targets."""
        share = -(-len(self.inputs) // parts)
        rows = torch.arange(number * share, (number + 1) * share)
        missing = rows >= len(self.inputs)
        rows = rows.clamp(max=len(self.inputs) - 1)
        targets = self.targets[rows].masked_fill(missing[:, None], IGNORED)
        return Batch(self.inputs[rows], targets, None if self.positions is None else self.positions[rows])


def next_token_loss(model: Transformer, batch: Batch) -> Tensor:
    """The sum over all targets of a batch of -log p(target), in nats: a float32 scalar. The batch may be elsewhere."""
    inputs, targets = batch.inputs.to(model.device), batch.targets.to(model.device)
    positions = None if batch.positions is None else batch.positions.to(model.device)
    return cross_entropy_sum(model, model.hidden(inputs, positions=positions), targets)


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text."""

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats for each predicted token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits for each byte of text: comparable between tokenizers, as the loss is not.

        Special tokens have no bytes, but their loss counts: it is the price of saying where documents begin and end.
        """
        return self.nats / math.log(2) / self.bytes if self.bytes else math.inf


def evaluate(model: Transformer, batches: Iterable[Batch], token_bytes: Tensor) -> Evaluation:
    """Predict each target from the inputs up to its place.

    token_bytes: [vocabulary], how many bytes of text each id stands for.
    """
    nats, tokens, text_bytes = 0.0, 0, 0
    with torch.no_grad():
        for batch in batches:
            nats += next_token_loss(model, batch).item()
            tokens += batch.n_targets
            text_bytes += int(token_bytes[batch.targets[batch.targets != IGNORED]].sum())
    return Evaluation(nats, tokens, text_bytes)

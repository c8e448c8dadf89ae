"""Next-token loss: for training, in bounded memory; for evaluation, in nats and in bits per byte."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from model.training.fused import arrays, is_plain_linear, trainer
from model.transformer import Transformer

IGNORED = -100  # as a target: no loss here

CHUNK_LOGITS = 1 << 23
"""How many logits exist at a time: 32 MiB of float32, about what a processor caches."""

_BLOCK_LOGITS = 1 << 18
"""How many are made probabilities at a time: 1 MiB. A chunk of 512 x 4,096 takes a tenth less time so."""


def cross_entropy_sum(model: Transformer, hidden: Tensor, targets: Tensor, chunk_logits: int = CHUNK_LOGITS) -> Tensor:
    """The sum over all positions of -log p(target), in nats: a float32 scalar, float64 for logits of float64.

    hidden: what `model.hidden` gave, [..., dim]; targets: ids [...], of which those equal to IGNORED count nothing.
    chunk_logits: how many logits exist at a time, at least those of one position. The gradients of a chunk are computed
        together with its loss, after which its logits are not needed any more. A head that is no plain `nn.Linear` is
        asked for its logits a second time instead, when gradients are.
    """
    hidden, targets = hidden.flatten(0, -2), targets.flatten()  # [b, t, dim] -> [b * t, dim]
    chunk = max(1, chunk_logits // model.config.vocab_size)
    if torch.is_grad_enabled() and is_plain_linear(model.output):
        device = hidden.device.type
        if torch.is_autocast_enabled(device):
            hidden = hidden.to(torch.get_autocast_dtype(device))
        total: Tensor = _HeadLoss.apply(hidden, model.output.weight, targets, chunk)  # type: ignore[no-untyped-call]
        return total

    def chunk_loss(hidden: Tensor, targets: Tensor) -> Tensor:
        logits = model.head(hidden)
        return F.cross_entropy(logits.to(_wide(logits)), targets, reduction="sum", ignore_index=IGNORED)

    losses = []
    for some_hidden, some_targets in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
        if torch.is_grad_enabled() and len(hidden) > chunk:
            loss = checkpoint(chunk_loss, some_hidden, some_targets, use_reentrant=False, preserve_rng_state=False)
        else:
            loss = chunk_loss(some_hidden, some_targets)
        losses.append(loss)
    return torch.stack(losses).sum()


def _wide(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


class _HeadLoss(torch.autograd.Function):
    """A linear head and the loss of its logits: their gradients are made with the loss, and scaled when asked for."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        """hidden [n, dim], in whose dtype the products are made; weight [vocabulary, dim]; targets [n]."""
        learns = weight.requires_grad
        hidden_grad = torch.empty_like(hidden, memory_format=torch.contiguous_format)
        weight_grad = torch.zeros_like(weight, memory_format=torch.contiguous_format) if learns else None
        if hidden.dtype == weight.dtype == torch.float32 and hidden.device.type == "cpu":
            given, matrix, ids, made = arrays((hidden, weight, targets, hidden_grad))
            found = trainer().loss(given, matrix, ids, chunk * len(weight), made, weight_grad)
            ctx.save_for_backward(hidden_grad, weight_grad)
            return hidden.new_tensor(found)
        head = weight.detach().to(hidden.dtype)
        total = hidden.new_zeros((), dtype=_wide(hidden))
        for start in range(0, len(hidden), chunk):
            some = slice(start, start + chunk)
            logits = hidden[some] @ head.t()  # [n, dim] -> [n, vocabulary]
            slopes = logits.to(_wide(logits))
            total += _softmax_loss(slopes, targets[some])
            slopes = slopes.to(hidden.dtype)
            hidden_grad[some] = slopes @ head
            if weight_grad is None:
                continue
            if weight.dtype == hidden.dtype:
                weight_grad.addmm_(slopes.t(), hidden[some])
            else:
                weight_grad += slopes.t() @ hidden[some]
        ctx.save_for_backward(hidden_grad, weight_grad)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * scale, None if weight_grad is None else weight_grad * scale, None, None


def _softmax_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum of -log p(target), of logits [n, vocabulary], which become its gradients in place."""
    total = logits.new_zeros(())
    rows = max(1, _BLOCK_LOGITS // logits.shape[1])
    for block, some in zip(torch.split(logits, rows), torch.split(targets, rows), strict=True):
        counted = (some != IGNORED)[:, None]  # [n, 1]
        places = some[:, None].clamp(min=0)
        highest = block.amax(1, keepdim=True)
        reached = block.gather(1, places) - highest
        sums = block.sub_(highest).exp_().sum(1, keepdim=True)
        total += ((sums.log() - reached) * counted).sum()
        block.mul_(counted / sums).scatter_add_(1, places, -counted.to(block.dtype))
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
        if parts == 1:
            return self
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

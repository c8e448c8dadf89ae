"""Next-token loss: in bounded memory for training; in nats and in bits per byte for evaluation."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from bpe.progress import phase
from model.training.fused import arrays, has_kernels, is_plain_linear, trainer
from model.transformer import Transformer

_Batch = TypeVar("_Batch")

IGNORED = -100
"""Target of a position that has no loss."""

_CHUNK_LOGITS = 1 << 23
"""Number of logits that exist at a time: 32 MiB in float32, about the size of a processor's cache."""

_ACCELERATOR_CHUNK_LOGITS = 1 << 28
"""As _CHUNK_LOGITS, on other devices than a CPU: 1 GiB in float32, 2,092 rows of Llama 3's vocabulary.

Each chunk reads the output matrix and adds to its gradient. With the 65 rows of _CHUNK_LOGITS, that traffic would take
an H200 several times as long as the products, by its data sheet.
"""

_BLOCK_LOGITS = 1 << 18
"""Number of logits that become probabilities at a time on a CPU: 1 MiB. A chunk of 512 x 4,096 takes a tenth less time
so. On other devices, a chunk is one block, because small operations take as long to launch as to run."""


def chunk_rows(model: Transformer, chunk_logits: int | None = None) -> int:
    """Return the number of positions whose logits are computed at a time, at least 1.

    Args:
        model: The model.
        chunk_logits: Number of logits that exist at a time. Default: 2^23 on a CPU and 2^28 on other devices.
    """
    if chunk_logits is None:
        chunk_logits = _CHUNK_LOGITS if model.device.type == "cpu" else _ACCELERATOR_CHUNK_LOGITS
    return max(1, chunk_logits // model.config.vocab_size)


def cross_entropy_sum(model: Transformer, hidden: Tensor, targets: Tensor, chunk_logits: int | None = None) -> Tensor:
    """Return the sum over all positions of -log p(target), in nats.

    The gradients of a chunk of logits are computed together with its loss, after which the logits are not needed any
    more. A head other than a plain `nn.Linear`, or with a bound of the logits, computes its logits a second time in the
    backward pass instead.

    Args:
        model: The model, whose head computes the logits.
        hidden: Output of `model.hidden`, [..., dim].
        targets: Ids [...]. Positions equal to IGNORED have no loss.
        chunk_logits: Number of logits that exist at a time; see `chunk_rows`.

    Returns:
        A scalar, float32, or float64 for logits in float64.
    """
    hidden, targets = hidden.flatten(0, -2), targets.flatten()  # [b, t, dim] -> [b * t, dim]
    chunk = chunk_rows(model, chunk_logits)
    if torch.is_grad_enabled() and is_plain_linear(model.output) and not model.config.logits_softcap:
        if model.config.logits_scaling != 1:
            hidden = hidden / model.config.logits_scaling  # as good as dividing the logits, which are more numbers
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        weight = model.output.weight
        if not (device == "cpu" and hidden.dtype == weight.dtype == torch.float32 and has_kernels(dtype)):
            hidden = hidden.to(dtype)
        total: Tensor = _HeadLoss.apply(hidden, weight, targets, chunk, dtype)  # type: ignore[no-untyped-call]
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
    """A linear head and the loss of its logits. Forward computes the gradients, and backward scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, dtype: torch.dtype) -> Tensor:
        """hidden [n, dim], in dtype or, for our kernels, in float32; weight [vocabulary, dim]; targets [n].

        Matrix products are in dtype.
        """
        learns = weight.requires_grad
        hidden_grad = torch.empty_like(hidden, memory_format=torch.contiguous_format)
        weight_grad = torch.zeros_like(weight, memory_format=torch.contiguous_format) if learns else None
        if hidden.dtype == weight.dtype == torch.float32 and hidden.device.type == "cpu" and has_kernels(dtype):
            inputs, matrix, ids, input_grad = arrays((hidden, weight, targets, hidden_grad))
            loss = trainer(dtype).loss(inputs, matrix, ids, chunk * len(weight), input_grad, weight_grad)
            ctx.save_for_backward(hidden_grad, weight_grad)
            return hidden.new_tensor(loss)
        head = weight.detach().to(hidden.dtype)
        total = hidden.new_zeros((), dtype=_wide(hidden))
        for start in range(0, len(hidden), chunk):
            some = slice(start, start + chunk)
            logits = hidden[some] @ head.t()  # [n, dim] -> [n, vocabulary]
            grads = logits.to(_wide(logits))
            total += _softmax_loss(grads, targets[some])
            grads = grads.to(hidden.dtype)
            hidden_grad[some] = grads @ head
            if weight_grad is None:
                continue
            if weight.dtype == hidden.dtype:
                weight_grad.addmm_(grads.t(), hidden[some])
            else:
                weight_grad += grads.t() @ hidden[some]
        ctx.save_for_backward(hidden_grad, weight_grad)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * scale, None if weight_grad is None else weight_grad * scale, None, None, None


def _softmax_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of -log p(target) for logits [n, vocabulary], and replace the logits by its gradient."""
    total = logits.new_zeros(())
    rows = max(1, _BLOCK_LOGITS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
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
class TokenBatch:
    """Tokens, and the token to predict at each of them.

    Attributes:
        inputs: Ids, int64 [batch, time].
        targets: Ids, int64 [batch, time]; IGNORED where nothing is to be predicted.
        positions: int64 [batch, time], as `Transformer.forward` takes them; None where each row is one text.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor | None = None

    @property
    def n_tokens(self) -> int:
        """Number of tokens that the model reads."""
        return self.inputs.numel()

    @functools.cached_property
    def n_targets(self) -> int:
        """Number of tokens that the model predicts."""
        return int((self.targets != IGNORED).sum())

    def part(self, number: int, parts: int) -> TokenBatch:
        """Return one of `parts` parts, with equally many rows each; rows without targets fill the last ones."""
        if parts == 1:
            return self
        share = -(-len(self.inputs) // parts)
        rows = torch.arange(number * share, (number + 1) * share)
        missing = rows >= len(self.inputs)
        rows = rows.clamp(max=len(self.inputs) - 1)
        targets = self.targets[rows].masked_fill(missing[:, None], IGNORED)
        return TokenBatch(self.inputs[rows], targets, None if self.positions is None else self.positions[rows])


def hidden_states(model: Transformer, batch: TokenBatch) -> Tensor:
    """Return the output of `model.hidden` for a batch, which may be on another device: [batch, time, dim]."""
    positions = None if batch.positions is None else batch.positions.to(model.device)
    return model.hidden(batch.inputs.to(model.device), positions=positions)


def next_token_loss(model: Transformer, batch: TokenBatch) -> Tensor:
    """Return the sum over all targets of a batch of -log p(target), in nats: a float32 scalar.

    The batch may be on another device than the model.
    """
    return cross_entropy_sum(model, hidden_states(model, batch), batch.targets.to(model.device))


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text.

    Attributes:
        nats: Sum of -log p over the predicted tokens.
        tokens: Number of predicted tokens.
        bytes: Number of bytes of text that the predicted tokens stand for; 0 when the loss is not that of a text.
    """

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats per predicted token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text. Unlike the loss, they can be compared between tokenizers.

        Special tokens have no bytes, but their loss counts: it is the price of saying where documents begin and end.
        """
        return self.nats / math.log(2) / self.bytes if self.bytes else math.inf


def counted(
    batches: Sequence[_Batch], name: str = "evaluating on held-out data", unit: str = "batches"
) -> Iterator[_Batch]:
    """Yield the batches of an evaluation, or other things to measure, and show how many are done."""
    with phase(name, len(batches), unit) as evaluating:
        for done, batch in enumerate(batches):
            evaluating.update(done)
            yield batch


def evaluate(model: Transformer, batches: Sequence[TokenBatch], token_bytes: Tensor) -> Evaluation:
    """Measure how well a model predicts the targets of batches.

    Args:
        model: The model.
        batches: The batches.
        token_bytes: Number of bytes of text that each id stands for: integers [vocabulary].
    """
    nats, tokens, text_bytes = 0.0, 0, 0
    with torch.no_grad():
        for batch in counted(batches):
            nats += next_token_loss(model, batch).item()
            tokens += batch.n_targets
            text_bytes += int(token_bytes[batch.targets[batch.targets != IGNORED]].sum())
    return Evaluation(nats, tokens, text_bytes)

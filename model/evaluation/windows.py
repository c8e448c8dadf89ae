"""How good a model is: how well it predicts texts, and which of several choices it holds likeliest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Union

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bpe.errors import InputError
from model.training.loss import CHUNK_LOGITS, IGNORED
from model.transformer import Transformer

BATCH_TOKENS = 4096  # that go through the model at once
READ_AHEAD = 32  # so many batches are sorted by length, so that little of a batch is padding

Ids = Union["npt.NDArray[np.uint32]", Sequence[int]]


class Window(NamedTuple):
    """Ids that the model reads at once, of which it is to predict the last ones."""

    ids: Ids
    predicted: int
    """How many, at least one; each from all ids before it."""

    @property
    def size(self) -> int:
        """The tokens that the model reads: all but the last."""
        return len(self.ids) - 1


class Scores(NamedTuple):
    """How well each predicted token of a window was predicted."""

    nats: npt.NDArray[np.float64]
    """-log p of the token [predicted]."""
    likeliest: npt.NDArray[np.bool_]
    """Whether the model held no other for likelier [predicted]."""


def windows(ids: Ids, window: int, stride: int) -> Iterator[Window]:
    """A text in windows that predict each of its tokens but the first once.

    The model reads `window` tokens at a time, or all that there are. The first window predicts all that follow its
    tokens, each later one the next `stride`, and the last what is left; so each token is predicted from at least
    window - stride + 1 tokens before it, or from all that there are. A stride of 1 gives each of them the whole window;
    one of `window` is the cheapest, and then the context of some is short.

    >>> [(window.ids, window.predicted) for window in windows([0, 1, 2, 3, 4, 5, 6], window=4, stride=2)]
    [([0, 1, 2, 3, 4], 4), ([2, 3, 4, 5, 6], 2)]
    """
    last = len(ids) - 1
    done = 0
    while done < last:
        end = min(done + (stride if done else window), last)
        yield Window(ids[max(0, end - window) : end + 1], end - done)
        done = end


def check_window(window: int, stride: int, context: int) -> None:
    """Raises InputError where the model cannot read such windows, or would leave tokens out."""
    if not 1 <= window <= context:
        raise InputError(f"the window is {window:,} tokens; give 1 to {context:,}, which the model's context holds")
    if not 1 <= stride <= window:
        raise InputError(f"the stride is {stride:,} tokens; give 1 to {window:,}, the window, so that none is left out")


def token_losses(
    model: Transformer, hidden: Tensor, targets: Tensor, chunk_logits: int = CHUNK_LOGITS
) -> tuple[Tensor, Tensor]:
    """-log p(target) at each position, in nats, and whether no other token is likelier: float [n] and bool [n].

    hidden: what `model.hidden` gave, [n, dim]; targets: ids [n].
    chunk_logits: how many logits exist at a time.

    The softmax is computed in float32, or in float64 where the logits are.
    """
    chunk = max(1, chunk_logits // model.config.vocab_size)
    losses, likeliest = [], []
    for some_hidden, some_targets in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
        logits = model.head(some_hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses.append(F.cross_entropy(logits, some_targets, reduction="none"))
        likeliest.append(logits.argmax(-1) == some_targets)
    return torch.cat(losses), torch.cat(likeliest)


def score(
    model: Transformer,
    windows: Iterable[Window],
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Scores]:
    """What the model makes of each window, in their order.

    Windows of about the same length go through the model together, padded behind their ends, where nothing looks.

    batch_tokens: how many tokens at once, padding included; but at least one window.
    progress: called with the tokens and the windows done.

    Raises InputError where the model gives a token no probability that is a number above 0.
    """
    done = count = 0
    for some in _read_ahead(windows, READ_AHEAD * batch_tokens):
        order = sorted(range(len(some)), key=lambda place: -some[place].size)
        scores: dict[int, Scores] = {}
        while order:
            rows = max(1, batch_tokens // max(1, some[order[0]].size))
            batch, order = order[:rows], order[rows:]
            scores.update(zip(batch, _score_batch(model, [some[place] for place in batch]), strict=True))
            done += sum(some[place].size for place in batch)
            count += len(batch)
            if progress is not None:
                progress(done, count)
        yield from (scores[place] for place in range(len(some)))


def _read_ahead(windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
    some: list[Window] = []
    total = 0
    for window in windows:
        some.append(window)
        total += window.size
        if total >= size:
            yield some
            some, total = [], 0
    if some:
        yield some


def _score_batch(model: Transformer, batch: Sequence[Window]) -> Iterator[Scores]:
    device = model.tok_embeddings.weight.device
    # 1. Put the windows side by side; a target stands where the token before it is read.
    inputs = np.zeros((len(batch), max(window.size for window in batch)), np.int64)
    targets = np.full_like(inputs, IGNORED)
    for row, window in enumerate(batch):
        inputs[row, : window.size] = window.ids[:-1]
        targets[row, window.size - window.predicted : window.size] = window.ids[-window.predicted :]
    # 2. Read them all, and make logits only where a token is to be predicted.
    with torch.inference_mode():
        hidden = model.hidden(torch.from_numpy(inputs).to(device))  # [b, t, dim]
        wanted = torch.from_numpy(targets).to(device)
        chosen = wanted != IGNORED
        losses, likeliest = token_losses(model, hidden[chosen], wanted[chosen])  # [n]
        nats, first = losses.double().cpu().numpy(), likeliest.cpu().numpy()
    if not np.isfinite(nats).all():
        raise InputError(
            f"the model gives a token the loss {nats[~np.isfinite(nats)][0]}; its weights are damaged, or too large for"
            " the dtype: try float32"
        )
    # 3. Give each window its own.
    ends = np.cumsum([window.predicted for window in batch]).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        yield Scores(nats[start:end], first[start:end])

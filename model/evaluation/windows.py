"""Windows of ids, and the scores that a model gives to the tokens in them: what every evaluation is built on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Union

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bpe.errors import InputError
from bpe.progress import Progress, phase
from model.rotary import depends_on_length, table_length
from model.training.loss import IGNORED, chunk_rows
from model.transformer import Transformer

BATCH_TOKENS = 4096  # tokens read by the model at once
READ_AHEAD = 32  # batches that are sorted by length together, so that batches have little padding

Ids = Union["npt.NDArray[np.uint32]", Sequence[int]]


class Window(NamedTuple):
    """Ids that the model reads at once, with the number of last ids that it predicts."""

    ids: Ids
    predicted: int
    """The number of predicted ids, at least one; each is predicted from all ids before it."""

    @property
    def size(self) -> int:
        """The number of tokens that the model reads: all but the last."""
        return len(self.ids) - 1


class Scores(NamedTuple):
    """The scores of the predicted tokens of a window."""

    nats: npt.NDArray[np.float64]
    """-log p of each token in nats [predicted]."""
    likeliest: npt.NDArray[np.bool_]
    """Whether no other token was likelier [predicted]."""


def windows(ids: Ids, window: int, stride: int) -> Iterator[Window]:
    """Yield windows of a text that predict each of its tokens, except the first, exactly once.

    The first window predicts all tokens that follow its first, each later window the next `stride` tokens, and the last
    window the rest. Each token is thus predicted from at least window - stride + 1 tokens before it, or from all that
    exist. A stride of 1 gives every token the whole window as context. A stride of `window` is the cheapest, but gives
    some tokens little context.

    Args:
        ids: The ids of the text.
        window: The number of tokens that the model reads at a time.
        stride: The number of tokens that each window after the first predicts.

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
    """Raise InputError if a window exceeds the context, or the stride exceeds the window and would skip tokens."""
    if not 1 <= window <= context:
        raise InputError(f"the window is {window:,} tokens; give 1 to {context:,}, the model's context")
    if not 1 <= stride <= window:
        raise InputError(
            f"the stride is {stride:,} tokens; give 1 to {window:,}, the window, so that no token is skipped"
        )


def token_losses(
    model: Transformer, hidden: Tensor, targets: Tensor, chunk_logits: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the loss of each target, and whether no other token is likelier.

    The softmax is computed in float32, or in float64 if the logits are float64.

    Args:
        model: The model.
        hidden: Hidden states from `model.hidden`, [n, dim].
        targets: The ids to predict, [n].
        chunk_logits: The largest number of logits in memory at a time; see `chunk_rows`.

    Returns:
        -log p(target) in nats, float [n], and bool [n].
    """
    chunk = chunk_rows(model, chunk_logits)
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
    """Yield the scores of each window, in order.

    Windows of about equal length form a batch. They are padded after their ends, where no token attends to the padding.

    Args:
        model: The model.
        windows: The windows to score.
        batch_tokens: The largest number of tokens in a batch, including padding; a batch has at least one window.
        progress: Called with the number of tokens and of windows done.

    Raises:
        InputError: When the loss of a token is not finite.
    """
    done = count = 0
    for some in _read_ahead(windows, READ_AHEAD * batch_tokens):
        order = sorted(range(len(some)), key=lambda place: -some[place].size)
        scores: dict[int, Scores] = {}
        while order:
            rows = max(1, batch_tokens // max(1, some[order[0]].size))
            if depends_on_length(model.config):  # a batch is rotated for its longest window
                length = table_length(model.config, some[order[0]].size)
                alike = (table_length(model.config, some[place].size) == length for place in order)
                rows = min(rows, sum(itertools.takewhile(bool, alike)))
            batch, order = order[:rows], order[rows:]
            scores.update(zip(batch, _score_batch(model, [some[place] for place in batch]), strict=True))
            done += sum(some[place].size for place in batch)
            count += len(batch)
            if progress is not None:
                progress(done, count)
        yield from (scores[place] for place in range(len(some)))


@contextmanager
def reported(
    label: str, total: int, progress: Callable[[float], None] | Progress
) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for `score` that shows the progress, and passes the finished share on to `progress`."""
    with phase("evaluating", total, "tokens") as evaluating:

        def told(done: int, _: int) -> None:
            evaluating.update(done, label=label)
            if callable(progress):
                progress(done / total)

        evaluating.update(0, label=label)
        yield told


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
    # 1. Put the windows into one batch. A target is at the place of the token before it.
    inputs = np.zeros((len(batch), max(window.size for window in batch)), np.int64)
    targets = np.full_like(inputs, IGNORED)
    for row, window in enumerate(batch):
        inputs[row, : window.size] = window.ids[:-1]
        targets[row, window.size - window.predicted : window.size] = window.ids[-window.predicted :]
    # 2. Read the batch, and compute logits only at targets.
    with torch.inference_mode():
        hidden = model.hidden(torch.from_numpy(inputs).to(device))  # [b, t, dim]
        wanted = torch.from_numpy(targets).to(device)
        chosen = wanted != IGNORED
        losses, likeliest = token_losses(model, hidden[chosen], wanted[chosen])  # [n]
        nats, first = losses.double().cpu().numpy(), likeliest.cpu().numpy()
    if not np.isfinite(nats).all():
        raise InputError(
            f"the loss of a token is {nats[~np.isfinite(nats)][0]}; the model's weights are damaged, or too large for"
            " the dtype: try float32"
        )
    # 3. Split the scores by window.
    ends = np.cumsum([window.predicted for window in batch]).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        yield Scores(nats[start:end], first[start:end])

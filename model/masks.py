"""The masks of attention: which tokens each token attends to."""

from __future__ import annotations

import torch
from torch import Tensor


def causal_mask(count: int, end: int, device: torch.device, window: int = 0) -> Tensor:
    """Return bool [t, s]: the last `count` of `end` positions attend to themselves and all positions before.

    With a window, they attend to so many positions at most.
    """
    visible = torch.ones(count, end, dtype=torch.bool, device=device).tril(diagonal=end - count)
    return visible.triu(diagonal=end - count - window + 1) if window else visible


def padded_mask(positions: Tensor, stored: Tensor, window: int = 0) -> Tensor:
    """Return the mask of sequences with padding or with several texts.

    A token attends to tokens of its own text up to itself, never to padding. Each token, padding included, attends to
    itself, so that no row is empty and no NaN arises.

    Args:
        positions: The positions of the queries, [b, t], the last t of `stored`; -1 for padding.
        stored: The positions of all slots, [b, s].
        window: The number of positions that a token attends to, itself included; 0 for all.

    Returns:
        bool [b, 1, t, s].
    """
    count, end = positions.shape[1], stored.shape[1]
    visible = (stored[:, None] <= positions[:, :, None]) & (stored >= 0)[:, None]  # [b, 1, s], [b, t, 1] -> [b, t, s]
    if window:
        visible &= stored[:, None] > positions[:, :, None] - window
    texts = (stored == 0).cumsum(1)  # [b, s], the number of the text of each slot
    visible &= texts[:, None] == texts[:, end - count :, None]
    itself = torch.eye(count, end, dtype=torch.bool, device=stored.device).roll(end - count, dims=1)
    return (visible | itself)[:, None]

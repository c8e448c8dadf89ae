"""Bounds of scores and logits, and attention with them (Gemma 2: Riviere et al. 2024, arXiv:2408.00118)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.masks import causal_mask


def attend_softcapped(
    queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None, scale: float, *, softcap: float
) -> Tensor:
    """Compute attention with scores that are bounded by `softcap`; see `model.transformer.attend`."""
    heads, groups, count, end = queries.shape[1], keys.shape[1], queries.shape[2], keys.shape[2]
    keys, values = (x.repeat_interleave(heads // groups, dim=1) for x in (keys, values))  # [b, h, s, d]
    scores = softcapped(queries @ keys.transpose(2, 3) * scale, softcap)  # [b, h, t, s]
    seen = causal_mask(count, end, queries.device) if visible is None else visible
    shares = scores.masked_fill(~seen, -math.inf).softmax(-1, dtype=torch.float32).to(values.dtype)
    return shares @ values


def softcapped(x: Tensor, bound: float) -> Tensor:
    """Return bound * tanh(x / bound), which is between -bound and bound; x itself for a bound of 0."""
    return bound * torch.tanh(x / bound) if bound else x

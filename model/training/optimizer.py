"""TODO: optimizer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from model.cpu import multiplies
from model.training.settings import TrainConfig


class _Failure(Exception):
    """What is wrong with a step that must not be taken."""


def _resolved(dtype: str, device: torch.device) -> torch.dtype:
    """What matrix products are computed in."""
    if dtype == "auto":
        return torch.bfloat16 if device.type != "cpu" or multiplies(torch.bfloat16) else torch.float32
    resolved: torch.dtype = getattr(torch, dtype)
    return resolved


_REMEMBERED_LOSSES = 100
_FEW_LOSSES = 20


def _check(loss: float, gradient_norm: float, before: Sequence[float], spike: float) -> None:
    """Raises _Failure for a step that would spoil the model, or comes from one that is spoilt.

    A loss is a spike when it exceeds the median of the last steps' by more than `spike` times their spread, which is
    the median distance from the median, scaled to be the standard deviation of normal numbers, and not taken below 2%
    of the median. Before there are enough of them, a loss 3 nats above the median is one: training begins at chance,
    and 3 nats worse is to be sure of the wrong tokens.
    """
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        raise _Failure(f"the loss is {loss} and the norm of the gradient {gradient_norm}")
    if not before:
        return
    median = statistics.median(before)
    spread = 1.4826 * statistics.median(abs(each - median) for each in before)
    allowed = 3.0 if len(before) < _FEW_LOSSES else spike * max(spread, 0.02 * median)
    if loss > median + allowed:
        raise _Failure(f"the loss is {loss:.3f}, and the median of the last {len(before)} steps {median:.3f}")


def learning_rate(share: float, config: TrainConfig) -> float:
    """The learning rate when `share` of the budget is used: a linear rise, then down to a tenth by the schedule.

    >>> config = TrainConfig(steps=1, learning_rate=1.0, warmup=0.2)
    >>> [round(learning_rate(share, config), 2) for share in (0.1, 0.2, 1)]
    [0.5, 1.0, 0.1]
    """
    if share < config.warmup:
        # The very first step is at share 0; a thousandth of the highest rate makes it count.
        return config.learning_rate * max(share / config.warmup, 1e-3)
    if config.schedule == "wsd":
        left = min(1.0, max(0.0, 1 - share) / config.decay) if config.decay else 1.0
        return config.learning_rate * (0.1 + 0.9 * left)
    rest = min(1.0, (share - config.warmup) / (1 - config.warmup)) if config.warmup < 1 else 1.0
    return config.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * rest)) / 2)


def _optimizer(parameters: Sequence[Tensor], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), with Llama's betas; only matrices decay."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = torch.device(config.device).type in ("cpu", "cuda", "mps", "xpu")
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=fused)
    for parameter in parameters:  # what the first step would make; a checkpoint is to have a place to go before it
        step = torch.zeros((), device=parameter.device if fused else "cpu")
        zeros = (torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2))
        optimizer.state[parameter] = dict(zip(("step", "exp_avg", "exp_avg_sq"), (step, *zeros), strict=True))
    return optimizer

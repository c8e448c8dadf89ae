"""The optimizer and the learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model.training.settings import TrainConfig


def learning_rate(share: float, config: TrainConfig) -> float:
    """Return the learning rate at a share of the budget: a linear rise, then a fall to a tenth of the highest rate.

    Args:
        share: Share of the budget that is used, from 0 to 1.
        config: Its learning_rate, warmup, schedule and decay are used.

    >>> config = TrainConfig(steps=1, learning_rate=1.0, warmup=0.2)
    >>> [round(learning_rate(share, config), 2) for share in (0.1, 0.2, 1)]
    [0.5, 1.0, 0.1]
    """
    if share < config.warmup:
        # The very first step is at share 0. A thousandth of the highest rate makes it count.
        return config.learning_rate * max(share / config.warmup, 1e-3)
    if config.schedule == "wsd":
        left = min(1.0, max(0.0, 1 - share) / config.decay) if config.decay else 1.0
        return config.learning_rate * (0.1 + 0.9 * left)
    rest = min(1.0, (share - config.warmup) / (1 - config.warmup)) if config.warmup < 1 else 1.0
    return config.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * rest)) / 2)


def make_optimizer(parameters: Sequence[Tensor], config: TrainConfig) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) with Llama's betas; only matrices decay.

    The state of the optimizer exists at once, filled with zeros as the first step would do, so that a checkpoint can be
    loaded into it before the first step.

    Args:
        parameters: The parameters to train.
        config: Its learning_rate, weight_decay and device are used.
    """
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = torch.device(config.device).type in ("cpu", "cuda", "mps", "xpu")
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=fused)
    for parameter in parameters:
        step = torch.zeros((), device=parameter.device if fused else "cpu")
        zeros = (torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2))
        optimizer.state[parameter] = dict(zip(("step", "exp_avg", "exp_avg_sq"), (step, *zeros), strict=True))
    return optimizer

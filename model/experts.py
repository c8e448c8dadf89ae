"""A mixture of experts: several feed-forward networks in one layer, of which a token passes through a few."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from model.config import ModelConfig


class Experts(nn.Module):
    """A router, and feed-forward networks of which it chooses a few for each token (Mixtral: Jiang et al. 2024,
    arXiv:2401.04088)."""

    def __init__(self, config: ModelConfig, experts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.chosen: int = config.n_experts_per_token
        self.normalize: bool = config.normalize_experts
        self.router: nn.Linear = nn.Linear(config.dim, config.n_experts, bias=False)
        self.experts: nn.ModuleList = nn.ModuleList(experts)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, -2)  # [b, t, dim] -> [b * t, dim]
        shares, numbers = self.router(tokens).softmax(-1, dtype=torch.float32).topk(self.chosen)  # [b * t, chosen]
        if self.normalize:
            shares = shares / shares.sum(-1, keepdim=True)
        mixed = torch.zeros_like(tokens)
        # In training, experts without tokens read no rows, so that they have gradients of zero, as in transformers: DDP
        # and FSDP wait for the gradients of all weights, and the optimizer passes over weights without gradients.
        used = range(len(self.experts)) if torch.is_grad_enabled() else numbers.unique().tolist()
        for number in used:
            rows, places = (numbers == number).nonzero(as_tuple=True)
            result = self.experts[number](tokens[rows]) * shares[rows, places, None].to(x.dtype)
            mixed = mixed.index_add(0, rows, result)
        return mixed.view_as(x)

"""Cross-attention, by which the tokens of a text read the vectors of its images (Llama 3.2 Vision)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig
from model.view import Glance


class CrossAttention(nn.Module):
    """Grouped-query attention to the vectors of images, with normalised queries and keys and without positions."""

    def __init__(self, config: ModelConfig, layer: int, q_norm: nn.Module, k_norm: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim: int = config.head_dim
        self.wq: nn.Linear = nn.Linear(config.dim, config.n_heads * config.head_dim, bias=False)
        self.wk: nn.Linear = nn.Linear(config.dim, config.n_kv_heads * config.head_dim, bias=False)
        self.wv: nn.Linear = nn.Linear(config.dim, config.n_kv_heads * config.head_dim, bias=False)
        self.wo: nn.Linear = nn.Linear(config.n_heads * config.head_dim, config.dim, bias=False)
        self.q_norm = q_norm
        self.k_norm = k_norm

    def forward(self, x: Tensor, glance: Glance) -> Tensor:
        queries = self.q_norm(self.wq(x).unflatten(-1, (-1, self.head_dim))).transpose(1, 2)  # [b, h, t, d]
        projected = glance.view.projected
        if self.layer not in projected:  # [b, s, dim] -> [b, g, s, d], once for all tokens of a text
            keys, values = (w(glance.view.states).unflatten(-1, (-1, self.head_dim)) for w in (self.wk, self.wv))
            projected[self.layer] = self.k_norm(keys).transpose(1, 2), values.transpose(1, 2)
        keys, values = projected[self.layer]
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=glance.visible, enable_gqa=queries.shape[1] != keys.shape[1]
        )
        result: Tensor = self.wo(attended.transpose(1, 2).flatten(2))  # [b, h, t, d] -> [b, t, dim]
        return result

"""The Llama 3 transformer (Dubey et al. 2024, arXiv:2407.21783), from token ids to logits.

Modules carry Meta's names, so `state_dict` has Meta's keys and Meta's checkpoints load as they are. Shapes are given
beside the lines that change them: b sequences, t new positions, s positions looked at, h heads, g key-value heads,
d numbers in a head.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpe.errors import InputError
from model.cache import KVCache
from model.config import ModelConfig

INIT_STD = 0.02


class Transformer(nn.Module):
    """A decoder-only transformer: `logits = Transformer(config)(ids)`.

    Every matrix is an `nn.Linear` that may be replaced by another module of the same signature, and what each
    attention does with its queries, keys and values is the attribute `attend` of that attention.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.init_weights()

    def forward(self, ids: Tensor, cache: KVCache | None = None, *, last_only: bool = False) -> Tensor:
        """Logits of the token that follows each of `ids`.

        ids: integers [batch, time]. With a cache, they continue the tokens it holds and are appended to it.
        Returns [batch, time, vocabulary], or [batch, 1, vocabulary] with `last_only`, in the dtype of the weights.
        Raises InputError where the positions go beyond the context.
        """
        hidden = self.hidden(ids, cache)
        return self.head(hidden[:, -1:] if last_only else hidden)

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """What the layers make of `ids`, normalised and ready for `head`: [batch, time, dim]."""
        if ids.dim() != 2 or ids.shape[1] == 0:
            raise InputError(f"ids have the shape {list(ids.shape)}; expected [batch, time] with a time of at least 1")
        start, count = (0 if cache is None else cache.length), ids.shape[1]
        rotation = rotary_rotation(self.config, start, count, ids.device)
        if cache is not None:
            cache.reserve(count)
        x = self.tok_embeddings(ids)  # [b, t] -> [b, t, dim]
        for layer in self.layers:
            x = layer(x, rotation, cache)
        if cache is not None:
            cache.advance(count)
        normalised: Tensor = self.norm(x)
        return normalised

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocabulary] of normalised hidden states [..., dim]."""
        logits: Tensor = self.output(hidden)
        return logits

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Start values for training: normal, standard deviation 0.02; norms one.

        The two matrices of a layer that write into the residual stream get 0.02 / sqrt(2 * n_layers), so that the
        stream's variance does not grow with depth (GPT-2; Radford et al. 2019, section 2.3).
        """
        if self.config.tied_embeddings:
            self.output.weight = self.tok_embeddings.weight
        residual_std = INIT_STD / math.sqrt(2 * self.config.n_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.ones_(parameter)
            else:
                std = residual_std if name.endswith(("wo.weight", "w2.weight")) else INIT_STD
                nn.init.normal_(parameter, std=std, generator=generator)


class Block(nn.Module):
    """One layer: attention, then a feed-forward network, each on a normalised copy and added back."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, x: Tensor, rotation: Tensor, cache: KVCache | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotation, cache)
        x = x + self.feed_forward(self.ffn_norm(x))
        return x


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245).

    queries [b, h, t, d]; keys and values [b, g, s, d]; the t queries stand at the last t of the s positions, and each
    sees its own and all before. Query head i looks at key-value head i // (h / g). Returns [b, h, t, d].
    """
    t, s = queries.shape[2], keys.shape[2]
    grouped = queries.shape[1] != keys.shape[1]
    if t == s or t == 1:  # torch's own causal mask, which it never builds; one query sees everything
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=t > 1, enable_gqa=grouped)
    visible = torch.ones(t, s, dtype=torch.bool, device=queries.device).tril(diagonal=s - t)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible, enable_gqa=grouped)


class Attention(nn.Module):
    """Multi-head attention with rotary positions, and fewer key-value heads than query heads."""

    attend: Callable[[Tensor, Tensor, Tensor], Tensor]

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.wq = nn.Linear(config.dim, config.n_heads * config.head_dim, bias=False)
        self.wk = nn.Linear(config.dim, config.n_kv_heads * config.head_dim, bias=False)
        self.wv = nn.Linear(config.dim, config.n_kv_heads * config.head_dim, bias=False)
        self.wo = nn.Linear(config.n_heads * config.head_dim, config.dim, bias=False)
        self.attend = attend

    def forward(self, x: Tensor, rotation: Tensor, cache: KVCache | None) -> Tensor:
        # [b, t, dim] -> [b, t, heads * d] -> [b, t, heads, d]
        queries, keys, values = (w(x).unflatten(-1, (-1, self.head_dim)) for w in (self.wq, self.wk, self.wv))
        queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        # [b, t, heads, d] -> [b, heads, t, d]
        queries, keys, values = (tensor.transpose(1, 2) for tensor in (queries, keys, values))
        if cache is not None:
            keys, values = cache.update(self.layer, keys, values)  # [b, g, t, d] -> [b, g, s, d]
        attended = self.attend(queries, keys, values)
        projected: Tensor = self.wo(attended.transpose(1, 2).flatten(2))  # [b, h, t, d] -> [b, t, h * d] -> [b, t, dim]
        return projected


class FeedForward(nn.Module):
    """A gated feed-forward network, SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))  # [b, t, dim] -> [b, t, hidden] -> [b, t, dim]
        return projected


class RMSNorm(nn.Module):
    """Division by the root mean square (Zhang and Sennrich 2019, arXiv:1910.07467), computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).type_as(x) * self.weight


def rope_frequencies(config: ModelConfig) -> list[float]:
    """Radians that each of the head_dim / 2 pairs turns between positions (Su et al. 2021, arXiv:2104.09864).

    With `use_scaled_rope`, slow pairs are slowed further, as Llama 3.1 does to reach a longer context: those whose
    wavelength exceeds rope_original_length / rope_low_freq_factor by the whole rope_scaling_factor, those below
    rope_original_length / rope_high_freq_factor not at all, those between by a linear mixture of the two.
    """
    frequencies = [config.rope_theta ** (-pair / config.head_dim) for pair in range(0, config.head_dim, 2)]
    if not config.use_scaled_rope:
        return frequencies
    low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
    scaled = []
    for frequency in frequencies:
        turns = config.rope_original_length * frequency / (2 * math.pi)  # full turns within the original context
        kept = min(1.0, max(0.0, (turns - low) / (high - low)))
        scaled.append(frequency * (kept + (1 - kept) / config.rope_scaling_factor))
    return scaled


def rotary_rotation(config: ModelConfig, start: int, count: int, device: torch.device) -> Tensor:
    """The rotations at positions start ... start + count - 1: complex64 [count, head_dim / 2], cos + i sin.

    Raises InputError where they go beyond the context.
    """
    if start + count > config.max_seq_len:
        raise InputError(
            f"{start + count} tokens, but the context of the model holds {config.max_seq_len}; shorten the input"
        )
    length = min(config.max_seq_len, 1 << max(8, (start + count - 1).bit_length()))
    return _rotary_table(config, length, device)[start : start + count]


# Kept outside of the module: a buffer would be rounded by model.to(bfloat16), and lost on the meta device.
@functools.lru_cache(maxsize=8)
def _rotary_table(config: ModelConfig, length: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a table first needed for generation must still serve for training
        positions = torch.arange(length, dtype=torch.float32, device=device)
        frequencies = torch.tensor(rope_frequencies(config), dtype=torch.float32, device=device)
        angles = torch.outer(positions, frequencies)
        return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair of neighbouring numbers of x [b, t, heads, d] by rotation [t, d / 2], in float32.

    Pairs are neighbours (2i, 2i + 1), Meta's order. As complex numbers it is one product, on two CPU cores three times
    as fast as four real ones (0.8 ms against 2.4 ms, forward and backward, for [8, 256, 8, 32]).
    """
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))  # [b, t, heads, d] -> [b, t, heads, d / 2]
    return torch.view_as_real(pairs * rotation[:, None]).flatten(-2).type_as(x)  # back to [b, t, heads, d]

"""The Llama 3 transformer (Dubey et al. 2024, arXiv:2407.21783) and its relatives, from token ids to logits.

Modules have Meta's names, so `state_dict` has Meta's keys and Meta's checkpoints load unchanged. Comments give shapes
beside the lines that change them: b sequences, t new positions, s attended positions, h query heads, g key-value heads,
d numbers in a head.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpe.errors import InputError
from model.cache import KVCache
from model.config import LayerKind, ModelConfig, QkNorm
from model.cross_attention import CrossAttention
from model.experts import Experts
from model.masks import causal_mask, padded_mask
from model.rotary import rope_frequencies, table_length
from model.softcap import attend_softcapped, softcapped
from model.view import Glance, Images, View
from model.vision import Gate, VisionEncoder

INIT_STD = 0.02
Attend: TypeAlias = "Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]"
"""Combines queries, keys and values; see `attend`."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
}


class Transformer(nn.Module):
    """A decoder-only transformer: `logits = Transformer(config)(ids)`.

    Every matrix is an `nn.Linear`, which may be replaced by another module with the same signature. The function that
    combines queries, keys and values is the attribute `attend` of each attention, which may be replaced too.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings: nn.Embedding = nn.Embedding(config.embedding_rows, config.dim)
        self.vision: VisionEncoder | None = None if config.vision is None else VisionEncoder(config.vision, config.dim)
        self.layers: nn.ModuleList = nn.ModuleList(
            CrossBlock(config, layer) if layer in config.cross_attention_layers else Block(config, layer)
            for layer in range(config.n_layers)
        )
        self.norm: RMSNorm = RMSNorm(config.dim, config.norm_eps, config.norm_offset)
        self.output: nn.Linear = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.init_weights()

    def forward(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        *,
        positions: Tensor | None = None,
        last_only: bool = False,
        images: Images | None = None,
    ) -> Tensor:
        """Return the logits of the token that follows each id.

        Args:
            ids: Integers [batch, time]. With a cache, they continue its tokens and are added to it.
            cache: The keys and values of previous tokens; None if there are none.
            positions: Integers [batch, time], the position of each id in its text. Each 0 begins another text, whose
                tokens do not attend to the tokens before it. -1 marks padding, which may be anywhere: no token attends
                to it, and its own logits are meaningless. By default, ids follow each other and the cached tokens.
            last_only: Return the logits of the last id only.
            images: The images of the texts. With a cache, they are given once, with the first ids.

        Returns:
            [batch, time, vocabulary], or [batch, 1, vocabulary] with `last_only`, in the dtype of the weights.

        Raises:
            InputError: When a shape is wrong, a position exceeds the context, or the model takes no images.
        """
        hidden = self.hidden(ids, cache, positions, images)
        return self.head(hidden[:, -1:] if last_only else hidden)

    def hidden(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        images: Images | None = None,
    ) -> Tensor:
        """Return the normalised hidden states after the last layer, [batch, time, dim]; see `forward`."""
        glance = self._glance(ids, cache, images)
        places = self._places(ids, cache, positions)
        x = self.embed(ids)
        for number, layer in enumerate(self.layers):
            if number not in self.config.cross_attention_layers:
                x = layer(x, places[self.config.layer_kind(number)], cache)
            elif glance is not None:  # without images, the layer is left out
                x = layer(x, glance)
        if cache is not None:
            cache.advance(ids.shape[1])
        normalised: Tensor = self.norm(x)
        return normalised

    @property
    def device(self) -> torch.device:
        """The device of the weights, on which ids must be."""
        return self.tok_embeddings.weight.device

    def new_cache(self, batch: int = 1, capacity: int = 0) -> KVCache:
        """Return an empty cache for this model, in the dtype and on the device of its weights."""
        weight = self.tok_embeddings.weight
        return KVCache(self.config, batch, capacity=capacity, dtype=weight.dtype, device=weight.device)

    def embed(self, ids: Tensor) -> Tensor:
        """Return the first state of the stream, [batch, time, dim], of ids [batch, time]."""
        x: Tensor = self.tok_embeddings(ids)
        if self.config.embedding_multiplier == 1:
            return x
        return x * torch.tensor(self.config.embedding_multiplier, dtype=x.dtype)

    def _glance(self, ids: Tensor, cache: KVCache | None, images: Images | None) -> Glance | None:
        """Return what `ids` see of the images that are given now or were given with the tokens in the cache."""
        view = None if cache is None else cache.view
        if images is not None:
            if self.vision is None:
                raise InputError("images are given, but the model takes none; load a model with an image encoder")
            if view is not None or (cache is not None and cache.length):
                raise InputError("images are given, but the cache has tokens; give all images with the first ids")
            view = View(self.vision(images), images.visible.flatten(2))
            if cache is not None:
                cache.view = view
        return None if view is None else view.glance(0 if cache is None else cache.length, ids.shape[1])

    def _places(self, ids: Tensor, cache: KVCache | None, positions: Tensor | None) -> dict[LayerKind, Place]:
        """Check the shapes, reserve memory in the cache, and return the place of `ids` for each kind of layer."""
        if ids.dim() != 2 or ids.shape[1] == 0:
            raise InputError(f"ids have the shape {list(ids.shape)}; expected [batch, time] with at least one id")
        batch, count = ids.shape
        if cache is not None and cache.batch != batch:
            raise InputError(f"the cache holds {cache.batch} sequences, but ids has {batch}")
        if positions is not None and positions.shape != ids.shape:
            raise InputError(f"positions have the shape {list(positions.shape)}, but ids have {list(ids.shape)}")
        start = 0 if cache is None else cache.length
        if positions is None and cache is not None:
            positions = cache.next_positions(count)
        end = start + count if positions is None else int(positions.max()) + 1
        if end > self.config.max_seq_len:
            raise InputError(
                f"{end:,} tokens, but the model's context holds {self.config.max_seq_len:,}; shorten the input"
            )
        if cache is not None:
            cache.reserve(count, positions)
        rotated = end if cache is None else cache.rotated_length(ids, end, self.hidden)
        stored = positions if cache is None or cache.positions is None else cache.positions[:, : start + count]
        kinds = {self.config.layer_kind(layer) for layer in range(self.config.n_layers)}
        slots = range(start, start + count)
        return {kind: self._place(kind, slots, end, rotated, positions, stored, ids.device) for kind in kinds}

    def _place(
        self,
        kind: LayerKind,
        slots: range,
        end: int,
        rotated: int,
        positions: Tensor | None,
        stored: Tensor | None,
        device: torch.device,
    ) -> Place:
        """Return the rotations, for `rotated` positions, and the mask of the tokens in some slots, all before `end`."""
        table = None if kind.rope == "none" else rotary_table(self.config, rotated, device, kind.rope == "local")
        if positions is None or stored is None:
            # A single query attends to everything. Without a cache, torch's causal attention needs no mask tensor.
            whole = (slots.start == 0 or len(slots) == 1) and not 0 < kind.window < end
            visible = None if whole else causal_mask(len(slots), end, device, kind.window)
            return Place(None if table is None else table[slots.start : slots.stop], visible)
        rotation = None if table is None else table[positions.clamp(min=0)]
        return Place(rotation, padded_mask(positions, stored, kind.window))

    def head(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., vocabulary] of normalised hidden states [..., dim]."""
        logits: Tensor = self.output(hidden)
        if self.config.logits_scaling != 1:
            logits = logits / self.config.logits_scaling
        return softcapped(logits, self.config.logits_softcap)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Initialise the weights for training: matrices normal with standard deviation 0.02, norms 1, biases 0.

        The two matrices of a layer that write to the residual stream, wo and w2, have 0.02 / sqrt(2 * n_layers), so
        that the variance of the stream does not grow with depth (GPT-2; Radford et al. 2019, section 2.3).

        Args:
            generator: The source of random numbers. Defaults to torch's global generator.
        """
        if self.config.tied_embeddings:
            self.output.weight = self.tok_embeddings.weight
        residual_std = INIT_STD / math.sqrt(2 * self.config.n_layers)
        for name, parameter in self.named_parameters():
            if name.endswith(("bias", "gate.weight")):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 1:
                nn.init.constant_(parameter, 0.0 if self.config.norm_offset else 1.0)
            else:
                std = residual_std if name.endswith(("wo.weight", "w2.weight")) else INIT_STD
                nn.init.normal_(parameter, std=std, generator=generator)


@dataclass(frozen=True)
class Place:
    """The places of the tokens of a forward pass: their rotations and their mask, for all layers of a kind."""

    rotation: Tensor | None
    """complex64 [t, r / 2] or [b, t, r / 2]: cos + i sin of the angles of r rotated numbers; None for no rotation."""
    visible: Tensor | None
    """bool [t, s] or [b, 1, t, s]: the slots that each token attends to; None for all slots up to its own."""

    @functools.cached_property
    def begins(self) -> Tensor | None:
        """The first slot that each token attends to: integers of the shape of `visible` without s.

        None if `visible` is None, or if a token does not attend to all slots from its first one to its own.
        """
        if self.visible is None:
            return None
        count, end = self.visible.shape[-2:]
        begins = self.visible.to(torch.uint8).argmax(-1)
        own = torch.arange(end - count, end, device=begins.device)
        return begins if torch.equal(self.visible.sum(-1), own - begins + 1) else None


class Block(nn.Module):
    """One layer: attention, then a feed-forward network.

    Each reads the normalised stream and adds to the stream, in some models normalised (once more).
    """

    attention_norm: nn.Module
    attention_post_norm: nn.Module
    ffn_norm: nn.Module
    ffn_post_norm: nn.Module

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention: Attention = Attention(config, layer)
        self.feed_forward: nn.Module = FeedForward(config, config.hidden_dim)
        if config.has_experts(layer):
            experts = (FeedForward(config, config.expert_size) for _ in range(config.n_experts))
            self.feed_forward = Experts(config, experts)
        self.residual_multiplier: float = config.residual_multiplier
        for name in ("attention", "ffn"):
            for place, exists in ((f"{name}_norm", config.pre_norm), (f"{name}_post_norm", config.post_norm)):
                norm = RMSNorm(config.dim, config.norm_eps, config.norm_offset) if exists else nn.Identity()
                self.add_module(place, norm)

    def forward(self, x: Tensor, place: Place, cache: KVCache | None) -> Tensor:
        attended = self.attention(self.attention_norm(x), place, cache)
        x = self.add(x, self.attention_post_norm(attended))
        x = self.add(x, self.ffn_post_norm(self.feed_forward(self.ffn_norm(x))))
        return x

    def add(self, x: Tensor, change: Tensor) -> Tensor:
        """Add a change to the stream."""
        return x + (change if self.residual_multiplier == 1 else change * self.residual_multiplier)


class CrossBlock(nn.Module):
    """A layer that reads images: cross-attention, then a feed-forward network, each times a gate."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        norms = (RMSNorm(config.head_dim, config.norm_eps) for _ in range(2))
        self.cross_attention: CrossAttention = CrossAttention(config, layer, *norms)
        self.attention_norm: RMSNorm = RMSNorm(config.dim, config.norm_eps)
        self.attention_gate: Gate = Gate()
        self.feed_forward: FeedForward = FeedForward(config, config.hidden_dim)
        self.ffn_norm: RMSNorm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_gate: Gate = Gate()

    def forward(self, x: Tensor, glance: Glance) -> Tensor:
        x = x + self.attention_gate(self.cross_attention(self.attention_norm(x), glance))
        x = x + self.ffn_gate(self.feed_forward(self.ffn_norm(x)) * glance.shown)
        return x


def attend(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None, scale: float) -> Tensor:
    """Compute causal grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245).

    Query head i attends to key-value head i // (h / g).

    Args:
        queries: [b, h, t, d], at the last t of the s positions.
        keys: [b, g, s, d].
        values: [b, g, s, d].
        visible: bool [t, s] or [b, 1, t, s], the positions that each query attends to; None for all positions up to its
            own, in which case t is 1 or s.
        scale: The factor of the scores.

    Returns:
        [b, h, t, d].
    """
    heads, groups = queries.shape[1], keys.shape[1]
    if queries.shape[2] == 1:
        # Queries that share a key-value head become the rows of one product. torch's own grouped-query attention takes
        # three times as long here (145 us against 46 us for 9 heads on 3 over 128 positions, bfloat16, AVX2).
        queries = queries.reshape(len(queries), groups, heads // groups, -1)  # [b, h, 1, d] -> [b, g, h / g, d]
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible, scale=scale)
        return attended.flatten(1, 2).unsqueeze(2)  # [b, g, h / g, d] -> [b, h, 1, d]
    return F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=visible, is_causal=visible is None, scale=scale, enable_gqa=heads != groups
    )


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    attend: Attend
    q_norm: nn.Module
    k_norm: nn.Module

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim: int = config.head_dim
        self.wq: nn.Linear = nn.Linear(config.dim, config.n_heads * config.head_dim, bias=config.qkv_bias)
        self.wk: nn.Linear = nn.Linear(config.dim, config.n_kv_heads * config.head_dim, bias=config.qkv_bias)
        self.wv: nn.Linear = nn.Linear(config.dim, config.n_kv_heads * config.head_dim, bias=config.qkv_bias)
        self.wo: nn.Linear = nn.Linear(config.n_heads * config.head_dim, config.dim, bias=config.wo_bias)
        self.scale: float = config.attention_scale
        self.attend = attend
        if config.attention_softcap:
            self.attend = functools.partial(attend_softcapped, softcap=config.attention_softcap)
        self.qk_norm: QkNorm = config.qk_norm
        if config.qk_norm != "none":
            for name, heads in (("q_norm", config.n_heads), ("k_norm", config.n_kv_heads)):
                width = config.head_dim * (heads if config.qk_norm == "all" else 1)
                self.add_module(name, RMSNorm(width, config.norm_eps, config.norm_offset))

    def forward(self, x: Tensor, place: Place, cache: KVCache | None) -> Tensor:
        queries, keys, values = self.project(x)  # [b, t, dim] -> [b, t, heads, d]
        if self.qk_norm != "none":
            queries, keys = self.normalise(self.q_norm, queries), self.normalise(self.k_norm, keys)
        if place.rotation is not None:
            queries, keys = rotate(queries, place.rotation), rotate(keys, place.rotation)
        # [b, t, heads, d] -> [b, heads, t, d]
        queries, keys, values = (tensor.transpose(1, 2) for tensor in (queries, keys, values))
        if cache is not None:
            keys, values = cache.update(self.layer, keys, values)  # [b, g, t, d] -> [b, g, s, d]
        attended = self.attend(queries, keys, values, place.visible, self.scale)
        projected: Tensor = self.wo(attended.transpose(1, 2).flatten(2))  # [b, h, t, d] -> [b, t, h * d] -> [b, t, dim]
        return projected

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries [b, t, h, d], keys and values [b, t, g, d] of x [b, t, dim]."""
        queries, keys, values = (w(x).unflatten(-1, (-1, self.head_dim)) for w in (self.wq, self.wk, self.wv))
        return queries, keys, values

    def normalise(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Normalise queries or keys [b, t, heads, d]: each head, or all heads together."""
        normalised: Tensor = norm(x if self.qk_norm == "head" else x.flatten(-2))
        return normalised.view_as(x)


class FeedForward(nn.Module):
    """The gated feed-forward network SwiGLU (Shazeer 2020, arXiv:2002.05202), or GeGLU with another activation."""

    def __init__(self, config: ModelConfig, hidden_dim: int) -> None:
        super().__init__()
        self.activation: str = config.activation
        self.w1: nn.Linear = nn.Linear(config.dim, hidden_dim, bias=config.ffn_bias)
        self.w2: nn.Linear = nn.Linear(hidden_dim, config.dim, bias=config.ffn_bias)
        self.w3: nn.Linear = nn.Linear(config.dim, hidden_dim, bias=config.ffn_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate = ACTIVATIONS[self.activation](self.w1(x))  # [b, t, dim] -> [b, t, hidden]
        projected: Tensor = self.w2(gate * self.w3(x))  # [b, t, hidden] -> [b, t, dim]
        return projected


class RMSNorm(nn.Module):
    """Normalisation by the root mean square (Zhang and Sennrich 2019, arXiv:1910.07467), computed in float32."""

    def __init__(self, dim: int, eps: float, offset: bool = False) -> None:
        super().__init__()
        self.eps, self.offset = eps, offset
        self.weight: nn.Parameter = nn.Parameter(torch.zeros(dim) if offset else torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        if self.offset:  # Gemma's, which rounds once, at the end
            return F.rms_norm(x.float(), x.shape[-1:], 1 + self.weight.float(), self.eps).type_as(x)
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


def rotary_table(config: ModelConfig, end: int, device: torch.device, local: bool = False) -> Tensor:
    """Return the rotations cos + i sin at positions 0 to end - 1 or more: complex64 [positions, rotated_dim / 2]."""
    return _rotary_table(config, table_length(config, end), device, local)


# Not a buffer of the module: model.to(bfloat16) would round it, and the meta device would lose it.
@functools.lru_cache(maxsize=16)
def _rotary_table(config: ModelConfig, length: int, device: torch.device, local: bool) -> Tensor:
    with torch.inference_mode(False), torch.device("cpu"):  # a table made during generation must be usable in training
        frequencies = torch.from_numpy(rope_frequencies(config, length, local=local))
        angles = torch.outer(torch.arange(length).float(), frequencies)
        sizes = torch.full_like(angles, 1.0 if local else config.rope_attention_factor)
        return torch.polar(sizes, angles).to(device)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate each pair of neighbouring numbers (2i, 2i + 1), Meta's order, in float32 or float64.

    One product of complex numbers is three times as fast on two CPU cores as four products of real numbers (0.8 ms
    against 2.4 ms, forward and backward, for [8, 256, 8, 32]).

    Args:
        x: [b, t, heads, d].
        rotation: complex64 [t, r / 2] or [b, t, r / 2]. Only the first r numbers of each head are rotated.

    Returns:
        [b, t, heads, d], in the dtype of x.
    """
    rotated = 2 * rotation.shape[-1]
    if rotated < x.shape[-1]:
        return torch.cat((rotate(x[..., :rotated], rotation), x[..., rotated:]), dim=-1)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if torch.compiler.is_compiling():  # the compiler writes no code for complex numbers, and fuses the four products
        cos, sin = torch.view_as_real(rotation).unsqueeze(-3).unbind(-1)  # [(b,) t, 1, r / 2]
        first, second = wide.reshape(*x.shape[:-1], -1, 2).unbind(-1)
        return torch.stack((first * cos - second * sin, first * sin + second * cos), -1).flatten(-2).type_as(x)
    pairs = torch.view_as_complex(wide.reshape(*x.shape[:-1], -1, 2))  # [b, t, heads, d] -> [b, t, heads, d / 2]
    return torch.view_as_real(pairs * rotation.unsqueeze(-2)).flatten(-2).type_as(x)  # back to [b, t, heads, d]

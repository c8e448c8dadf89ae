"""Faster layers and attention on a CPU, applied to a model from outside.

`pack`, for generation: weights in the layout that oneDNN reads fastest, and attention over prompts in blocks.
`widen`, for 16-bit weights on a CPU without matrix instructions for them: matrix products in float32.
"""

from __future__ import annotations

import functools
import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.memory import return_freed_memory
from model.transformer import Attend, Attention, Block, FeedForward, RMSNorm, Transformer, attend

# With this many rows or more, widening the weights costs less than multiplying without instructions for them. One
# thread of an AVX2 machine, 576 x 1536 in bfloat16: 1 row 0.26 ms, 8 rows 1.6 ms; widened, 8 rows 0.70 ms.
WIDE_ROWS = 4
_CHUNK = 1 << 20  # weights widened at a time: 4 MiB, which stay in the cache

# Number of queries in a block of attention. 9 query heads of 64 on 3 key heads over 1,024 positions, two cores of an
# AMD EPYC 9005, bfloat16: 4.9 ms, against 10.0 ms of torch's own attention; over 64 positions 0.18 and 0.09 ms.
BLOCK = 128

# oneDNN's name, and its variant, of each activation.
_FUSED_ACTIVATIONS = {"silu": ("swish", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh")}


def has_matrix_instructions(dtype: torch.dtype) -> bool:
    """Return whether this CPU has matrix instructions for a dtype."""
    supported = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return bool(supported[dtype]()) if dtype in supported else True


# --- for generation: oneDNN's layout ---


def can_pack(weight: Tensor) -> bool:
    """Return whether oneDNN multiplies weights on this device and of this dtype."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and has_matrix_instructions(weight.dtype)
    )


def pack(model: Transformer) -> None:
    """Lay out the matrices of a model for fast generation on this CPU, in place; do nothing where that does not help.

    The model cannot be trained or saved afterwards. Layers are packed one after the other, so that memory holds only
    one layer twice. Tied embeddings stay plain, because they are also used as a lookup table.
    """
    if not can_pack(model.tok_embeddings.weight):
        return
    for layer in model.layers:
        if isinstance(layer, Block):  # not one that reads images
            layer.add_module("attention", PackedAttention(layer.attention))
        for name, child in [*layer.named_modules()]:
            if type(child) is FeedForward:  # one, or one for each expert
                layer.set_submodule(name, PackedFeedForward(child))
    if not model.config.tied_embeddings:
        model.add_module("output", PackedLinear(model.output))
    return_freed_memory()


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none", variant: str = "") -> Tensor:
    """Compute `F.linear` with oneDNN, and the function that follows it.

    In float32, F.linear uses MKL, which reaches 200 GFLOP/s on two cores of an AMD EPYC 9005; oneDNN reaches 450.

    Args:
        x: [..., in].
        weight: [out, in], plain or packed.
        bias: [out]; None for no bias.
        then: "none", or the name of a function in oneDNN, such as "swish".
        variant: The variant of that function, such as "tanh".
    """
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.default(x.contiguous(), weight, bias, then, [], variant))


class PackedLinear(nn.Module):
    """One or several `nn.Linear` layers of the same input, side by side, with their weights in oneDNN's layout.

    One row in bfloat16 through 1536 x 576 takes 43 us, and 68 us in the plain layout (two cores of an AMD EPYC 9005).
    """

    def __init__(self, *linears: nn.Linear) -> None:
        super().__init__()
        weight = torch.cat([linear.weight.detach() for linear in linears])  # [out, in]
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1)  # the best layout for one row
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.bias = torch.cat(biases) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        return multiply(x, self.weight, self.bias)


class PackedAttention(Attention):
    """`Attention` that computes queries, keys and values in one product."""

    def __init__(self, plain: Attention) -> None:
        nn.Module.__init__(self)
        self.layer, self.head_dim, self.scale, self.qk_norm = plain.layer, plain.head_dim, plain.scale, plain.qk_norm
        self.attend = attend_in_blocks if plain.attend is attend else plain.attend
        self.widths = [w.out_features // plain.head_dim for w in (plain.wq, plain.wk, plain.wv)]
        self.wqkv = PackedLinear(plain.wq, plain.wk, plain.wv)
        self.add_module("wo", PackedLinear(plain.wo))
        for name, norm in plain.named_children():
            if isinstance(norm, RMSNorm):
                self.add_module(name, norm)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = self.wqkv(x).unflatten(-1, (-1, self.head_dim)).split(self.widths, dim=-2)
        return queries, keys, values


class PackedFeedForward(nn.Module):
    """`FeedForward` that applies activation and gate to the products before they are rounded and stored."""

    def __init__(self, plain: FeedForward) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = PackedLinear(plain.w1), PackedLinear(plain.w2), PackedLinear(plain.w3)
        self.activation = _FUSED_ACTIVATIONS[plain.activation]

    def forward(self, x: Tensor) -> Tensor:
        gate = multiply(x, self.w1.weight, self.w1.bias, *self.activation)  # [b, t, dim] -> [b, t, hidden]
        gated = torch.ops.mkldnn._linear_pointwise.binary(x.contiguous(), gate, self.w3.weight, self.w3.bias, "mul")
        projected: Tensor = self.w2(gated)  # [b, t, hidden] -> [b, t, dim]
        return projected


def attend_in_blocks(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None, scale: float) -> Tensor:
    """Compute `attend` in blocks of queries: float32 scores with all visible keys, then their softmax.

    For prompts; a few queries go to `attend`. torch's own attention multiplies with MKL, which takes four times as long
    as oneDNN on AMD's processors.

    Args:
        queries: [batch, heads, time, head_dim].
        keys: [batch, kv_heads, end, head_dim].
        values: [batch, kv_heads, end, head_dim].
        visible: Boolean mask, as `attend` takes it; None for causal attention.
        scale: The factor of the scores.

    Returns:
        [batch, heads, time, head_dim].
    """
    batch, heads, count, width = queries.shape
    groups, end = keys.shape[1:3]
    if count < BLOCK or torch.is_grad_enabled():
        return attend(queries, keys, values, visible, scale)
    # [b, h, t, d] -> [b, g, h / g, t, d]
    grouped = (queries.float() * scale).view(batch, groups, heads // groups, count, width)
    attended = queries.new_empty(grouped.shape)
    wide_keys = keys.float()
    later = torch.full((BLOCK, BLOCK), -math.inf).triu(1)
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        size = block.stop - start
        seen = end - count + block.stop if visible is None else end
        for row in range(batch):
            hidden = None if visible is None else ~visible.expand(batch, 1, count, end)[row, :, block]  # [1, size, s]
            for group in range(groups):
                asked = grouped[row, group, :, block].flatten(0, 1)  # [h / g, size, d] -> [h / g * size, d]
                scores = multiply(asked, wide_keys[row, group, :seen]).view(-1, size, seen)
                if hidden is None:
                    scores[..., seen - size :] += later[:size, :size]
                else:
                    scores.masked_fill_(hidden, -math.inf)
                shares = scores.softmax(-1).to(values.dtype)
                mixed = multiply(shares.flatten(0, 1), values[row, group, :seen].t().contiguous())
                attended[row, group, :, block] = mixed.view(-1, size, width)
    return attended.flatten(1, 2)  # [b, g, h / g, t, d] -> [b, h, t, d]


# --- 16-bit weights that this CPU has no matrix instructions for ---


def widen(model: Transformer) -> None:
    """Make linear layers and attention compute in float32, in place, when this CPU cannot multiply the weights' dtype.

    The weights stay as they are, and are widened piece by piece. Single tokens are multiplied directly, where reading
    the weights is the limit. Results are rounded once, at the end, so they are no less exact.
    """
    weight = model.tok_embeddings.weight
    if weight.device.type != "cpu" or has_matrix_instructions(weight.dtype):
        return
    for module in list(model.modules()):
        if isinstance(module, Attention):
            module.attend = functools.partial(wide_attend, module.attend)
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, WideLinear.of(child))


class WideLinear(nn.Linear):
    """`nn.Linear` with 16-bit weights and 32-bit sums: [..., in] -> [..., out], in the dtype of the input."""

    @classmethod
    def of(cls, linear: nn.Linear) -> WideLinear:
        """Return the same layer, sharing its weights."""
        wide = cls(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        wide.weight, wide.bias = linear.weight, linear.bias
        return wide

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // self.in_features
        if rows < WIDE_ROWS or x.dtype == torch.float32 or torch.is_grad_enabled():
            return F.linear(x, self.weight, self.bias)
        wide = x.reshape(rows, -1).float()  # [..., in] -> [rows, in]
        result = x.new_empty(rows, self.out_features)
        step = max(1, _CHUNK // self.in_features)
        for start in range(0, self.out_features, step):
            some = slice(start, start + step)
            bias = None if self.bias is None else self.bias[some].float()
            result[:, some] = F.linear(wide, self.weight[some].float(), bias)
        return result.view(*x.shape[:-1], self.out_features)  # [rows, out] -> [..., out]


def wide_attend(
    attend: Attend, queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None, scale: float
) -> Tensor:
    """Compute `attend`, in float32 for more than one query."""
    if queries.shape[2] == 1 or torch.is_grad_enabled():
        return attend(queries, keys, values, visible, scale)
    return attend(queries.float(), keys.float(), values.float(), visible, scale).type_as(queries)

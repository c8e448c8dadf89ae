"""What makes a model fast on a CPU, put into it from outside: layers and attention that take the place of its own.

Weights of 16 bits on a CPU whose matrix instructions know no such numbers are widened (`widen`). For generation,
weights are laid out as oneDNN reads them fastest, and prompts are attended to in blocks (`pack`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.memory import return_freed_memory
from model.transformer import Attention, Block, FeedForward, Transformer, attend

# From so many rows on, widening the weights costs less than multiplying without instructions for them. One thread of
# an AVX2 machine, 576 x 1536 in bfloat16: 1 row 0.26 ms, 8 rows 1.6 ms; widened, 8 rows 0.70 ms.
WIDE_ROWS = 4
_CHUNK = 1 << 20  # weights widened at a time: 4 MiB that stay in the cache

# Queries that are attended to together. 9 heads of 64 on 3 over 1,024 positions, two cores of an AMD EPYC 9005, in
# bfloat16: 4.9 ms, torch's own attention 10.0 ms; over 64 positions 0.18 and 0.09 ms.
BLOCK = 128


def multiplies(dtype: torch.dtype) -> bool:
    """Whether this CPU has matrix instructions for numbers of this type."""
    supported = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return bool(supported[dtype]()) if dtype in supported else True


# --- for generation: oneDNN's layout ---


def packs(weight: Tensor) -> bool:
    """Whether oneDNN is there for weights of this device and type."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and multiplies(weight.dtype)
    )


def pack(model: Transformer) -> None:
    """Make a model ready for generation on this CPU, where that helps; it can then not be trained or saved any more.

    Its matrices are laid out anew, one layer after the other. Tied embeddings stay as they are, for they are looked up
    as well.
    """
    if not packs(model.tok_embeddings.weight):
        return
    for layer in cast("list[Block]", model.layers):
        layer.add_module("attention", PackedAttention(layer.attention))
        layer.add_module("feed_forward", PackedFeedForward(layer.feed_forward))
    if not model.config.tied_embeddings:
        model.add_module("output", PackedLinear(model.output))
    return_freed_memory()


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    """`F.linear` by oneDNN, and the function that follows it: x [..., in], weight [out, in], plain or packed.

    In float32, F.linear asks MKL, which on an AMD EPYC 9005 makes 200 GFLOP/s on two cores, and oneDNN 450.
    """
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.default(x.contiguous(), weight, bias, then, [], ""))


class PackedLinear(nn.Module):
    """One or several `nn.Linear` of the same input, side by side, with their weights in oneDNN's layout.

    One row of bfloat16 through 1536 x 576 takes 43 us, 68 us without (two cores of an AMD EPYC 9005).
    """

    def __init__(self, *linears: nn.Linear) -> None:
        super().__init__()
        weight = torch.cat([linear.weight.detach() for linear in linears])  # [out, in]
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1)  # the layout that is best for one row
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.bias = torch.cat(biases) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        return multiply(x, self.weight, self.bias)


class PackedAttention(Attention):
    """`Attention` with one product for queries, keys and values."""

    def __init__(self, plain: Attention) -> None:
        nn.Module.__init__(self)
        self.layer, self.head_dim = plain.layer, plain.head_dim
        self.attend = attend_in_blocks
        self.widths = [w.out_features // plain.head_dim for w in (plain.wq, plain.wk, plain.wv)]
        self.wqkv = PackedLinear(plain.wq, plain.wk, plain.wv)
        self.add_module("wo", PackedLinear(plain.wo))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = self.wqkv(x).unflatten(-1, (-1, self.head_dim)).split(self.widths, dim=-2)
        return queries, keys, values


class PackedFeedForward(nn.Module):
    """`FeedForward` whose products are followed by what is done with them before they are rounded and stored."""

    def __init__(self, plain: FeedForward) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = PackedLinear(plain.w1), PackedLinear(plain.w2), PackedLinear(plain.w3)

    def forward(self, x: Tensor) -> Tensor:
        gate = multiply(x, self.w1.weight, then="swish")  # [b, t, dim] -> [b, t, hidden]
        gated = torch.ops.mkldnn._linear_pointwise.binary(x.contiguous(), gate, self.w3.weight, None, "mul")
        projected: Tensor = self.w2(gated)  # [b, t, hidden] -> [b, t, dim]
        return projected


def attend_in_blocks(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
    """`attend`, for prompts: the scores of a block of queries with all they see, in float32, then their softmax.

    torch's own attention multiplies by MKL, four times as slowly as oneDNN on AMD's processors.
    """
    batch, heads, count, width = queries.shape
    groups, end = keys.shape[1:3]
    if count < BLOCK or torch.is_grad_enabled():
        return attend(queries, keys, values, visible)
    # [b, h, t, d] -> [b, g, h / g, t, d]
    grouped = (queries.float() / math.sqrt(width)).view(batch, groups, heads // groups, count, width)
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


# --- weights of 16 bits that this CPU cannot multiply ---


def widen(model: Transformer) -> None:
    """Let the linear layers and the attention of a model whose weights this CPU cannot multiply do so in float32.

    The weights stay as they are and are widened piece by piece; one token at a time goes the direct way, which is
    bound by reading them. Results are rounded once, at the end, and so no less exact.
    """
    weight = model.tok_embeddings.weight
    if weight.device.type != "cpu" or multiplies(weight.dtype):
        return
    for module in list(model.modules()):
        if isinstance(module, Attention):
            module.attend = wide_attend
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, WideLinear.of(child))


class WideLinear(nn.Linear):
    """`nn.Linear` with weights of 16 bits and sums of 32: [..., in] -> [..., out], in the dtype of the input."""

    @classmethod
    def of(cls, linear: nn.Linear) -> WideLinear:
        """The same layer, with the same weights."""
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


def wide_attend(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
    """`attend`, in float32 for more than one token."""
    if queries.shape[2] == 1 or torch.is_grad_enabled():
        return attend(queries, keys, values, visible)
    return attend(queries.float(), keys.float(), values.float(), visible).type_as(queries)


@contextlib.contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """Keep torch's operations to the thread that calls them.

    The threads of OpenMP go on spinning for some milliseconds after they have had work, and take the processor from the
    threads of a `NativeModel`: with a softmax on two threads between its steps it wrote 128 tokens a second, not 415.
    """
    threads = torch.get_num_threads()
    if when:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if when:
            torch.set_num_threads(threads)

"""Layers that train faster on a CPU, put into a model from outside: gradients by hand, of what is read anew each time.

There, what is not a matrix product waits for memory, and a third of a step of the plain layers does. Here a norm's
weights are multiplied into the matrices that follow it, which are smaller than the hidden states; only what cannot be
had again from one pass is kept for the gradients; and what stands between two products is done in blocks of rows that
stay in the processor's cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model import _core
from model.cache import KVCache
from model.transformer import Attention, Block, FeedForward, Place, RMSNorm, Transformer, attend, rotate

_BLOCK = 1 << 16  # numbers of each matrix that are worked on at a time: 256 KiB


def fuse(model: Transformer) -> None:
    """Let the layers of a model that is trained on a CPU compute as `FusedBlock` says. Names and weights stay."""
    for layer in model.layers:
        if type(layer) is Block:
            layer.__class__ = FusedBlock


class FusedBlock(Block):
    """`Block`, to rounding, while gradients are wanted and all its parts are what they were built as.

    With adapters, hooks or biases in it, weights cut among processes, in torch.compile or on another device, it is the
    plain one.
    """

    def forward(self, x: Tensor, place: Place, cache: KVCache | None) -> Tensor:
        if not (cache is None and torch.is_grad_enabled() and x.device.type == "cpu" and _is_plain(self)):
            return super().forward(x, place, cache)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        attention, ffn = self.attention, self.feed_forward
        if dtype == x.dtype == torch.float32 and attention.attend is attend:
            begins = place.begins
            if (begins is None) == (place.visible is None):
                result: Tensor = _Layer.apply(
                    x,
                    place.rotation,
                    begins,
                    attention.head_dim,
                    self.ffn_norm.eps,
                    *(self.get_parameter(name) for name in _WEIGHTS),
                )  # type: ignore[no-untyped-call]
                return result
        norm, wq, wk, wv = self.attention_norm, attention.wq, attention.wk, attention.wv
        projected = _Project.apply(  # type: ignore[no-untyped-call]
            x, norm.weight, wq.weight, wk.weight, wv.weight, place.rotation, norm.eps, dtype
        )
        queries, keys, values = (tensor.transpose(1, 2) for tensor in projected)  # [b, t, heads, d] -> [b, heads, t, d]
        attended = attention.attend(queries, keys, values, place.visible)
        x = x + attention.wo(attended.transpose(1, 2).flatten(2))
        norm = self.ffn_norm
        result = _FeedForward.apply(  # type: ignore[no-untyped-call]
            x, norm.weight, ffn.w1.weight, ffn.w2.weight, ffn.w3.weight, norm.eps, dtype
        )
        return result


def _is_plain(block: Block) -> bool:
    attention, ffn = block.attention, block.feed_forward
    linears = (attention.wq, attention.wk, attention.wv, attention.wo, ffn.w1, ffn.w2, ffn.w3)
    norms = (block.attention_norm, block.ffn_norm)
    return (
        type(attention) is Attention
        and type(ffn) is FeedForward
        and all(is_plain_linear(linear) for linear in linears)
        and all(type(norm) is RMSNorm and type(norm.weight) is nn.Parameter for norm in norms)
        and not any(_has_hooks(part) for part in (attention, ffn, *norms))
    )


def is_plain_linear(module: nn.Module) -> bool:
    """Whether it is its weight and nothing else: no adapter, no bias, no hook, not distributed, not compiled."""
    return (
        type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and module.bias is None
        and not _has_hooks(module)
        and not torch.compiler.is_compiling()
    )


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


# --- in float32: by kernels of our own ---

_WEIGHTS = tuple(f"{name}.weight" for name in (
    "attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo", "ffn_norm", "feed_forward.w1",
    "feed_forward.w2", "feed_forward.w3"))  # fmt: skip


def trainer() -> _core.LayerTrainer:
    """Kernels with as many threads as torch has now."""
    return _trainer(torch.get_num_threads())


@functools.lru_cache(maxsize=2)
def _trainer(threads: int) -> _core.LayerTrainer:
    return _core.LayerTrainer(threads)


def arrays(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Of float32 or int64 on the CPU, for the kernels: themselves, or copies of those that have gaps.

    The kernels take them by DLPack. As NumPy's arrays, their memory could not be freed any more, as FSDP does.
    """
    return [tensor.detach().contiguous() for tensor in tensors]


class _Layer(torch.autograd.Function):
    """A whole layer."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rotation: Tensor, begins: Tensor | None, head_dim: int, eps: float, *weights: Tensor
    ) -> Tensor:
        """x [b, t, dim] -> [b, t, dim]; begins, integers [(b,) t], is the first token that each looks at."""
        batch, time, dim = x.shape
        queries, keys, hidden = len(weights[1]), len(weights[2]), len(weights[6])
        shape = _core.LayerShape(batch, time, dim, queries // head_dim, keys // head_dim, head_dim, hidden, eps)
        if begins is not None:
            begins = begins.expand(batch, -1, time).contiguous()
        rotation = torch.view_as_real(rotation)
        sizes = (1, queries, keys, keys, queries, dim, 1, hidden, hidden)
        states = [torch.empty(batch * time, size) for size in sizes]
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        _run(trainer().forward, shape, weights, rotation, begins, x, arrays(states), result)
        ctx.shape = shape
        ctx.save_for_backward(x, rotation, begins, *weights, *states)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, rotation, begins, *others = ctx.saved_tensors
        weights, states = others[: len(_WEIGHTS)], others[len(_WEIGHTS) :]
        x_slope = torch.empty_like(x, memory_format=torch.contiguous_format)
        slopes = [torch.empty_like(weight) for weight in weights]
        ends = (arrays(states), *arrays((slope, x_slope)), arrays(slopes))
        _run(trainer().backward, ctx.shape, weights, rotation, begins, x, *ends)
        return x_slope, None, None, None, None, *slopes


def _run(
    function: Callable[..., None], shape: Any, weights: Sequence[Tensor], rotation: Tensor, begins: Tensor | None,
    x: Tensor, *others: Any,
) -> None:  # fmt: skip
    angles, given = arrays((rotation, x))
    function(shape, arrays(weights), angles, begins, given, *others)


# --- in other types: between torch's products ---


class _Project(torch.autograd.Function):
    """A norm, the projections to queries, keys and values, and the rotation of the first two."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, rotation: Tensor, eps: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """x [b, t, dim] -> [b, t, h, d], and twice [b, t, g, d], in dtype."""
        inverse = _inverse_norm(x, eps)
        unit = (x * inverse).to(dtype).flatten(0, 1)  # [b * t, dim]
        width = 2 * rotation.shape[-1]
        queries, keys, values = (
            (unit @ _scaled(w, scale, dtype).t()).view(*x.shape[:-1], -1, width) for w in (wq, wk, wv)
        )
        ctx.save_for_backward(x, inverse, scale, wq, wk, wv, rotation)
        return rotate(queries, rotation), rotate(keys, rotation), values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, scale, wq, wk, wv, rotation = ctx.saved_tensors
        back = rotation.conj()
        slopes = [tensor.flatten(2).flatten(0, 1) for tensor in (rotate(queries, back), rotate(keys, back), values)]
        unit = x * inverse
        weights, slope, scale_slope = _product_slopes(unit.to(values.dtype).flatten(0, 1), scale, (wq, wk, wv), slopes)
        return _norm_slope(slope.view_as(x), unit, inverse), scale_slope, *weights, None, None, None


class _FeedForward(torch.autograd.Function):
    """A norm, the gated feed-forward network, and the addition of its input."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        """x [b, t, dim] -> [b, t, dim], in its dtype; products in dtype."""
        inverse = _inverse_norm(x, eps)
        unit = (x * inverse).to(dtype).flatten(0, 1)  # [b * t, dim]
        gate, up = (unit @ _scaled(w, scale, dtype).t() for w in (w1, w3))  # [b * t, hidden]
        gated = torch.empty_like(gate)
        for some_gate, some_up, some in _blocks(gate, up, gated):
            torch.mul(F.silu(some_gate), some_up, out=some)
        ctx.save_for_backward(x, inverse, scale, w1, w2, w3, gate, up)
        if dtype == x.dtype:
            return torch.addmm(x.flatten(0, 1), gated, w2.t()).view_as(x)
        return x + (gated @ w2.to(dtype).t()).view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, scale, w1, w2, w3, gate, up = ctx.saved_tensors
        dtype = gate.dtype
        given = slope.to(dtype).flatten(0, 1)
        gated_slope = given @ w2.to(dtype)  # [b * t, hidden], which becomes the slope of up
        gated, gate_slope = torch.empty_like(gate), torch.empty_like(gate)
        for some_gate, some_up, some, d_some, d_gate in _blocks(gate, up, gated, gated_slope, gate_slope):
            activated = F.silu(some_gate)
            torch.mul(activated, some_up, out=some)
            torch.ops.aten.silu_backward.grad_input(d_some * some_up, some_gate, grad_input=d_gate)
            d_some.mul_(activated)
        w2_slope = (given.t() @ gated).to(w2.dtype)
        unit = x * inverse
        weights, unit_slope, scale_slope = _product_slopes(
            unit.to(dtype).flatten(0, 1), scale, (w1, w3), (gate_slope, gated_slope)
        )
        x_slope = _norm_slope(unit_slope.view_as(x), unit, inverse).add_(slope)
        return x_slope, scale_slope, weights[0], w2_slope, weights[1], None, None


def _inverse_norm(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean of squares + eps) of the rows: [..., 1]."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _scaled(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix [out, in] that does to a row what weight does to scale * row."""
    return (weight * scale).to(dtype)


def _product_slopes(
    unit: Tensor, scale: Tensor, weights: Sequence[Tensor], slopes: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Of unit * scale @ weight.t() for each of the weights: the slopes of the weights, of unit, and of scale."""
    weight_slopes, unit_slope, scale_slope = [], torch.zeros_like(unit), torch.zeros_like(scale)
    for weight, slope in zip(weights, slopes, strict=True):
        unit_slope.addmm_(slope, _scaled(weight, scale, unit.dtype))
        scaled_slope = (slope.t() @ unit).to(weight.dtype)
        scale_slope += (scaled_slope * weight).sum(0)
        weight_slopes.append(scaled_slope.mul_(scale))
    return weight_slopes, unit_slope, scale_slope


def _norm_slope(slope: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """The slope of x, given that of unit = x * inverse(x)."""
    slope = slope.to(unit.dtype)
    along: Tensor = torch.linalg.vecdot(slope, unit).unsqueeze(-1).div_(-unit.shape[-1])
    return slope.addcmul_(unit, along).mul_(inverse)


def _blocks(*matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Matrices of equal shape in blocks of some rows."""
    rows = max(1, _BLOCK // matrices[0].shape[1])
    return zip(*(torch.split(matrix, rows) for matrix in matrices), strict=True)

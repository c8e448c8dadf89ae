"""Layers that train faster on a CPU, applied to a model from outside, with hand-written backward passes.

On a CPU, everything but the matrix products is limited by memory bandwidth, and takes a third of a step of the plain
layers. Here the weights of a norm are multiplied into the matrices that follow it, which are smaller than the hidden
states. Only activations that one pass over memory cannot recompute are stored for the backward pass. Operations between
two matrix products work on blocks of rows that stay in the processor's cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model import _core
from model.cache import KVCache
from model.transformer import Attention, Block, FeedForward, Place, RMSNorm, Transformer, attend, rotate

_BLOCK = 1 << 16  # elements of a matrix in a block of rows: 256 KiB in float32


def fuse(model: Transformer) -> None:
    """Turn the layers of a model into `FusedBlock`s, in place. Names and weights stay the same."""
    for layer in model.layers:
        if type(layer) is Block:
            layer.__class__ = FusedBlock


class FusedBlock(Block):
    """A `Block` that computes the same, up to rounding, with hand-written backward passes.

    It falls back to the plain block without gradients, with a cache, with adapters, hooks or biases, with parts
    that only relatives of Llama have, with sharded weights, within torch.compile and on other devices than a CPU.
    """

    def forward(self, x: Tensor, place: Place, cache: KVCache | None) -> Tensor:
        if not (cache is None and torch.is_grad_enabled() and x.device.type == "cpu" and _is_plain(self, place)):
            return super().forward(x, place, cache)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        attention, ffn = self.attention, cast(FeedForward, self.feed_forward)
        if x.dtype == torch.float32 and has_kernels(dtype) and attention.attend is attend:
            begins = place.begins
            plain_scale = attention.scale == attention.head_dim**-0.5
            if plain_scale and (begins is None) == (place.visible is None):
                result: Tensor = _Layer.apply(
                    x,
                    place.rotation,
                    begins,
                    attention.head_dim,
                    self.ffn_norm.eps,
                    dtype,
                    *(self.get_parameter(name) for name in _WEIGHTS),
                )  # type: ignore[no-untyped-call]
                return result
        norm, wq, wk, wv = self.attention_norm, attention.wq, attention.wk, attention.wv
        projected = _Project.apply(  # type: ignore[no-untyped-call]
            x, norm.weight, wq.weight, wk.weight, wv.weight, place.rotation, norm.eps, dtype
        )
        queries, keys, values = (tensor.transpose(1, 2) for tensor in projected)  # [b, t, heads, d] -> [b, heads, t, d]
        attended = attention.attend(queries, keys, values, place.visible, attention.scale)
        x = x + attention.wo(attended.transpose(1, 2).flatten(2))
        norm = self.ffn_norm
        result = _FeedForward.apply(  # type: ignore[no-untyped-call]
            x, norm.weight, ffn.w1.weight, ffn.w2.weight, ffn.w3.weight, norm.eps, dtype
        )
        return result


def _is_plain(block: Block, place: Place) -> bool:
    """Return whether a block consists of the modules of a Llama's, as it was built with, without hooks."""
    attention, ffn = block.attention, block.feed_forward
    if type(attention) is not Attention or type(ffn) is not FeedForward:
        return False
    linears = (attention.wq, attention.wk, attention.wv, attention.wo, ffn.w1, ffn.w2, ffn.w3)
    norms = (block.attention_norm, block.ffn_norm)
    return (
        all(is_plain_linear(linear) for linear in linears)
        and all(type(norm) is RMSNorm and type(norm.weight) is nn.Parameter and not norm.offset for norm in norms)
        and not any(_has_hooks(part) for part in (attention, ffn, *norms))
        and type(block.attention_post_norm) is type(block.ffn_post_norm) is nn.Identity
        and (block.residual_multiplier, attention.qk_norm, ffn.activation) == (1, "none", "silu")
        and place.rotation is not None
        and 2 * place.rotation.shape[-1] == attention.head_dim
    )


def is_plain_linear(module: nn.Module) -> bool:
    """Return whether a module is an `nn.Linear` without adapter, bias or hooks, neither sharded nor compiled."""
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


# --- in float32, and in bfloat16 where the processor multiplies it: with our own kernels ---

_WEIGHTS = tuple(f"{name}.weight" for name in (
    "attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo", "ffn_norm", "feed_forward.w1",
    "feed_forward.w2", "feed_forward.w3"))  # fmt: skip


def has_kernels(dtype: torch.dtype) -> bool:
    """Return whether this processor has kernels of our own for matrix products in a dtype, with float32 results."""
    return dtype == torch.float32 or (dtype == torch.bfloat16 and _core.trains_in_bfloat16())


def trainer(dtype: torch.dtype = torch.float32) -> _core.LayerTrainer:
    """Return the kernels for matrix products in a dtype, with as many threads as torch uses now."""
    return _trainer(torch.get_num_threads(), dtype == torch.bfloat16)


@functools.lru_cache(maxsize=2)
def _trainer(threads: int, bfloat16: bool) -> _core.LayerTrainer:
    return _core.LayerTrainer(threads, bfloat16=bfloat16)


def arrays(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return contiguous tensors for the kernels: the tensors themselves, or copies of those that are not contiguous.

    The kernels read tensors through DLPack. As NumPy arrays, their memory could not be freed later, as FSDP does.

    Args:
        tensors: float32 or int64, on the CPU.
    """
    return [tensor.detach().contiguous() for tensor in tensors]


class _Layer(torch.autograd.Function):
    """A whole layer: attention and feed-forward network, with their norms and residual additions."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rotation: Tensor, begins: Tensor | None, head_dim: int, eps: float, dtype: torch.dtype,
        *weights: Tensor,
    ) -> Tensor:  # fmt: skip
        """x [b, t, dim] -> [b, t, dim]; begins, integers [(b,) t], is the first token that each token attends to.

        Matrix products are in dtype; everything else is in float32.
        """
        batch, time, dim = x.shape
        queries, keys, hidden = len(weights[1]), len(weights[2]), len(weights[6])
        shape = _core.LayerShape(batch, time, dim, queries // head_dim, keys // head_dim, head_dim, hidden, eps)
        if begins is not None:
            begins = begins.view(-1, 1, time).expand(batch, -1, time).contiguous()  # without positions: [t]
        rotation = torch.view_as_real(rotation)
        sizes = (1, queries, keys, keys, queries, dim, 1, hidden, hidden)
        states = [torch.empty(batch * time, size) for size in sizes]
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        _run(trainer(dtype).forward, shape, weights, rotation, begins, x, arrays(states), result)
        ctx.shape, ctx.dtype = shape, dtype
        ctx.save_for_backward(x, rotation, begins, *weights, *states)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, rotation, begins, *others = ctx.saved_tensors
        weights, states = others[: len(_WEIGHTS)], others[len(_WEIGHTS) :]
        x_grad = torch.empty_like(x, memory_format=torch.contiguous_format)
        grads = [torch.empty_like(weight) for weight in weights]
        ends = (arrays(states), *arrays((grad, x_grad)), arrays(grads))
        _run(trainer(ctx.dtype).backward, ctx.shape, weights, rotation, begins, x, *ends)
        return x_grad, None, None, None, None, None, *grads


def _run(
    function: Callable[..., None], shape: Any, weights: Sequence[Tensor], rotation: Tensor, begins: Tensor | None,
    x: Tensor, *others: Any,
) -> None:  # fmt: skip
    angles, given = arrays((rotation, x))
    function(shape, arrays(weights), angles, begins, given, *others)


# --- in other dtypes: between torch's matrix products ---


class _Project(torch.autograd.Function):
    """A norm, the projections to queries, keys and values, and the rotation of queries and keys."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, rotation: Tensor, eps: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """x [b, t, dim] -> queries [b, t, heads, d], keys and values [b, t, kv_heads, d], in dtype."""
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
        grads = [tensor.flatten(2).flatten(0, 1) for tensor in (rotate(queries, back), rotate(keys, back), values)]
        unit = x * inverse
        weights, grad, scale_grad = _product_grads(unit.to(values.dtype).flatten(0, 1), scale, (wq, wk, wv), grads)
        return _norm_grad(grad.view_as(x), unit, inverse), scale_grad, *weights, None, None, None


class _FeedForward(torch.autograd.Function):
    """A norm, the gated feed-forward network, and the residual addition."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        """x [b, t, dim] -> [b, t, dim], in x's dtype; matrix products in dtype."""
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, scale, w1, w2, w3, gate, up = ctx.saved_tensors
        dtype = gate.dtype
        given = grad.to(dtype).flatten(0, 1)
        gated_grad = given @ w2.to(dtype)  # [b * t, hidden]; becomes the gradient of up
        gated, gate_grad = torch.empty_like(gate), torch.empty_like(gate)
        for some_gate, some_up, some, d_some, d_gate in _blocks(gate, up, gated, gated_grad, gate_grad):
            activated = F.silu(some_gate)
            torch.mul(activated, some_up, out=some)
            torch.ops.aten.silu_backward.grad_input(d_some * some_up, some_gate, grad_input=d_gate)
            d_some.mul_(activated)
        w2_grad = (given.t() @ gated).to(w2.dtype)
        unit = x * inverse
        weights, unit_grad, scale_grad = _product_grads(
            unit.to(dtype).flatten(0, 1), scale, (w1, w3), (gate_grad, gated_grad)
        )
        x_grad = _norm_grad(unit_grad.view_as(x), unit, inverse).add_(grad)
        return x_grad, scale_grad, weights[0], w2_grad, weights[1], None, None


def _inverse_norm(x: Tensor, eps: float) -> Tensor:
    """Return 1 / sqrt(mean of squares + eps) of each row: [..., 1]."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _scaled(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the matrix [out, in] whose product with a row is that of weight with scale * row."""
    return (weight * scale).to(dtype)


def _product_grads(
    unit: Tensor, scale: Tensor, weights: Sequence[Tensor], grads: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the gradients of unit * scale @ weight.t(), summed over the weights where they share an input.

    Args:
        unit: Normalized rows, [rows, in].
        scale: Weight of the norm, [in].
        weights: Matrices [out, in].
        grads: Gradients of the products, [rows, out], one for each matrix.

    Returns:
        The gradients of the weights, of unit and of scale.
    """
    weight_grads, unit_grad, scale_grad = [], torch.zeros_like(unit), torch.zeros_like(scale)
    for weight, grad in zip(weights, grads, strict=True):
        unit_grad.addmm_(grad, _scaled(weight, scale, unit.dtype))
        scaled_grad = (grad.t() @ unit).to(weight.dtype)
        scale_grad += (scaled_grad * weight).sum(0)
        weight_grads.append(scaled_grad.mul_(scale))
    return weight_grads, unit_grad, scale_grad


def _norm_grad(grad: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """Return the gradient of x, given that of unit = x * inverse(x)."""
    grad = grad.to(unit.dtype)
    along: Tensor = torch.linalg.vecdot(grad, unit).unsqueeze(-1).div_(-unit.shape[-1])
    return grad.addcmul_(unit, along).mul_(inverse)


def _blocks(*matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Iterate over matrices of equal shape in blocks of rows."""
    rows = max(1, _BLOCK // matrices[0].shape[1])
    return zip(*(torch.split(matrix, rows) for matrix in matrices), strict=True)

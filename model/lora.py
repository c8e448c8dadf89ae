"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685), applied to a model from outside.

A matrix W of the model is frozen, and the product of two narrow matrices is learned beside it: W x becomes
W x + scale * B (A x). B starts as zeros, so the model starts unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpe.arguments import checked
from bpe.errors import InputError
from model.transformer import Transformer

TARGETS = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")
"""The matrices of a layer, by Meta's names."""

Adapter = dict[str, tuple[Tensor, Tensor]]
"""A [rank, in] and B [out, rank], both float32, by the name of their matrix, such as "layers.0.attention.wq"."""


@checked
@dataclass(frozen=True)
class LoraConfig:
    """Settings of LoRA.

    Attributes:
        rank: Number of rows of A and of columns of B.
        alpha: The product of the two matrices is multiplied by alpha / rank. None: twice the rank.
        targets: Names of the matrices to adapt, out of `TARGETS`.
        dropout: Share of A's inputs that training sets to zero at random, from 0 to below 1.

    Raises:
        InputError: When a setting is out of range.
    """

    rank: int
    alpha: float | None = None
    targets: Sequence[str] = TARGETS
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"the LoRA rank is {self.rank}; it must be at least 1")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"the LoRA alpha is {self.alpha}; it must be positive")
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown:
            raise InputError(f"LoRA cannot adapt {', '.join(unknown)}; the targets are {', '.join(TARGETS)}")
        if not self.targets:
            raise InputError(f"LoRA has no targets; choose from {', '.join(TARGETS)}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"the LoRA dropout is {self.dropout}; it must be a share, from 0 to below 1")

    @property
    def scale(self) -> float:
        """Factor of the product of the two matrices."""
        return 2.0 if self.alpha is None else self.alpha / self.rank


class LoraLinear(nn.Linear):
    """A linear layer with its own frozen weight and bias, and two matrices that are learned beside them."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)  # that of nn.Linear would allocate a weight
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        device = base.weight.device
        self.lora_a = nn.Parameter(torch.empty(rank, base.in_features, dtype=torch.float32, device=device))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, dtype=torch.float32, device=device))
        self.scale, self.dropout = scale, dropout
        self.enabled = True

    def forward(self, input: Tensor) -> Tensor:
        output = super().forward(input)
        if not self.enabled:
            return output
        inputs = F.dropout(input.to(self.lora_a.dtype), self.dropout, self.training)
        added = F.linear(F.linear(inputs, self.lora_a), self.lora_b) * self.scale
        return output + added.to(output.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={len(self.lora_a)}, scale={self.scale:g}"


def add_lora(model: Transformer, config: LoraConfig, generator: torch.Generator | None = None) -> None:
    """Freeze a model, and add LoRA matrices to it in place: A drawn at random, B zero, both float32.

    The model's own weights keep their names. A is uniform within 1 / sqrt(in), as in Microsoft's loralib and in PEFT.

    Args:
        model: The model.
        config: Settings of LoRA.
        generator: Draws A; None for torch's global generator.

    Raises:
        InputError: When a target is not a plain `nn.Linear`, as in a model that has LoRA matrices already.
    """
    model.requires_grad_(False)
    for name, linear in [*model.named_modules()]:
        if name.rpartition(".")[2] in config.targets:
            if type(linear) is not nn.Linear:
                raise InputError(f"{name} is a {type(linear).__name__}; LoRA adapts plain nn.Linear layers only")
            adapted = LoraLinear(linear, config.rank, config.scale, config.dropout)
            bound = linear.in_features**-0.5
            drawn = torch.empty(adapted.lora_a.shape).uniform_(-bound, bound, generator=generator)
            with torch.no_grad():
                adapted.lora_a.copy_(drawn)
            model.set_submodule(name, adapted)


def adapter_of(model: Transformer) -> Adapter:
    """Return the LoRA matrices of a model."""
    return {name: (layer.lora_a.detach(), layer.lora_b.detach()) for name, layer in _adapted(model)}


@torch.no_grad()
def set_adapter(model: Transformer, adapter: Adapter) -> None:
    """Set the LoRA matrices of a model, in place, to those of an adapter that `adapter_of` returned or a file holds."""
    for name, layer in _adapted(model):
        a, b = adapter[name]
        layer.lora_a.copy_(a)
        layer.lora_b.copy_(b)


def merge_lora(model: Transformer) -> None:
    """Add the LoRA matrices to the model's own weights, rounded to their dtype, and remove them, in place."""
    for name, layer in [*_adapted(model)]:
        linear = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(merged(layer.weight.detach(), layer.lora_a, layer.lora_b, layer.scale))
        linear.bias = layer.bias
        model.set_submodule(name, linear)


@torch.no_grad()
def merged(weight: Tensor, a: Tensor, b: Tensor, scale: float, dtype: torch.dtype | None = None) -> Tensor:
    """Return weight + scale * B A, computed in float32, or in float64 for a weight in float64.

    Args:
        weight: [out, in].
        a: [rank, in].
        b: [out, rank].
        scale: Factor of the product.
        dtype: Dtype of the result; None for the weight's.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    total: Tensor = weight.to(wide) + scale * (b.to(wide) @ a.to(wide))
    return total.to(dtype or weight.dtype)


@contextmanager
def without_lora(model: Transformer) -> Iterator[None]:
    """Switch the LoRA matrices off for the duration of the `with` block."""
    layers = [layer for _, layer in _adapted(model)]
    try:
        for layer in layers:
            layer.enabled = False
        yield
    finally:
        for layer in layers:
            layer.enabled = True


def _adapted(model: Transformer) -> Iterator[tuple[str, LoraLinear]]:
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLinear):
            yield name, layer

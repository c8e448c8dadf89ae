"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685), applied to a model from outside.

A matrix W of the model stays as it is, and what is learned is the product of two narrow ones beside it: W x becomes
W x + scale * B (A x). B begins as zeros, so that the model begins as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpe.errors import InputError
from model.transformer import Transformer

TARGETS = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")
"""The matrices of a layer, by Meta's names."""

Adapter = dict[str, tuple[Tensor, Tensor]]
"""A [rank, in] and B [out, rank] by the name of their matrix, such as "layers.0.attention.wq"."""


@dataclass(frozen=True)
class LoraConfig:
    """Which matrices are adapted, and how.

    rank: the rows of A and the columns of B.
    alpha: what is added is multiplied by alpha / rank. None: twice the rank.
    targets: some of `TARGETS`.
    dropout: the share of A's inputs that is left out at random in training.
    """

    rank: int
    alpha: float | None = None
    targets: Sequence[str] = TARGETS
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"the rank of LoRA is {self.rank}; it must be at least 1")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"the alpha of LoRA is {self.alpha}; it must be positive")
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown or not self.targets:
            raise InputError(f"LoRA for {', '.join(unknown) or 'no matrix'}; there are {', '.join(TARGETS)}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"the dropout of LoRA is {self.dropout}; it is a share, from 0 to below 1")

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return 2.0 if self.alpha is None else self.alpha / self.rank


class LoraLinear(nn.Linear):
    """A linear layer with its own weight and bias, frozen, and two matrices that are learned beside them."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a weight
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
    """Freeze the model and put matrices to be learned beside its own: A drawn, B zero, both float32.

    The names of the model's own weights stay. A's numbers are uniform within 1 / sqrt(in), as in Microsoft's loralib
    and in PEFT.

    Raises InputError for a model that has such matrices already, or whose own are no plain ones.
    """
    model.requires_grad_(False)
    for name, linear in [*model.named_modules()]:
        if name.rpartition(".")[2] in config.targets:
            if type(linear) is not nn.Linear:
                raise InputError(f"{name} is a {type(linear).__name__}, beside which nothing can be learned")
            adapted = LoraLinear(linear, config.rank, config.scale, config.dropout)
            bound = linear.in_features**-0.5
            drawn = torch.empty(adapted.lora_a.shape).uniform_(-bound, bound, generator=generator)
            with torch.no_grad():
                adapted.lora_a.copy_(drawn)
            model.set_submodule(name, adapted)


def adapter_of(model: Transformer) -> Adapter:
    """The matrices that were learned."""
    return {name: (layer.lora_a.detach(), layer.lora_b.detach()) for name, layer in _adapted(model)}


def merge_lora(model: Transformer) -> None:
    """Add what was learned to the model's own weights, which are then all there is; rounded to their dtype."""
    for name, layer in [*_adapted(model)]:
        linear = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(merged(layer.weight.detach(), layer.lora_a, layer.lora_b, layer.scale))
        linear.bias = layer.bias
        model.set_submodule(name, linear)


@torch.no_grad()
def merged(weight: Tensor, a: Tensor, b: Tensor, scale: float, dtype: torch.dtype | None = None) -> Tensor:
    """weight + scale * B A in dtype, by default the weight's; computed in float32, or float64 if the weight is."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    total: Tensor = weight.to(wide) + scale * (b.to(wide) @ a.to(wide))
    return total.to(dtype or weight.dtype)


@contextmanager
def without_lora(model: Transformer) -> Iterator[None]:
    """The model as it was before, for as long as the block lasts."""
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

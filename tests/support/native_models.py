"""Native models with the weights of a Transformer, and the logits that they should have."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from model import NativeModel, Transformer
from model.cache import KVCache
from model.checkpoint.quantize import encode


def native(model: Transformer, kernel: str = "", threads: int = 1) -> NativeModel:
    """Return a NativeModel with the same weights, in float32."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    matrices = {name for name, weight in model.state_dict().items() if weight.dim() > 1}
    made = NativeModel(model.config, dict.fromkeys(matrices, "F32"), kernel)
    torch.set_num_threads(before)
    for name, weight in model.state_dict().items():
        if not (name == "output.weight" and model.config.tied_embeddings):
            made.put(name, weight.detach())
    return made


class Rounded(KVCache):
    """A KVCache that rounds keys and values as a native cache of this type does."""

    stored = torch.float16

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return super().update(layer, self._rounded(keys), self._rounded(values))

    def _rounded(self, numbers: Tensor) -> Tensor:
        if self.stored != torch.int8:
            return numbers.to(self.stored).to(numbers.dtype)
        scale = numbers.abs().amax(-1, keepdim=True) / 127
        return (numbers / scale).round() * scale


def reference(model: Transformer, ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the logits of `Transformer` in float64, with keys and values rounded as in a native cache of a dtype."""
    if dtype is None:
        exact: Tensor = copy.deepcopy(model).double()(ids)
        return exact
    cache = Rounded(model.config, len(ids), dtype=torch.float64)
    cache.stored = dtype
    logits: Tensor = copy.deepcopy(model).double()(ids, cache)
    return logits


def close(found: Tensor, expected: Tensor) -> None:
    """Assert that logits computed and cached in float32 are those in float64, up to rounding."""
    assert (found - expected).abs().max() / expected.std() < 3e-5


def nearly_close(found: Tensor, expected: Tensor, coarse: int = 1) -> None:
    """Assert that nearly all logits are almost equal.

    The others follow from a key or value between two numbers of the cache that was rounded the other way.
    """
    errors = (found - expected).abs().flatten() / expected.std()
    assert errors.quantile(0.9) < 1e-4 * coarse
    assert errors.max() < 1e-3 * coarse


def quantized(model: Transformer, kind: str, kernel: str = "", threads: int = 2) -> NativeModel:
    """Return a NativeModel with the same weights, in a quantized type."""
    kinds = {name: kind for name, weight in model.state_dict().items() if weight.dim() > 1}
    made = NativeModel(model.config, kinds, kernel, threads)
    for name, weight in model.state_dict().items():
        if name == "output.weight" and model.config.tied_embeddings:
            continue
        made.put(name, encode(weight.detach(), kind) if name in kinds else weight.detach())
    return made

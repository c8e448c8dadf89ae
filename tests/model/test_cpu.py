"""Weights of 16 bits on a CPU without instructions for them; the same everywhere, since it is asked for by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from model import ModelConfig, Transformer
from model import cpu as cpu_module
from model.cpu import WideLinear, wide_attend, widen
from model.transformer import attend


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 40), (4, 40), (2, 3, 40), (70, 40)])
def test_a_wide_layer_is_the_product_in_float64_rounded_once(
    shape: tuple[int, ...], bias: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_module, "_CHUNK", 7 * 40)  # seven rows of weights at a time, and a rest
    generator = torch.Generator().manual_seed(1)
    linear = torch.nn.Linear(40, 30, bias=bias).to(dtype)
    x = torch.randn(shape, generator=generator).to(dtype)
    with torch.no_grad():
        found = WideLinear.of(linear)(x)
        exact = F.linear(x.double(), linear.weight.double(), None if linear.bias is None else linear.bias.double())
    assert found.shape == (*shape[:-1], 30) and found.dtype == dtype
    last_bit = torch.finfo(dtype).eps * exact.abs().clamp(min=1e-2)
    assert bool(((found.double() - exact).abs() <= last_bit).all())


def test_wide_attention_is_no_less_exact() -> None:
    generator = torch.Generator().manual_seed(1)
    queries, keys, values = (torch.randn(2, heads, 9, 16, generator=generator).bfloat16() for heads in (4, 2, 2))
    with torch.no_grad():
        exact = attend(queries.double(), keys.double(), values.double())
        wide = (wide_attend(queries, keys, values) - exact).abs().max()
        narrow = (attend(queries, keys, values) - exact).abs().max()
    assert wide <= narrow


def test_a_widened_model_writes_what_it_wrote_and_keeps_its_weights(
    config: ModelConfig, make_model: Callable[[ModelConfig], Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_module, "multiplies", lambda dtype: False)
    exact = make_model(config).double()(torch.arange(30)[None])
    model = make_model(config).bfloat16()
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    ids = torch.arange(30)[None]
    error = (model(ids) - exact).abs().max()
    widen(model)
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    assert sum(isinstance(module, WideLinear) for module in model.modules()) == 2 * 7 + 1
    with torch.no_grad():
        assert (model(ids) - exact).abs().max() < 1.2 * error
    model(ids).sum().backward()  # and it can be trained on
    assert model.layers[0].attention.wq.weight.grad is not None

"""Faster models on a CPU: weights in oneDNN's layout, and 16-bit weights without instructions for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bpe import train
from bpe.errors import InputError
from model import ModelConfig, Transformer, generate_ids, load, save
from model import cpu as cpu_module
from model.cpu import BLOCK, WideLinear, attend_in_blocks, has_matrix_instructions, pack, wide_attend, widen
from model.transformer import attend, causal_mask, padded_mask


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 40), (4, 40), (2, 3, 40), (70, 40)])
def test_a_wide_layer_matches_float64_rounded_once(
    shape: tuple[int, ...], bias: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_module, "_CHUNK", 7 * 40)  # seven rows of weights at a time, and a remainder
    generator = torch.Generator().manual_seed(1)
    linear = torch.nn.Linear(40, 30, bias=bias).to(dtype)
    x = torch.randn(shape, generator=generator).to(dtype)
    with torch.no_grad():
        found = WideLinear.of(linear)(x)
        exact = F.linear(x.double(), linear.weight.double(), None if linear.bias is None else linear.bias.double())
    assert found.shape == (*shape[:-1], 30) and found.dtype == dtype
    last_bit = torch.finfo(dtype).eps * exact.abs().clamp(min=1e-2)
    assert bool(((found.double() - exact).abs() <= last_bit).all())


def test_wide_attention_is_at_least_as_exact() -> None:
    generator = torch.Generator().manual_seed(1)
    queries, keys, values = (torch.randn(2, heads, 9, 16, generator=generator).bfloat16() for heads in (4, 2, 2))
    with torch.no_grad():
        exact = attend(queries.double(), keys.double(), values.double(), None, 0.25)
        wide = (wide_attend(attend, queries, keys, values, None, 0.25) - exact).abs().max()
        narrow = (attend(queries, keys, values, None, 0.25) - exact).abs().max()
    assert wide <= narrow


def test_a_widened_model_keeps_its_output_and_weights(
    config: ModelConfig, make_model: Callable[[ModelConfig], Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_module, "has_matrix_instructions", lambda dtype: False)
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
    model(ids).sum().backward()  # it can still be trained
    assert model.layers[0].attention.wq.weight.grad is not None


DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if has_matrix_instructions(dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_model_is_as_exact_as_the_plain_one(
    config: ModelConfig, make_model: Callable[[ModelConfig], Transformer], bias: bool, tied: bool, dtype: torch.dtype
) -> None:
    config = dataclasses.replace(config, qkv_bias=bias, wo_bias=bias, tied_embeddings=tied, max_seq_len=400)
    ids = torch.randint(config.vocab_size, (3, 300), generator=torch.Generator().manual_seed(1))
    exact = make_model(config).double()(ids)
    model = make_model(config).to(dtype)
    with torch.inference_mode():
        plain = (model(ids) - exact).square().mean().sqrt()
        pack(model)
        packed = (model(ids) - exact).square().mean().sqrt()
        cache = model.new_cache(3)  # in chunks, which need masks, and token by token
        parts = [model(ids[:, part], cache) for part in (slice(0, 10), slice(10, 299), slice(299, 300))]
        cached = (torch.cat(parts, dim=1) - exact).square().mean().sqrt()
    assert packed < 1.1 * plain and cached < 1.1 * plain


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "end"), [(BLOCK, BLOCK), (2 * BLOCK + 7, 2 * BLOCK + 7), (BLOCK + 1, 3 * BLOCK)])
def test_attention_in_blocks_matches_attention(count: int, end: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    queries, keys, values = (
        torch.randn(2, heads, length, 16, generator=generator).to(dtype)
        for heads, length in ((6, count), (2, end), (2, end))
    )
    positions = torch.arange(end - count, end) - torch.tensor([[0], [5]])
    stored = torch.arange(end) - torch.tensor([[0], [5]])
    masks = [causal_mask(count, end, queries.device), padded_mask(positions, stored.clamp(min=-1))]
    for visible in [None, *masks] if count == end else masks:
        with torch.inference_mode():
            exact = attend(queries.double(), keys.double(), values.double(), visible, 0.25)
            error = (attend(queries, keys, values, visible, 0.25) - exact).square().mean().sqrt()
            assert (attend_in_blocks(queries, keys, values, visible, 0.25) - exact).square().mean().sqrt() < 1.5 * error


def test_a_packed_model_generates_the_same_and_cannot_be_saved(
    config: ModelConfig, make_model: Callable[[ModelConfig], Transformer], tmp_path: Path
) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    train("corpora", vocab_size=config.vocab_size, special_tokens=()).save(tokenizer)
    save(tmp_path / "model", make_model(config), tokenizer)
    plain, _ = load(tmp_path / "model")
    packed, _ = load(tmp_path / "model", packed=True)
    prompt = list(range(40))
    written = [list(generate_ids(model, prompt, max_tokens=30, temperature=0)) for model in (plain, packed)]
    assert written[0] == written[1]
    with pytest.raises(InputError, match="a model packed for generation cannot be saved; load it with packed=False"):
        save(tmp_path / "again", packed, tokenizer)
    assert not (tmp_path / "again").exists()

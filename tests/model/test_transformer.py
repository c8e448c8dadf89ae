from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bpe.errors import InputError
from model import KVCache, ModelConfig, Transformer
from model.rotary import rope_frequencies
from model.transformer import rotary_table
from support.reference_model import reference_logits

MakeModel = Callable[[ModelConfig], Transformer]
Array = npt.NDArray[np.float64]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("n_heads", "n_kv_heads", "head_dim"), [(4, 4, 8), (4, 2, 0), (6, 1, 10)])
def test_logits_match_a_float64_computation(
    tied: bool, scaled: bool, n_heads: int, n_kv_heads: int, head_dim: int, make_model: MakeModel
) -> None:
    # With an original length of 40, some wavelengths are below, between and above the two limits.
    config = ModelConfig(
        dim=32, n_layers=2, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim, hidden_dim=40, vocab_size=50,
        rope_theta=100.0, rope_scaling="llama3" if scaled else "none", rope_original_length=40,
        tied_embeddings=tied, max_seq_len=64,
    )  # fmt: skip
    model = make_model(config)
    ids = torch.randint(50, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    logits = model(torch.tensor([ids]))[0].detach().numpy()
    expected = reference_logits(model, ids)
    # float32 has 24 bits, of which two layers of sums over 32 numbers lose some. Logits are about 5 in size.
    np.testing.assert_allclose(logits, expected, atol=2e-4, rtol=2e-4)
    assert np.abs(expected).max() > 1


def test_scaled_rotary_frequencies_are_kept_mixed_or_divided() -> None:
    plain = rope_frequencies(ModelConfig.preset("llama3-8b"))
    scaled = rope_frequencies(ModelConfig.preset("llama3.1-8b"))
    assert scaled[0] == plain[0]
    assert scaled[-1] == plain[-1] / 8
    ratios = (plain / scaled).tolist()
    assert ratios == sorted(ratios)
    assert sum(1 < ratio < 8 for ratio in ratios) == 6  # wavelengths between 2,048 and 8,192 positions


def test_rotations_at_131072_positions_match_metas_formula() -> None:
    config = ModelConfig.preset("llama3.1-8b")
    frequencies = 1.0 / (500000.0 ** (torch.arange(0, 128, 2)[:64].float() / 128))
    scaled = []
    for frequency in frequencies:  # tensors of one number each, in float32
        wavelength = 2 * math.pi / frequency
        if wavelength < 8192 / 4:
            scaled.append(frequency)
        elif wavelength > 8192 / 1:
            scaled.append(frequency / 8)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            scaled.append((1 - smooth) * frequency / 8 + smooth * frequency)
    angles = torch.outer(torch.arange(131072).float(), torch.stack(scaled))
    assert torch.equal(rotary_table(config, 131072, torch.device("cpu")), torch.polar(torch.ones_like(angles), angles))


def test_state_dict_has_metas_keys(model: Transformer) -> None:
    layer = [f"attention.{w}.weight" for w in ("wq", "wk", "wv", "wo")]
    layer += [f"feed_forward.{w}.weight" for w in ("w1", "w2", "w3")] + ["attention_norm.weight", "ffn_norm.weight"]
    expected = {"tok_embeddings.weight", "norm.weight", "output.weight"}
    expected |= {f"layers.{number}.{name}" for number in range(2) for name in layer}
    assert set(model.state_dict()) == expected


@pytest.mark.parametrize("pieces", [[1] * 30, [30], [7, 1, 1, 20, 1], [29, 1]])
def test_logits_with_a_cache_do_not_depend_on_how_the_text_is_split(model: Transformer, pieces: list[int]) -> None:
    ids = torch.randint(259, (3, 30), generator=torch.Generator().manual_seed(2))
    expected = model(ids)
    cache = KVCache(model.config, batch=3)
    logits = torch.cat([model(piece, cache) for piece in ids.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert cache.length == 30


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("chunk", [1, 4, 9])
def test_a_row_of_a_ragged_batch_has_the_same_logits_as_alone(model: Transformer, side: str, chunk: int) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5 if parameter.dim() > 1 else 1)  # keeps rounding errors below 1e-5
    lengths, width = [9, 1, 5], 9
    generator = torch.Generator().manual_seed(3)
    texts = [torch.randint(259, (length + 6,), generator=generator) for length in lengths]
    ids = torch.randint(259, (3, width), generator=generator)  # padding may be any token
    positions = torch.full((3, width), -1)
    for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        start = {"left": width - length, "right": 0, "both": (width - length) // 2}[side]
        ids[row, start : start + length] = text[:length]
        positions[row, start : start + length] = torch.arange(length)
    cache = KVCache(model.config, batch=3)
    read = [
        model(some, cache, positions=at)
        for some, at in zip(ids.split(chunk, dim=1), positions.split(chunk, dim=1), strict=True)
    ]
    for step in range(6):  # continue without positions
        read.append(model(torch.stack([text[len(text) - 6 + step] for text in texts])[:, None], cache))
    logits = torch.cat(read, dim=1)
    real = torch.cat([positions >= 0, torch.ones(3, 6, dtype=torch.bool)], dim=1)
    for row, text in enumerate(texts):
        torch.testing.assert_close(logits[row][real[row]], model(text[None])[0], atol=1e-5, rtol=1e-5)
    without_cache = model(ids, positions=positions)
    for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        alone = model(text[None, :length])[0]
        torch.testing.assert_close(without_cache[row][positions[row] >= 0], alone, atol=1e-5, rtol=1e-5)


def test_texts_that_share_a_row_have_the_same_logits_and_gradients_as_alone(model: Transformer) -> None:
    model = model.double()
    generator = torch.Generator().manual_seed(2)
    lengths, row = (20, 1, 33, 30), 100  # together more than the context
    texts = [torch.randint(259, (length,), generator=generator) for length in lengths]
    weights = [torch.randn(length, 259, generator=generator, dtype=torch.float64) for length in lengths]

    def gradients(logits: list[torch.Tensor]) -> list[torch.Tensor]:
        loss = sum((each * weight).sum() for each, weight in zip(logits, weights, strict=True))
        return list(torch.autograd.grad(loss, list(model.parameters())))

    alone = [model(text[None])[0] for text in texts]
    padding = row - sum(lengths)
    ids = torch.cat([torch.zeros(padding, dtype=torch.int64), *texts])[None]
    positions = torch.cat([torch.full((padding,), -1), *map(torch.arange, lengths)])[None]
    together = list(model(ids, positions=positions)[0, padding:].split(lengths))
    for packed, expected in zip((*together, *gradients(together)), (*alone, *gradients(alone)), strict=True):
        torch.testing.assert_close(packed, expected, rtol=1e-10, atol=1e-10)


def test_last_only_returns_the_last_of_all_logits(model: Transformer) -> None:
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    last = model(ids, last_only=True)
    assert last.shape == (2, 1, 259)
    torch.testing.assert_close(last, model(ids)[:, -1:], atol=1e-6, rtol=1e-6)


def test_a_later_token_changes_no_earlier_logit(model: Transformer) -> None:
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3, 200]])
    torch.testing.assert_close(model(one)[:, :3], model(other)[:, :3], atol=0, rtol=0)


def test_the_order_of_earlier_tokens_matters(model: Transformer) -> None:
    one, other = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 3]])
    assert (model(one)[:, -1] - model(other)[:, -1]).abs().max() > 1e-3


def test_positions_beyond_the_context_raise(model: Transformer) -> None:
    ids = torch.zeros(1, 65, dtype=torch.long)
    with pytest.raises(InputError, match=r"65 tokens.*holds 64"):
        model(ids)
    cache = KVCache(model.config)
    model(ids[:, :64], cache)
    with pytest.raises(InputError, match="holds 64"):
        model(ids[:, :1], cache)
    assert cache.length == 64


@pytest.mark.parametrize("shape", [(3,), (1, 0), (1, 2, 3)])
def test_ids_of_a_wrong_shape_raise(model: Transformer, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \[batch, time\]"):
        model(torch.zeros(shape, dtype=torch.long))


def test_a_bfloat16_model_still_rotates_by_float32_angles(config: ModelConfig, make_model: MakeModel) -> None:
    # In bfloat16, 63 times a frequency would be off by up to a quarter, and logits would differ by far more than this.
    config = dataclasses.replace(config, rope_theta=4.0)
    model = make_model(config)
    ids = torch.randint(259, (1, 64), generator=torch.Generator().manual_seed(3))
    expected = model(ids)
    error = (model.to(torch.bfloat16)(ids).float() - expected).abs().mean() / expected.abs().mean()
    assert error < 0.05


def test_every_matrix_and_the_attention_can_be_replaced_from_outside(model: Transformer) -> None:
    calls: list[str] = []

    class Recorded(torch.nn.Module):
        def __init__(self, name: str, inner: torch.nn.Module) -> None:
            super().__init__()
            self.name, self.inner = name, inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(self.name)
            result: torch.Tensor = self.inner(x)
            return result

    ids = torch.tensor([[1, 2, 3]])
    expected = model(ids)
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    for name in linears:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Recorded(name, model.get_submodule(name)))
    for layer in model.layers:
        inner = layer.attention.attend
        layer.attention.attend = lambda *qkv, inner=inner: (calls.append("attend"), inner(*qkv))[1]
    torch.testing.assert_close(model(ids), expected, atol=0, rtol=0)
    assert sorted(calls) == sorted([*linears, "attend", "attend"])
    assert len(linears) == 2 * 7 + 1


def test_initial_weights_have_the_documented_standard_deviation() -> None:
    config = ModelConfig.preset("nano", vocab_size=1000, tied_embeddings=False)
    model = Transformer(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert (parameter == 1).all(), name
        else:
            std = 0.02 / 6**0.5 if name.endswith(("wo.weight", "w2.weight")) else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name


def test_the_same_seed_gives_the_same_initial_weights(config: ModelConfig) -> None:
    one, other = Transformer(config), Transformer(config)
    one.init_weights(torch.Generator().manual_seed(7))
    other.init_weights(torch.Generator().manual_seed(7))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_tied_embeddings_are_one_tensor(model: Transformer) -> None:
    assert model.output.weight is model.tok_embeddings.weight
    assert sum(parameter.numel() for parameter in model.parameters()) == model.config.n_parameters


def test_a_rotary_table_made_during_generation_is_usable_in_training(config: ModelConfig) -> None:
    config = dataclasses.replace(config, rope_theta=12345.0)  # a value that no other test uses
    model = Transformer(config)
    with torch.inference_mode():
        model(torch.tensor([[1, 2]]))
    model(torch.tensor([[1, 2]])).sum().backward()
    assert model.layers[0].attention.wq.weight.grad is not None

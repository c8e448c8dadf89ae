"""Layers with hand-written backward passes: they match the plain layers, and fall back to them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model import ModelConfig, Transformer
from model.lora import LoraConfig, add_lora
from model.training.fused import FusedBlock, _FeedForward, _Project, fuse
from model.training.loss import cross_entropy_sum
from model.transformer import Block, rotary_table

Make = Callable[[ModelConfig], Transformer]


def losses_and_gradients(model: Transformer, positions: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    ids = torch.randint(259, (2, 12), generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    loss = cross_entropy_sum(model, model.hidden(ids, positions=positions), ids.roll(-1, 1))
    loss.backward()
    learned = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return loss.detach(), learned


def assert_alike(model: Transformer, plain: Transformer, rounding: float, positions: Tensor | None = None) -> None:
    loss, gradients = losses_and_gradients(model, positions)
    expected_loss, expected = losses_and_gradients(plain, positions)
    torch.testing.assert_close(loss, expected_loss, rtol=rounding, atol=0)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == expected[name].dtype
        assert (gradient - expected[name]).norm() <= rounding * expected[name].norm(), name


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
def test_loss_and_gradients_match_the_plain_model(
    dtype: torch.dtype, rounding: float, config: ModelConfig, make_model: Make
) -> None:
    plain, fused = make_model(config).to(dtype), make_model(config).to(dtype)
    fuse(fused)
    assert all(isinstance(layer, FusedBlock) and fused_runs(layer) for layer in fused.layers)
    assert_alike(fused, plain, rounding)


def fused_runs(layer: nn.Module) -> bool:
    """Return whether the hand-written functions compute the layer."""
    config = ModelConfig(dim=32, n_layers=1, n_heads=4, vocab_size=2)
    place = Transformer(config)._places(torch.zeros(1, 2, dtype=torch.long), None, None)[config.layer_kind(0)]
    weight = next(layer.parameters())
    result = layer(torch.ones(1, 2, 32, dtype=weight.dtype, requires_grad=True), place, None)
    return {"_FeedForwardBackward", "_LayerBackward"} & {type(result.grad_fn).__name__} != set()


def test_under_autocast_gradients_differ_by_the_rounding_of_bfloat16(config: ModelConfig, make_model: Make) -> None:
    plain, fused, exact = (make_model(config) for _ in range(3))
    fuse(fused)
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradients = losses_and_gradients(fused)
        plain_loss, plain_gradients = losses_and_gradients(plain)
    exact_loss, exact_gradients = losses_and_gradients(exact)
    assert abs(loss - exact_loss) <= 2 * abs(plain_loss - exact_loss) + 1e-2 * exact_loss

    def error(found: dict[str, Tensor], name: str) -> float:
        return float((found[name] - exact_gradients[name]).norm() / exact_gradients[name].norm())

    for name in exact_gradients:
        assert gradients[name].dtype == torch.float32
        assert error(gradients, name) <= 1.5 * error(plain_gradients, name) + 1e-2, name


def test_packed_texts_and_padding_match_the_plain_model(config: ModelConfig, make_model: Make) -> None:
    plain, fused = make_model(config), make_model(config)
    fuse(fused)
    positions = torch.tensor([[-1, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 0, 1, 2, 0, 1, -1, -1]])
    assert_alike(fused, plain, 1e-5, positions)


def test_gradients_match_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    config = ModelConfig(dim=6, n_layers=1, n_heads=2, head_dim=4, vocab_size=2)
    rotation = rotary_table(config, 3, torch.device("cpu"))[:3].to(torch.complex128)
    x, scale = drawn(2, 3, 6), drawn(6)
    ends = (1e-5, torch.float64)
    assert torch.autograd.gradcheck(
        lambda *inputs: _Project.apply(*inputs, rotation, *ends), (x, scale, drawn(8, 6), drawn(4, 6), drawn(4, 6))
    )
    assert torch.autograd.gradcheck(
        lambda *inputs: _FeedForward.apply(*inputs, *ends), (x, scale, drawn(10, 6), drawn(6, 10), drawn(10, 6))
    )


def test_activation_checkpointing_works_with_fused_layers(
    config: ModelConfig, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, fused = make_model(config), make_model(config)
    fuse(fused)
    for layer in fused.layers:
        forward = layer.forward
        monkeypatch.setattr(layer, "forward", lambda *x, forward=forward: checkpoint(forward, *x, use_reentrant=False))
    assert_alike(fused, plain, 1e-5)


def test_layers_with_adapters_hooks_or_biases_fall_back_to_plain_layers(config: ModelConfig, make_model: Make) -> None:
    adapted, hooked, biased, plain = (make_model(config) for _ in range(4))
    for model in (adapted, hooked):
        fuse(model)
    add_lora(adapted, LoraConfig(rank=2, targets=("wq",)), torch.Generator().manual_seed(0))
    seen: list[int] = []
    for layer in hooked.layers:
        layer.feed_forward.w2.register_forward_hook(lambda *_: seen.append(1))
    biased = Transformer(ModelConfig(dim=32, n_layers=1, n_heads=4, vocab_size=2, qkv_bias=True))
    fuse(biased)
    assert not any(fused_runs(layer) for model in (adapted, hooked, biased) for layer in model.layers)
    assert len(losses_and_gradients(adapted)[1]) == 2 * 2
    seen.clear()
    assert_alike(hooked, plain, 0)
    assert len(seen) == 2


def test_fusing_keeps_names_weights_and_generation(model: Transformer, config: ModelConfig, make_model: Make) -> None:
    fuse(model)
    plain = make_model(config)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(isinstance(layer, Block) for layer in model.layers)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids), plain(ids), rtol=0, atol=0)
        cache = model.new_cache()
        model(ids[:, :8], cache)
        torch.testing.assert_close(model(ids[:, 8:], cache), plain(ids)[:, 8:])

"""The kernels that train layers in float32, each compared with torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model import ModelConfig, Transformer, _core
from model.training.fused import FusedBlock, arrays, fuse
from model.training.loss import IGNORED
from model.transformer import Block, Place, causal_mask, padded_mask, rotary_table

KERNELS = _core.kernels()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_near(found: Tensor, expected: Tensor, rounding: float = 2e-6) -> None:
    """Compare two tensors, with a tolerance relative to the largest expected number, or to 1."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= rounding * max(float(expected.abs().max()), 1)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (6, 320, 16), (97, 321, 33), (13, 700, 2100), (200, 1, 50)])
@pytest.mark.parametrize("left_transposed", [False, True])
@pytest.mark.parametrize("right_transposed", [False, True])
def test_matrix_products_match_float64(
    shape: tuple[int, int, int], left_transposed: bool, right_transposed: bool, kernel: str
) -> None:
    rows, inner, columns = shape
    left, right = drawn(rows, inner), drawn(inner, columns, seed=1)
    results = torch.full((rows, columns), torch.nan)
    given = [(x.t() if across else x).contiguous().numpy()
             for x, across in ((left, left_transposed), (right, right_transposed))]  # fmt: skip
    _core.LayerTrainer(2, kernel).multiply(*given, results.numpy(), left_transposed, right_transposed)
    assert_near(results, left.double() @ right.double())


@pytest.mark.parametrize("kernel", KERNELS)
def test_products_of_numbers_of_all_sizes_are_as_exact_as_float32(kernel: str) -> None:
    sizes = 10.0 ** torch.linspace(-15, 15, 200)
    left, right = drawn(40, 200) * sizes, (drawn(200, 40, seed=1).t() / sizes).t().contiguous()
    results = torch.empty(40, 40)
    _core.LayerTrainer(1, kernel).multiply(left.numpy(), right.numpy(), results.numpy())
    bound = left.abs().double() @ right.abs().double()
    assert ((results - left.double() @ right.double()).abs() <= 3e-7 * bound).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_numbers_that_are_not_finite_stay_so(kernel: str) -> None:
    for wrong in (torch.nan, torch.inf):
        left, results = drawn(3, 40), torch.empty(3, 5)
        left[1, 7] = wrong
        _core.LayerTrainer(1, kernel).multiply(left.numpy(), drawn(40, 5, seed=1).numpy(), results.numpy())
        assert results.isfinite().all(1).tolist() == [True, False, True]


def test_matrices_of_mismatched_shapes_are_refused() -> None:
    def multiply(left: tuple[int, int], right: tuple[int, int], results: tuple[int, int], *transposed: bool) -> None:
        given = (np.zeros(left, np.float32), np.zeros(right, np.float32), np.zeros(results, np.float32))
        _core.LayerTrainer().multiply(*given, *transposed)

    multiply((2, 3), (3, 4), (2, 4))
    multiply((3, 2), (4, 3), (2, 4), True, True)
    for shapes in (((2, 3), (4, 3), (2, 4)), ((2, 3), (3, 4), (4, 2)), ((2, 0), (0, 4), (2, 4))):
        with pytest.raises(ValueError, match="do not fit"):
            multiply(*shapes)


# --- layers ---

SHAPES = {
    "small": {"dim": 16, "n_heads": 2, "hidden_dim": 24},
    "odd": {"dim": 30, "n_heads": 5, "n_kv_heads": 1, "head_dim": 6, "hidden_dim": 37},
    "grouped": {"dim": 64, "n_heads": 6, "n_kv_heads": 3, "head_dim": 48, "hidden_dim": 100},
}


def layers(shape: dict[str, int]) -> tuple[Block, Block, ModelConfig]:
    """Return a layer in float64, and the same layer for the kernels."""
    config = ModelConfig(**shape, n_layers=1, vocab_size=2, max_seq_len=256)
    exact, fused = Transformer(config), Transformer(config)
    for number, parameter in enumerate(exact.layers.parameters()):
        size = parameter.shape[-1] if parameter.dim() > 1 else 10
        parameter.data = drawn(*parameter.shape, seed=number) / size**0.5 + (parameter.dim() == 1)
    fused.load_state_dict(exact.state_dict())
    fuse(fused)
    return exact.double().layers[0], fused.layers[0], config


def results_and_gradients(layer: Block, x: Tensor, grad: Tensor, place: Place) -> list[Tensor]:
    x = x.clone().requires_grad_()
    layer.zero_grad()
    results = layer(x, place, None)
    results.backward(grad)
    return [results.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())]


def place_of(config: ModelConfig, time: int, positions: Tensor | None) -> Place:
    table = rotary_table(config, 256, torch.device("cpu"))
    if positions is None:
        return Place(table[:time], None)
    return Place(table[positions.clamp(min=0)], padded_mask(positions, positions))


TEXTS = {
    "one text a row": lambda time: None,
    "several texts": lambda time: torch.stack((torch.arange(time) % 7, torch.arange(time) % 50)),
    "padding before and behind": lambda time: torch.stack(
        (torch.arange(time) - time // 2, torch.where(torch.arange(time) < time // 3, torch.arange(time), -1))
    ).clamp(min=-1),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("time", [1, 5, 49, 130])
@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_layer_and_its_gradients_match_float64(
    shape: str, texts: str, time: int, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.training.fused.trainer", lambda dtype: _core.LayerTrainer(2, kernel))
    exact, fused, config = layers(SHAPES[shape])
    assert isinstance(fused, FusedBlock)
    x, grad = drawn(2, time, config.dim), drawn(2, time, config.dim, seed=9)
    place = place_of(config, time, TEXTS[texts](time))
    expected = results_and_gradients(exact, x.double(), grad.double(), place)
    for found, reference in zip(results_and_gradients(fused, x, grad, place), expected, strict=True):
        assert_near(found, reference, 1e-5)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fused, config = layers(SHAPES["grouped"])
    x, grad = drawn(3, 130, config.dim), drawn(3, 130, config.dim, seed=9)
    targets = torch.arange(390) % 64
    runs = []
    for threads in (1, 2, 5):
        kernels = _core.LayerTrainer(threads)
        monkeypatch.setattr("model.training.fused.trainer", lambda dtype, kernels=kernels: kernels)
        grads = torch.empty(390, config.dim), torch.empty(64, config.dim)
        loss = kernels.loss(*arrays((x.flatten(0, 1), drawn(64, config.dim), targets)), 64 * 100, *arrays(grads))
        runs.append([*results_and_gradients(fused, x, grad, place_of(config, 130, None)), torch.tensor(loss), *grads])
    for other in runs[1:]:
        assert all(torch.equal(one, two) for one, two in zip(runs[0], other, strict=True))


def test_a_text_with_padding_inside_falls_back_to_torch() -> None:
    exact, fused, config = layers(SHAPES["small"])
    positions = torch.tensor([[0, -1, 1, 2]])  # padding within a text
    place = place_of(config, 4, positions)
    assert place.begins is None
    x, grad = drawn(1, 4, 16), drawn(1, 4, 16, seed=9)
    expected = results_and_gradients(exact, x.double(), grad.double(), place)
    for found, reference in zip(results_and_gradients(fused, x, grad, place), expected, strict=True):
        assert_near(found, reference, 1e-5)


def test_the_first_visible_token_follows_from_the_mask() -> None:
    rotation = torch.empty(0)
    assert Place(rotation, None).begins is None
    assert Place(rotation, causal_mask(2, 5, torch.device("cpu"))).begins.tolist() == [0, 0]
    positions = torch.tensor([[0, 1, 2, 0, 1], [-1, -1, 0, 1, 0]])
    assert Place(rotation, padded_mask(positions, positions)).begins.tolist() == [[[0, 0, 0, 3, 3]], [[0, 1, 2, 2, 4]]]


def test_arrays_of_a_wrong_size_are_refused() -> None:
    shape = _core.LayerShape(1, 2, 8, 2, 1, 4, 12, 1e-5)
    sizes = (8, 64, 32, 32, 64, 8, 96, 96, 96)
    states = [torch.zeros(2 * size) for size in (1, 8, 4, 4, 8, 8, 1, 12, 12)]

    def forward(**changed: Any) -> None:
        given: dict[str, Any] = {"weights": [torch.zeros(size) for size in sizes], "rotation": torch.zeros(2, 4)}
        given |= {"x": torch.zeros(16), "states": states, "results": torch.zeros(16), "begins": None} | changed
        _core.LayerTrainer().forward(shape, **given)

    forward(begins=torch.tensor([0, 1]))
    for wrong in (
        {"weights": [torch.zeros(size + (size == 32)) for size in sizes]},
        {"rotation": torch.zeros(3, 4)},
        {"begins": torch.tensor([0, 2])},
        {"begins": torch.tensor([-1, 0])},
        {"begins": torch.tensor([0])},
        {"x": torch.zeros(8)},
        {"states": states[::-1]},
        {"results": torch.zeros(15)},
    ):
        with pytest.raises(ValueError, match=r"expected \d|rotation must have the shape"):
            forward(**wrong)
    with pytest.raises(ValueError, match="fit each other"):
        _core.LayerShape(1, 2, 8, 3, 2, 4, 12, 1e-5)


# --- in bfloat16 ---

BFLOAT16 = [kernel for kernel in KERNELS if _core.trains_in_bfloat16(kernel)]


@pytest.mark.parametrize("kernel", BFLOAT16)
@pytest.mark.parametrize("shape", SHAPES)
def test_in_bfloat16_only_the_numbers_of_products_are_rounded(
    shape: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _core.LayerTrainer(2, kernel, bfloat16=True)
    left, right, results = drawn(50, 70), drawn(70, 33, seed=1), torch.empty(50, 33)
    trainer.multiply(left.numpy(), right.numpy(), results.numpy())
    assert_near(results, left.bfloat16().double() @ right.bfloat16().double())
    monkeypatch.setattr("model.training.fused.trainer", lambda dtype: trainer)
    exact, fused, config = layers(SHAPES[shape])
    x, grad = drawn(2, 49, config.dim), drawn(2, 49, config.dim, seed=9)
    place = place_of(config, 49, None)
    expected = results_and_gradients(exact, x.double(), grad.double(), place)
    for found, reference in zip(results_and_gradients(fused, x, grad, place), expected, strict=True):
        assert found.dtype == torch.float32
        assert (found - reference).norm() <= 1e-2 * reference.norm()


def test_a_kernel_without_products_in_bfloat16_refuses_them() -> None:
    assert not _core.trains_in_bfloat16("plain")
    with pytest.raises(ValueError, match="the kernel plain does not train in bfloat16"):
        _core.LayerTrainer(1, "plain", bfloat16=True)


# --- the head ---


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("vocabulary", [1, 15, 16, 259])
def test_the_loss_and_its_gradients_match_float64(vocabulary: int, kernel: str) -> None:
    hidden, head = drawn(50, 24) * 3, drawn(vocabulary, 24, seed=1)
    targets = torch.arange(50) % vocabulary
    targets[::7] = IGNORED
    exact = hidden.double().requires_grad_(), head.double().requires_grad_()
    expected = F.cross_entropy(exact[0] @ exact[1].t(), targets, reduction="sum", ignore_index=IGNORED)
    expected.backward()
    for logits in (1, vocabulary * 8, 1 << 20):
        grads = torch.full_like(hidden, torch.nan), torch.full_like(head, torch.nan)
        loss = _core.LayerTrainer(2, kernel).loss(*arrays((hidden, head, targets)), logits, *arrays(grads))
        assert loss == pytest.approx(expected.item(), rel=1e-6, abs=1e-5)
        for found, reference in zip(grads, exact, strict=True):
            assert_near(found, reference.grad, 1e-5)


def test_memory_is_bounded_by_the_number_of_logits() -> None:
    hidden, head, targets = drawn(2000, 8), drawn(1000, 8), torch.zeros(2000, dtype=torch.long)
    trainer = _core.LayerTrainer()
    expected = trainer.loss(*arrays((hidden, head, targets)), 1000 * 100, torch.empty(2000, 8).numpy(), None)
    assert 1000 * 100 * 4 <= trainer.bytes < 1000 * 300 * 4
    loss = trainer.loss(*arrays((hidden, head, targets)), 1000 * 2000, torch.empty(2000, 8).numpy(), None)
    assert trainer.bytes >= 1000 * 2000 * 4
    assert loss == pytest.approx(expected)


def test_a_target_beyond_the_vocabulary_is_refused() -> None:
    given = arrays((drawn(2, 8), drawn(10, 8), torch.tensor([9, 10])))
    with pytest.raises(ValueError, match="the target 10, but there are 10 ids"):
        _core.LayerTrainer().loss(*given, 100, np.zeros((2, 8), np.float32), None)

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from model import ModelConfig, Transformer
from model.training.loss import IGNORED, Evaluation, TokenBatch, chunk_rows, cross_entropy_sum, evaluate


@pytest.mark.parametrize("chunk_logits", [1, 259 * 3, 259 * 7, 1 << 24])
def test_the_chunked_loss_has_the_gradients_of_plain_cross_entropy(chunk_logits: int, model: Transformer) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(259, (2, 10), generator=generator)
    targets = torch.randint(259, (2, 10), generator=generator)
    targets[1, 7:] = IGNORED

    plain = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=IGNORED)
    plain.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()

    loss = cross_entropy_sum(model, model.hidden(ids), targets, chunk_logits)
    loss.backward()
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5 * scale, msg=name)


def test_the_gradients_of_the_loss_match_finite_differences() -> None:
    model = Transformer(ModelConfig(dim=4, n_layers=1, n_heads=2, vocab_size=7)).double()
    hidden = torch.randn(5, 4, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([3, IGNORED, 0, 6, 3])

    def loss(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        assert weight is model.output.weight
        return cross_entropy_sum(model, hidden, targets, chunk_logits=7 * 2)

    assert torch.autograd.gradcheck(loss, (hidden, model.output.weight))


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_over_a_large_vocabulary_match_float64(autocast: bool) -> None:
    """Llama 3's 128,256 classes, in chunks of two positions; the logits of all five never exist at once."""
    config = ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=128_256)
    model = Transformer(config)
    model.init_weights(torch.Generator().manual_seed(1))
    hidden = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)) * 20
    targets = torch.tensor([3, 128_255, IGNORED, 70_000, 3])
    exact_hidden = hidden.double().requires_grad_()
    exact_weight = model.output.weight.detach().double().requires_grad_()
    exact = F.cross_entropy(exact_hidden @ exact_weight.t(), targets, reduction="sum", ignore_index=IGNORED)
    (exact / 4).backward()

    hidden.requires_grad_()
    with LargestResult() as largest, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = cross_entropy_sum(model, hidden, targets, chunk_logits=128_256 * 2)
        (loss / 4).backward()
    assert largest.numbers == 128_256 * 8  # the weights and their gradients, not 128,256 * 5 * 2 and more
    # The error of sums over so many classes is 0.4e-5 to 1.2e-5, as in F.cross_entropy in float32.
    rounding = 2e-2 if autocast else 2e-5
    torch.testing.assert_close(loss.double(), exact, rtol=rounding, atol=0)
    for found, expected in ((hidden.grad, exact_hidden.grad), (model.output.weight.grad, exact_weight.grad)):
        assert found.dtype == torch.float32
        assert (found - expected).norm() <= rounding * expected.norm()


class LargestResult(TorchDispatchMode):
    """Counts the elements of the largest tensor that an operation returned."""

    numbers = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = operation(*arguments, **(keywords or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize(("grad", "dtype"), [(False, torch.float32), (True, torch.float64)])
def test_no_more_than_chunk_logits_exist_at_a_time(grad: bool, dtype: torch.dtype, model: Transformer) -> None:
    ids = torch.zeros(2, 25, dtype=torch.long)
    model.to(dtype)
    hidden = model.hidden(ids)
    with torch.set_grad_enabled(grad), LargestResult() as largest:
        loss = cross_entropy_sum(model, hidden, ids, chunk_logits=259 * 40)
        if grad:
            loss.backward()
    assert largest.numbers == 259 * 40  # the weights have 259 * 32


def test_a_chunk_is_larger_on_other_devices_than_a_cpu() -> None:
    config = ModelConfig(dim=8, n_layers=1, n_heads=1, vocab_size=128_256)
    assert chunk_rows(Transformer(config)) == 65
    with torch.device("meta"):
        model = Transformer(config)
    assert chunk_rows(model) == 2092
    assert chunk_rows(model, 128_256 * 7) == 7
    assert chunk_rows(model, 1) == 1


def test_a_head_with_a_hook_computes_the_logits_of_a_chunk_twice(model: Transformer) -> None:
    ids = torch.randint(259, (2, 25), generator=torch.Generator().manual_seed(0))
    cross_entropy_sum(model, model.hidden(ids), ids, chunk_logits=259 * 20).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    rows: list[int] = []
    model.output.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[0]))
    loss = cross_entropy_sum(model, model.hidden(ids), ids, chunk_logits=259 * 20)
    assert rows == [20, 20, 10]
    loss.backward()
    assert max(rows) == 20
    assert sum(rows) == 100
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_frozen_head_gets_no_gradient(model: Transformer) -> None:
    model.requires_grad_(False)
    hidden = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cross_entropy_sum(model, hidden, torch.arange(6)).backward()
    assert model.output.weight.grad is None
    expected = hidden.detach().requires_grad_()
    F.cross_entropy(model.head(expected), torch.arange(6), reduction="sum").backward()
    torch.testing.assert_close(hidden.grad, expected.grad)


def test_the_loss_of_no_positions_is_zero(model: Transformer) -> None:
    hidden = torch.randn(0, 32, requires_grad=True)
    loss = cross_entropy_sum(model, hidden, torch.zeros(0, dtype=torch.long))
    assert loss.item() == 0
    loss.backward()
    assert hidden.grad.shape == (0, 32)
    assert not model.output.weight.grad.any()


def test_the_loss_is_float32_under_autocast(model: Transformer) -> None:
    ids = torch.zeros(1, 4, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(ids).dtype == torch.bfloat16
        assert cross_entropy_sum(model, model.hidden(ids), ids).dtype == torch.float32


def test_an_evaluation_counts_nats_tokens_and_bytes(model: Transformer) -> None:
    ids = torch.randint(256, (1, 12), generator=torch.Generator().manual_seed(0))
    targets = torch.cat([ids[:, 1:], torch.tensor([[257]])], dim=1)
    targets[0, 3] = IGNORED
    token_bytes = torch.tensor([2] * 256 + [0] * 3)
    found = evaluate(
        model, [TokenBatch(ids[:, :6], targets[:, :6]), TokenBatch(ids[:, 6:], targets[:, 6:])], token_bytes
    )

    logits = torch.cat([model(ids[:, :6]), model(ids[:, 6:])], dim=1)[0].double().log_softmax(-1)
    nats = -sum(logits[i, target].item() for i, target in enumerate(targets[0].tolist()) if target != IGNORED)
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.tokens == 11
    assert found.bytes == 20  # ten tokens of text; the special token has no bytes, but its loss counts
    assert found.loss == pytest.approx(nats / 11, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / 20, rel=1e-5)


def test_a_uniform_model_needs_log2_of_its_vocabulary_in_bits() -> None:
    model = Transformer(ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=256))
    with torch.no_grad():
        model.output.weight.zero_()
    ids = torch.arange(20)[None]
    found = evaluate(model, [TokenBatch(ids, ids)], torch.ones(256, dtype=torch.long))
    assert found.bits_per_byte == pytest.approx(8, rel=1e-6)


def test_bits_per_byte_of_no_bytes_are_infinite() -> None:
    assert Evaluation(nats=1.0, tokens=1, bytes=0).bits_per_byte == math.inf


def test_without_targets_the_loss_and_its_gradients_are_zero(model: Transformer) -> None:
    hidden = model.hidden(torch.zeros(1, 4, dtype=torch.long))[:, :0]
    loss = cross_entropy_sum(model, hidden, torch.zeros(1, 0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())

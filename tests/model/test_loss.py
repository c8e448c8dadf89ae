from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from model import ModelConfig, Transformer
from model.loss import IGNORED, Batch, Evaluation, cross_entropy_sum, evaluate


@pytest.mark.parametrize("chunk_logits", [1, 259 * 3, 259 * 7, 1 << 24])
def test_the_loss_in_chunks_has_the_gradients_of_plain_cross_entropy(chunk_logits: int, model: Transformer) -> None:
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


@pytest.mark.parametrize("grad", [False, True])
def test_no_more_logits_exist_at_a_time_than_asked(grad: bool, model: Transformer) -> None:
    rows: list[int] = []
    model.output.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[0]))
    ids = torch.zeros(2, 25, dtype=torch.long)
    with torch.set_grad_enabled(grad):
        loss = cross_entropy_sum(model, model.hidden(ids), ids, chunk_logits=259 * 20)
    assert rows == [20, 20, 10]
    if grad:
        loss.backward()
        assert max(rows) == 20
        assert sum(rows) == 100  # each once more for its gradients


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
    found = evaluate(model, [Batch(ids[:, :6], targets[:, :6]), Batch(ids[:, 6:], targets[:, 6:])], token_bytes)

    logits = torch.cat([model(ids[:, :6]), model(ids[:, 6:])], dim=1)[0].double().log_softmax(-1)
    nats = -sum(logits[i, target].item() for i, target in enumerate(targets[0].tolist()) if target != IGNORED)
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.tokens == 11
    assert found.bytes == 20  # ten of text; the special token has none, but its loss counts
    assert found.loss == pytest.approx(nats / 11, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / 20, rel=1e-5)


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary() -> None:
    model = Transformer(ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=256))
    with torch.no_grad():
        model.output.weight.zero_()
    ids = torch.arange(20)[None]
    found = evaluate(model, [Batch(ids, ids)], torch.ones(256, dtype=torch.long))
    assert found.bits_per_byte == pytest.approx(8, rel=1e-6)


def test_text_without_bytes_has_no_finite_price() -> None:
    assert Evaluation(nats=1.0, tokens=1, bytes=0).bits_per_byte == math.inf

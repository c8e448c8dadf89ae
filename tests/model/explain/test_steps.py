"""Each explained step against the same step in float64 NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bpe.errors import InputError
from model import ModelConfig, Transformer
from model.explain.steps import explain
from model.generation.completions import prompt_ids

MakeModel = Callable[[ModelConfig], Transformer]
Array = npt.NDArray[np.float64]

IDS = [1, 40, 7, 7, 49, 12, 3, 30, 22]


def reference_steps(model: Transformer, ids: list[int], layer: int, head: int) -> Iterator[Array]:
    """Yield the expected tensor of each step, in order."""
    config = model.config
    weights = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}
    d, time = config.head_dim, len(ids)
    angular = config.rope_theta ** (-np.arange(0, d, 2) / d)
    if config.rope_scaling == "llama3":
        turns = config.rope_original_length * angular / (2 * np.pi)
        low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0, 1)
        angular = angular * (kept + (1 - kept) / config.rope_scaling_factor)
    rotation = np.exp(1j * np.outer(np.arange(time), angular))

    def norm(x: Array, name: str) -> Array:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps) * weights[f"{name}.weight"]

    def linear(x: Array, name: str) -> Array:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    def turned(x: Array) -> Array:
        y = (x[:, 0::2] + 1j * x[:, 1::2]) * rotation
        return np.stack([y.real, y.imag], -1).reshape(time, d)

    def softmax(x: Array) -> Array:
        shares = np.exp(x - x.max(-1, keepdims=True))
        return shares / shares.sum(-1, keepdims=True)

    x = weights["tok_embeddings.weight"][ids]
    yield np.array(ids, float)
    yield x
    stream = [x[-1]]
    for number in range(config.n_layers):
        name = f"layers.{number}"
        normed = norm(x, f"{name}.attention_norm")
        rows = {w: linear(normed, f"{name}.attention.{w}").reshape(time, -1, d) for w in ("wq", "wk", "wv")}
        outputs = []
        for each in range(config.n_heads):
            group = each * config.n_kv_heads // config.n_heads
            q, k, v = rows["wq"][:, each], rows["wk"][:, group], rows["wv"][:, group]
            scores = turned(q) @ turned(k).T / np.sqrt(d)
            masked = np.where(np.tri(time, dtype=bool), scores, -np.inf)
            outputs.append(softmax(masked) @ v)
            if (number, each) == (layer, head):
                shown = [q, k, v, turned(q), turned(k), scores, masked, softmax(masked), outputs[-1]]
        joined = np.concatenate(outputs, axis=-1)
        found = linear(joined, f"{name}.attention.wo")
        after_attention = x + found
        inner = norm(after_attention, f"{name}.ffn_norm")
        gate, up = linear(inner, f"{name}.feed_forward.w1"), linear(inner, f"{name}.feed_forward.w3")
        silu = gate / (1 + np.exp(-gate))
        down = linear(silu * up, f"{name}.feed_forward.w2")
        if number == layer:
            if layer:
                yield x
            yield from (normed, *shown, joined, found, after_attention, inner, gate, silu, up, silu * up, down)
            yield after_attention + down
        x = after_attention + down
        stream.append(x[-1])
    yield np.array(stream)
    yield norm(x, "norm")
    output = weights["tok_embeddings.weight" if config.tied_embeddings else "output.weight"]
    logits = norm(x[-1:], "norm") @ output.T
    yield logits
    yield softmax(logits)


def shape(**numbers: Any) -> ModelConfig:
    plain = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 40, "vocab_size": 50, "rope_theta": 100.0}
    return ModelConfig(**{**plain, "max_seq_len": 64, **numbers})


@pytest.mark.parametrize(
    "config",
    [
        shape(),
        shape(n_kv_heads=2, tied_embeddings=True),
        shape(n_heads=6, n_kv_heads=1, head_dim=10),
        shape(n_kv_heads=2, qkv_bias=True, wo_bias=True),
        shape(n_kv_heads=2, rope_scaling="llama3", rope_original_length=40, tied_embeddings=True),
    ],
    ids=["one key for each query", "grouped and tied", "one key for all", "biases", "scaled rotation"],
)
def test_every_step_in_every_layer_and_head_matches_a_float64_computation(
    config: ModelConfig, make_model: MakeModel
) -> None:
    model = make_model(config)
    for layer in range(config.n_layers):
        for head in range(config.n_heads):
            steps = list(explain(model, IDS, layer=layer, head=head))
            expected = list(reference_steps(model, IDS, layer, head))
            for step, array in zip(steps, expected, strict=True):
                np.testing.assert_allclose(step.tensor, array, atol=2e-4, rtol=2e-4, err_msg=step.title)


@pytest.mark.parametrize("ids", [IDS, [5]])
def test_the_logits_are_those_of_the_model_which_is_left_unchanged(model: Transformer, ids: list[int]) -> None:
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    expected = model(torch.tensor([ids]), last_only=True)[0]
    steps = {step.title: step for step in explain(model, ids, layer=1)}
    assert torch.equal(steps["logits"].tensor, expected)
    assert torch.equal(steps["next token"].tensor, expected.float().softmax(-1))
    for name, module in model.named_modules():
        assert not module._forward_hooks
        assert {**module.__dict__} == before[name]


def test_shares_in_half_precision_come_from_the_tensors_of_the_model(model: Transformer) -> None:
    steps = {step.title: step for step in explain(model.to(torch.bfloat16), IDS, head=3)}
    shares, values = steps["attention of each token to each"].tensor, steps["values of key-value head 1"].tensor
    assert shares.dtype == torch.float32
    assert steps["output of head 3"].dtype == "bfloat16"
    torch.testing.assert_close(shares.sum(-1), torch.ones(len(IDS)))
    assert torch.equal(shares, shares.tril())
    torch.testing.assert_close(shares @ values.float(), steps["output of head 3"].tensor.float(), atol=2e-2, rtol=2e-2)


def test_the_last_guess_is_the_models_and_only_has_ids_of_the_tokenizer(model: Transformer) -> None:
    steps = {step.picture: step for step in explain(model, IDS, n_vocab=100)}
    guesses = steps["layers"].guesses
    assert guesses is not None
    assert guesses.shape == (model.config.n_layers + 1, 100)
    assert torch.equal(steps["next"].tensor[0], guesses[-1])
    logits = model(torch.tensor([IDS]))[0, -1, :100]
    torch.testing.assert_close(guesses[-1], logits.softmax(-1), atol=1e-6, rtol=1e-4)


def test_the_sentences_describe_the_configuration(make_model: MakeModel) -> None:
    def words(**numbers: Any) -> str:
        steps = explain(make_model(shape(**numbers)), IDS, layer=1, head=3)
        return "\n".join(f"{step.title}: {step.text}" for step in steps)

    plain = words()
    assert "keys of key-value head 3: The same with wk, for the keys of this head" in plain
    assert "rows of wq for head 3 of 4: what" in plain
    for other in ("share:", "bias", "slowed", "embeddings again"):
        assert other not in plain
    assert "keys that heads 2 to 3 share" in words(n_kv_heads=2)
    assert "head 3 of 4, plus their bias: what" in words(qkv_bias=True)
    assert "Times wo, plus its bias" in words(wo_bias=True)
    assert "radians, slowed for the longer context." in words(rope_scaling="llama3")
    assert "embeddings again" in words(tied_embeddings=True)


def test_an_unknown_layer_or_head_raises_with_the_valid_numbers(model: Transformer) -> None:
    with pytest.raises(InputError, match=r"layer 2: the model has 2; give a number from 0 to 1"):
        explain(model, IDS, layer=2)
    with pytest.raises(InputError, match=r"head -1: the model has 4; give a number from 0 to 3"):
        explain(model, IDS, head=-1)


def test_empty_or_too_long_prompts_raise_and_leave_no_hook(model: Transformer) -> None:
    with pytest.raises(InputError, match="the prompt is empty"):
        explain(model, [])
    with pytest.raises(InputError, match="65 tokens, but the model's context holds 64"):
        explain(model, [1] * 65)
    assert not any(module._forward_hooks for module in model.modules())
    wide = Transformer(dataclasses.replace(model.config, max_seq_len=4096))
    with pytest.raises(InputError, match="2049 tokens, but at most 2,048 can be explained"):
        explain(wide, [1] * 2049)


def test_logits_that_are_not_finite_raise(model: Transformer) -> None:
    with torch.no_grad():
        model.layers[1].feed_forward.w2.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="logits contain NaN or infinity"):
        explain(model, IDS)


def test_prompts_are_encoded_as_for_generation(tokenizer: Any) -> None:
    assert prompt_ids(tokenizer, "ab<|eot_id|>")[:3] == [256, 97, 98]
    assert 258 not in prompt_ids(tokenizer, "<|eot_id|>")
    tokenizer.special_tokens_set = set()
    assert prompt_ids(tokenizer, "ab") == [97, 98]

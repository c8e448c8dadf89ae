"""Decoding with steps of fixed shapes, traced by torch.compile, against decoding with the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bpe.errors import InputError
from model import ModelConfig, Transformer
from model.generation.compiled_step import CompiledStep

CONFIG = ModelConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=48, vocab_size=101, max_seq_len=48)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama3 scaling": {"rope_scaling": "llama3", "rope_original_length": 16},
    "windows": {"windows": (5, 0), "local_rope_theta": 1e3},
    "unrotated layers": {"unrotated_layers": (1,)},
    "soft caps": {"attention_softcap": 5.0, "logits_softcap": 3.0, "embedding_multiplier": 3.0},
    "other norms": {"norm_offset": True, "post_norm": True, "qk_norm": "head"},
    "part of a head": {"rotary_dim": 4},
}


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """Forget the graphs of other tests, of which torch keeps eight for each function."""
    torch.compiler.reset()


def small(**settings: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig(**{**vars(CONFIG), **settings})).eval()


@torch.inference_mode()
def greedy(model: Transformer, prompts: torch.Tensor, count: int, capacity: int, compiled: bool) -> torch.Tensor:
    """Return the logits of `count` greedy steps, [count, batch, vocabulary]."""
    cache = model.new_cache(len(prompts), capacity)
    step = CompiledStep(model, cache, backend="eager") if compiled else None
    logits = [model(prompts, cache, last_only=True)[:, -1]]
    while len(logits) < count:
        ids = logits[-1].argmax(-1)
        logits.append(model(ids[:, None], cache)[:, -1] if step is None else step(ids).clone())
    assert cache.length == prompts.shape[1] + count - 1
    return torch.stack(logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_model(family: str) -> None:
    model = small(**FAMILIES[family])
    prompts = torch.randint(101, (2, 7), generator=torch.Generator().manual_seed(1))
    expected, found = (greedy(model, prompts, 12, 32, compiled) for compiled in (False, True))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))


def test_the_cache_grows_and_slots_without_tokens_may_hold_anything() -> None:
    model = small()
    prompts = torch.tensor([[1, 2, 3]])
    expected = greedy(model, prompts, 40, 0, compiled=False)
    cache = model.new_cache(1, 6)
    for layer in range(2):
        for memory in cache.memory(layer):
            memory.fill_(torch.nan)
    step = CompiledStep(model, cache, backend="eager")
    with torch.inference_mode():
        logits = [model(prompts, cache, last_only=True)[:, -1]]
        while len(logits) < 40:  # beyond 6 slots
            logits.append(step(logits[-1].argmax(-1)).clone())
    torch.testing.assert_close(torch.stack(logits), expected, rtol=1e-5, atol=1e-5)


def test_texts_may_be_cut_and_selected_between_steps() -> None:
    model = small()
    cache = model.new_cache(2, 16)
    step = CompiledStep(model, cache, backend="eager")
    with torch.inference_mode():
        model(torch.tensor([[1, 2, 3], [4, 5, 6]]), cache)
        step(torch.tensor([7, 8]))
        cache.truncate(3)
        cache.select(torch.tensor([1, 0]))
        found = step(torch.tensor([9, 10])).clone()
        expected = model(torch.tensor([[4, 5, 6, 9], [1, 2, 3, 10]]))[:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_one_graph_serves_all_steps_and_caches_of_a_shape() -> None:
    model = small()
    graphs: list[object] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    for _ in range(2):
        cache = model.new_cache(1, 16)
        step = CompiledStep(model, cache, backend=backend)  # type: ignore[arg-type]
        for id in range(4):
            step(torch.tensor([id]))
    assert len(graphs) == 1


def test_a_full_context_is_refused() -> None:
    model = small(max_seq_len=4)
    cache = model.new_cache(1, 4)
    step = CompiledStep(model, cache, backend="eager")
    for id in range(4):
        step(torch.tensor([id]))
    with pytest.raises(InputError, match="context holds 4 tokens.*start a new text"):
        step(torch.tensor([1]))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"n_experts": 4, "n_experts_per_token": 2}, "its experts read different tokens in each step"),
        ({"rope_scaling": "dynamic", "rope_scaling_factor": 2.0}, "rotations depend on the length"),
    ],
)
def test_models_without_fixed_shapes_are_refused_by_name(settings: dict[str, Any], reason: str) -> None:
    model = small(**settings)
    with pytest.raises(InputError, match=f"{reason}.*generate without compiling"):
        CompiledStep(model, model.new_cache(1, 8))


def test_prompts_of_different_lengths_are_refused() -> None:
    model = small()
    cache = model.new_cache(2, 8)
    with torch.inference_mode():
        model(torch.tensor([[0, 1], [2, 3]]), cache, positions=torch.tensor([[-1, 0], [0, 1]]))
    with pytest.raises(InputError, match="differ in length"):
        CompiledStep(model, cache)

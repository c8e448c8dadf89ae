"""Windows of ids and their scores, against float64, for all windows and batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bpe import InputError, Tokenizer
from model import ModelConfig, Transformer
from model.evaluation.windows import Window, check_window, score, token_losses, windows
from model.generation.completions import prompt_ids
from support.letters import log_probabilities, places_before
from support.reference_model import reference_logits

MakeModel = Callable[[ModelConfig], Transformer]


def test_each_token_is_predicted_once_from_the_context_that_its_window_leaves() -> None:
    for length in range(14):
        for window in range(1, 8):
            for stride in range(1, window + 1):
                predicted = []
                for ids, count in windows(list(range(length)), window, stride):
                    assert ids == list(range(ids[0], ids[-1] + 1))
                    assert len(ids) - 1 <= window
                    for target in ids[-count:]:
                        predicted.append(target)
                        before = target - ids[0]
                        assert before == places_before(target, window, stride, length)
                        assert before >= min(target, window - stride + 1)
                assert predicted == list(range(1, length))


def test_losses_match_a_float64_computation(model: Transformer, letters: Tokenizer) -> None:
    ids = prompt_ids(letters, "the thin cloth, the sea")
    for _ in range(5):  # make the targets the likeliest tokens
        ids.append(int(reference_logits(model, ids)[-1].argmax()))
    (found,) = score(model, windows(ids, 64, 64))
    expected = log_probabilities(model, ids)
    assert found.likeliest[-5:].all()
    assert not found.likeliest.all()
    np.testing.assert_allclose(found.nats, -expected[np.arange(len(ids) - 1), ids[1:]], rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(found.likeliest, expected[:-1].argmax(axis=1) == ids[1:])


@pytest.mark.parametrize("batch_tokens", [1, 40, 200, 100_000])
def test_losses_do_not_depend_on_the_rest_of_the_batch(batch_tokens: int, model: Transformer) -> None:
    generator = np.random.default_rng(3)
    asked = [
        Window(generator.integers(0, 259, int(size)).tolist(), int(predicted))
        for size, predicted in zip(generator.integers(8, 40, 60), generator.integers(1, 7, 60), strict=True)
    ]
    done: list[tuple[int, int]] = []
    together = list(score(model, asked, batch_tokens, lambda *told: done.append(told)))
    assert done[-1] == (sum(len(window.ids) - 1 for window in asked), 60)
    for window, found in zip(asked, together, strict=True):
        (alone,) = score(model, [window])
        assert len(found.nats) == window.predicted
        np.testing.assert_allclose(found.nats, alone.nats, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found.likeliest, alone.likeliest)


def test_at_most_chunk_logits_are_in_memory_at_a_time(model: Transformer) -> None:
    rows: list[int] = []
    model.output.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[0]))
    hidden = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(50)
    losses, likeliest = token_losses(model, hidden, targets, chunk_logits=259 * 20)
    assert rows == [20, 20, 10]
    whole = model.head(hidden).double().log_softmax(-1)
    torch.testing.assert_close(losses.double(), -whole[torch.arange(50), targets], rtol=1e-5, atol=1e-5)
    assert torch.equal(likeliest, whole.argmax(-1) == targets)


def test_only_predicted_tokens_get_logits(model: Transformer) -> None:
    rows: list[int] = []
    model.output.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[0]))
    list(score(model, [Window(list(range(30)), 4), Window(list(range(20)), 3)]))
    assert rows == [7]


@pytest.mark.parametrize(
    ("window", "stride", "words"),
    [
        (65, 1, "window is 65.*1 to 64"),
        (0, 1, "window is 0"),
        (16, 17, "stride is 17.*1 to 16"),
        (16, 0, "stride is 0"),
    ],
)
def test_windows_and_strides_out_of_range_raise(window: int, stride: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_window(window, stride, context=64)


def test_damaged_weights_raise(model: Transformer) -> None:
    with torch.no_grad():
        model.norm.weight[0] = math.nan
    with pytest.raises(InputError, match="the loss of a token is nan; the model's weights are damaged"):
        list(score(model, [Window([1, 2, 3], 2)]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_float32_for_any_dtype_of_the_weights(
    dtype: torch.dtype, config: ModelConfig, make_model: MakeModel
) -> None:
    model = make_model(config).to(dtype)
    ids = list(range(40))
    (found,) = score(model, [Window(ids, 39)])
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]]))[0].double()
    expected = -logits.log_softmax(-1)[torch.arange(39), ids[1:]].numpy()
    np.testing.assert_allclose(found.nats, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scaling", ["dynamic", "longrope"])
def test_scores_do_not_depend_on_the_other_windows_where_rope_depends_on_the_length(
    scaling: Any, config: ModelConfig, make_model: MakeModel
) -> None:
    factors: dict[str, Any] = {"rope_short_factors": (1.0,) * 4, "rope_long_factors": (2.0,) * 4}
    if scaling == "dynamic":
        factors = {}
    longer = dataclasses.replace(
        config, rope_scaling=scaling, rope_scaling_factor=4.0, rope_original_length=16, **factors
    )
    model = make_model(longer)
    some = [Window(list(range(size)), size - 1) for size in (9, 15, 20, 20, 33, 50)]
    together = list(score(model, some))
    for window, scores in zip(some, together, strict=True):
        np.testing.assert_allclose(scores.nats, next(score(model, [window])).nats, rtol=1e-5)

"""Sampling by its definitions and as transformers samples, from tensors and from arrays."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from bpe.errors import InputError
from model.generation import sampling as array_sampling
from model.generation import tensor_sampling
from model.generation.sampling import Sampling
from model.generation.tensor_sampling import candidates


def by_definition(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> npt.NDArray[np.float64]:
    """Return the sampling distribution by its definition, in float64."""
    scaled = np.array(logits, np.float64) / temperature
    kept = sorted(range(len(logits)), key=lambda token: -scaled[token])[: top_k or len(logits)]
    weight = {token: float(np.exp(scaled[token] - scaled.max())) for token in kept}
    if top_p is not None:
        total, nucleus = 0.0, []
        for token in kept:
            if total / sum(weight.values()) >= top_p:
                break
            nucleus.append(token)
            total += weight[token]
        kept = nucleus
    if min_p is not None:
        kept = [token for token in kept if weight[token] >= min_p * weight[kept[0]]]
    distribution = np.zeros(len(logits))
    distribution[kept] = [weight[token] for token in kept]
    return distribution / distribution.sum()


Distribution = Callable[..., npt.NDArray[np.float64]]


def of_tensors(
    logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> npt.NDArray[np.float64]:
    probabilities, ids = candidates(logits[None], Sampling(temperature, top_k, top_p, min_p))
    full = torch.zeros(logits.shape[-1]).scatter(0, ids[0], probabilities[0])
    return full.double().numpy()


def of_arrays(
    logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> npt.NDArray[np.float64]:
    given = Sampling(temperature, top_k, top_p, min_p)
    probabilities, ids = array_sampling.candidates(logits.float().numpy(), given)
    full = np.zeros(logits.shape[-1])
    full[ids] = probabilities
    return full


BOTH = pytest.mark.parametrize("drawn_from", [of_tensors, of_arrays])


@BOTH
@settings(deadline=None, max_examples=200)
@given(
    # Distinct eighths, so that no tokens tie and rounding decides nothing.
    st.lists(st.integers(-60, 60), min_size=1, max_size=40, unique=True).map(lambda n: [x / 8 for x in n]),
    st.sampled_from([0.3, 0.8, 1.0, 2.5]),
    st.none() | st.integers(1, 50),
    st.none() | st.sampled_from([0.0501, 0.5003, 0.9007, 0.9901, 1.0]),
    st.none() | st.sampled_from([0.0, 0.0123, 0.2057, 1.0]),
)
def test_the_distribution_matches_its_definition(
    drawn_from: Distribution,
    logits: list[float],
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
) -> None:
    found = drawn_from(torch.tensor(logits), temperature, top_k, top_p, min_p)
    np.testing.assert_allclose(found, by_definition(logits, temperature, top_k, top_p, min_p), atol=2e-6)


@BOTH
def test_a_nucleus_wider_than_the_partial_sort_is_complete(drawn_from: Distribution) -> None:
    logits = torch.linspace(1, 0, 5000)[torch.randperm(5000, generator=torch.Generator().manual_seed(0))]
    found = drawn_from(logits, 1.0, None, 0.9, None)
    np.testing.assert_allclose(found, by_definition(logits.tolist(), 1.0, None, 0.9, None), atol=1e-6)
    assert (found > 0).sum() > 1024


# Ties and rounding, as in transformers


def by_transformers(
    logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> torch.Tensor:
    """Return the sampling distributions of transformers' warpers, in the order in which `generate` applies them."""
    ids = torch.zeros(0, dtype=torch.long)
    scores = TemperatureLogitsWarper(temperature)(ids, logits.float())
    if top_k is not None:
        scores = TopKLogitsWarper(top_k)(ids, scores)
    if top_p is not None and top_p < 1:
        scores = TopPLogitsWarper(top_p)(ids, scores)
    if min_p is not None:
        scores = MinPLogitsWarper(min_p)(ids, scores)
    return scores.softmax(-1)


@BOTH
def test_a_nucleus_that_is_complete_exactly_at_p_keeps_no_further_token(drawn_from: Distribution) -> None:
    logits = torch.tensor([0.3, 0.1, 0.1, 0.5]).log()
    assert drawn_from(logits, 1.0, None, 0.8, None).nonzero()[0].tolist() == [0, 3]
    assert drawn_from(logits, 1.0, None, 0.9, None).nonzero()[0].tolist() == [0, 2, 3]


@BOTH
def test_top_k_keeps_all_tokens_that_tie_with_the_last_kept(drawn_from: Distribution) -> None:
    logits = torch.tensor([1.0, 2.0, 1.0, 0.0, 1.0])
    assert drawn_from(logits, 1.0, 2, None, None).nonzero()[0].tolist() == [0, 1, 2, 4]


def tied_logits(kind: str, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    if kind == "few values":
        return torch.randint(-4, 4, shape, generator=generator) * 0.25
    if kind == "round probabilities":
        counts = torch.randint(1, 11, shape, generator=generator).float()
        return (counts / counts.sum(-1, keepdim=True)).log()
    if kind == "banned tokens":
        logits = (torch.randint(0, 3, shape, generator=generator) == 0).float().log()
        logits[:, 0] = 0
        return logits
    return torch.randn(shape, generator=generator).bfloat16()


@pytest.mark.parametrize("vocabulary", [1, 4, 10, 50, 300, 3000])
@pytest.mark.parametrize("kind", ["few values", "round probabilities", "banned tokens", "bfloat16"])
def test_tied_tokens_are_kept_as_transformers_keeps_them(kind: str, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    chance = random.Random(vocabulary)
    for _ in range(60):
        logits = tied_logits(kind, (min(100, 30_000 // vocabulary), vocabulary), generator)
        temperature = chance.choice([1.0, 1.0, 0.7, 2.0, 0.3])
        top_k = chance.choice([None, None, 1, 2, 5, 40])
        top_p = chance.choice([None, 0.1, 0.2, 0.25, 0.3, 0.5, 0.6, 0.75, 0.8, 0.9, 0.95, 0.9999, 1.0])
        min_p = chance.choice([None, None, 0.0, 0.05, 0.1, 0.25, 0.5, 1.0])
        expected = by_transformers(logits, temperature, top_k, top_p, min_p)
        probabilities, ids = candidates(logits, Sampling(temperature, top_k, top_p, min_p))
        found = torch.zeros(logits.shape).scatter_add(-1, ids, probabilities)
        assert torch.equal(found > 0, expected > 0), (temperature, top_k, top_p, min_p)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["few values", "round probabilities", "banned tokens", "bfloat16"])
def test_arrays_of_tied_logits_are_sampled_as_by_a_stable_sort_of_transformers(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a sum of probabilities is p but for rounding, both sides of p are right."""
    sort = torch.sort
    monkeypatch.setattr(torch, "sort", lambda *given, **named: sort(*given, stable=True, **named))
    generator, chance = torch.Generator().manual_seed(9), random.Random(9)
    for vocabulary in (1, 4, 10, 50, 300, 3000):
        for _ in range(12):
            logits = tied_logits(kind, (min(40, 12_000 // vocabulary), vocabulary), generator).float()
            temperature, top_k = chance.choice([1.0, 0.7, 2.0]), chance.choice([None, None, 1, 2, 5, 40])
            top_p = chance.choice([None, 0.1, 0.2, 0.25, 0.3, 0.5, 0.6, 0.75, 0.8, 0.9, 0.95, 0.9999])
            min_p = chance.choice([None, None, 0.05, 0.1, 0.25, 0.5, 1.0])
            sides = [
                by_transformers(
                    logits, temperature, top_k, top_p and top_p + off, min_p and min(1.0, min_p * (1 + other))
                ).numpy()
                for off in (0, -2e-6, 2e-6)
                for other in (0, -2e-6, 2e-6)
            ]
            for row, tokens in enumerate(logits):
                found = of_arrays(tokens, temperature, top_k, top_p, min_p)
                close = [np.allclose(found, side[row], atol=2e-6, rtol=1e-5) for side in sides]
                assert any(close), (tokens, temperature, top_k, top_p, min_p)


def test_tensors_and_arrays_draw_the_same_tokens() -> None:
    generator, chance = torch.Generator().manual_seed(3), random.Random(3)
    for _ in range(500):
        shape = (chance.randint(1, 4), chance.choice([1, 2, 50, 3000]))
        logits = torch.randn(shape, generator=generator) * chance.choice([0.1, 1, 5])
        sampling = Sampling(
            temperature=chance.choice([0, 0.5, 1, 2]),
            top_k=chance.choice([None, 1, 5, 40, 5000]),
            top_p=chance.choice([None, 0.3, 0.9, 0.99, 1.0]),
            min_p=chance.choice([None, 0.0, 0.05, 0.3, 1.0]),
        )
        draws = [chance.random() for _ in logits]
        expected = tensor_sampling.sample(logits, sampling, draws).tolist()
        assert array_sampling.sample(logits.numpy(), sampling, draws) == expected, sampling


@pytest.mark.parametrize("kind", ["few values", "round probabilities", "banned tokens", "bfloat16", "flat"])
def test_a_draw_is_the_candidate_at_its_point_of_the_cumulative_distribution(kind: str) -> None:
    generator, chance = torch.Generator().manual_seed(4), random.Random(4)
    for vocabulary in (1, 4, 255, 257, 3000):
        shape = (10, vocabulary)
        flat = torch.rand(shape, generator=generator) * 0.1
        logits = (flat if kind == "flat" else tied_logits(kind, shape, generator).float()).numpy()
        for temperature, top_p in ((1.0, None), (0.7, 1.0), (1.0, 0.5), (1.3, 0.95), (0.7, 0.9999)):
            sampling = Sampling(temperature=temperature, top_p=top_p)
            draws = [0.0, 1 - 2**-53, *(chance.random() for _ in range(8))]
            for row, draw, id in zip(logits, draws, array_sampling.sample(logits, sampling, draws), strict=True):
                probabilities, ids = array_sampling.candidates(row, sampling)
                cumulative = probabilities.cumsum()
                assert id == ids[cumulative.searchsorted(draw * cumulative[-1], "right")]


def test_log_probabilities_of_arrays_are_those_of_torch() -> None:
    logits = torch.randn(3, 500, generator=torch.Generator().manual_seed(1)) * 4
    expected = logits.log_softmax(-1)
    found = array_sampling.log_softmax(logits.numpy())
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6, rtol=1e-6)
    for count in (0, 1, 7, 500):
        values, ids = expected.topk(count)
        for row in range(3):
            pairs = array_sampling.top(expected[row].numpy(), count)
            assert pairs == [*zip(ids[row].tolist(), values[row].tolist(), strict=True)]


Draw = Callable[..., torch.Tensor]


@pytest.fixture(params=["tensors", "arrays"])
def draw(request: pytest.FixtureRequest) -> Draw:
    """Draws a token from each row of logits."""

    def drawn(logits: torch.Tensor, seed: int = 0, **arguments: Any) -> torch.Tensor:
        chance, sampling = random.Random(seed), Sampling(**{"top_p": None, **arguments})
        draws = [chance.random() for _ in logits]
        if request.param == "tensors":
            return tensor_sampling.sample(logits, sampling, draws)
        return torch.tensor(array_sampling.sample(logits.float().numpy(), sampling, draws))

    return drawn


def test_draws_follow_the_distribution(draw: Draw) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])
    draws = draw(logits.expand(20_000, -1), temperature=1.5, top_k=4)
    shares = torch.bincount(draws, minlength=5) / 20_000
    # Four standard deviations of a share of 20,000 draws are below 0.015.
    np.testing.assert_allclose(shares.numpy(), by_definition(logits.tolist(), 1.5, 4, None, None), atol=0.015)
    assert shares[4] == 0


def test_temperature_zero_chooses_the_likeliest_token(draw: Draw) -> None:
    logits = torch.tensor([[0.0, 3.0, 2.9], [5.0, -1.0, 4.9]])
    assert draw(logits, temperature=0).tolist() == [1, 0]


def test_a_temperature_near_zero_does_not_overflow(draw: Draw) -> None:
    logits = torch.tensor([[100.0, 90.0, -50.0]])
    assert draw(logits, temperature=1e-38).tolist() == [0]


def test_the_same_seed_draws_the_same_tokens(draw: Draw) -> None:
    logits = torch.zeros(100, 50)
    draws = [draw(logits, seed, temperature=1.0) for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_banned_token_is_never_drawn(draw: Draw) -> None:
    logits = torch.zeros(1000, 3)
    logits[:, 1] = -torch.inf
    draws = draw(logits, temperature=1.0, top_p=0.99)
    assert set(draws.tolist()) == {0, 2}


def test_logits_in_16_bits_can_be_sampled(draw: Draw) -> None:
    logits = torch.tensor([[0.0, 20.0]], dtype=torch.bfloat16)
    assert draw(logits, temperature=1.0, top_p=0.9).tolist() == [1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_nan_raise(bad: float, temperature: float, draw: Draw) -> None:
    with pytest.raises(InputError, match="no token can be drawn"):
        draw(torch.tensor([[0.0, bad, 1.0]]), temperature=temperature)


def test_banning_all_tokens_raises(draw: Draw) -> None:
    with pytest.raises(InputError, match="no token can be drawn"):
        draw(torch.full((1, 4), -torch.inf), temperature=1.0)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 2.0}, "min_p"),
    ],
)
def test_arguments_out_of_range_raise_with_their_name(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name} is"):
        Sampling(**arguments)

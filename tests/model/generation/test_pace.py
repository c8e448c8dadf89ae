"""The pace of speculative decoding, on a clock of its own: calls take what a test says that they take."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from model.generation.pace import CallTimes, Pace

PRIORS = dict.fromkeys(range(100), 0.5)


def generate(
    pace: Pace, tokens: int, accepted: Callable[[int], bool], cost: Callable[[int], float], proposing: float = 0.0
) -> tuple[float, int]:
    """Generate tokens at a pace, and return the seconds and the number of proposals.

    Args:
        pace: The pace.
        tokens: The number of tokens.
        accepted: Whether a proposal for the token of this number is right.
        cost: The seconds of a call with so many tokens.
        proposing: The seconds that a proposal takes.
    """
    seconds, proposed, done = 0.0, 0, 0
    while done < tokens:
        outlook = list(range(min(15, tokens - done - 1)))
        (count,) = pace.plan([outlook], PRIORS)
        right = 0
        while right < count and accepted(done + right):
            right += 1
        pace.record(1, [count], cost(1 + count), proposing * count)
        pace.learn(1, outlook[:count], right)
        seconds += cost(1 + count) + proposing * count
        proposed += count
        done += right + 1
    return seconds, proposed


def linear(slope: float) -> Callable[[int], float]:
    return lambda tokens: 0.003 * (1 + slope * (tokens - 1))


@pytest.mark.parametrize("slope", [0.0, 0.15, 0.25, 0.45, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_proposals_that_fail_cost_less_than_a_twentieth(slope: float, share: float) -> None:
    choose = random.Random(0)
    cost = linear(slope)
    seconds, _ = generate(Pace(15), 400, lambda token: choose.random() < share, cost)
    assert seconds < 400 * cost(1) / 0.95


def test_a_slow_draft_that_is_never_right_is_hardly_asked() -> None:
    seconds, proposed = generate(Pace(15), 400, lambda token: False, linear(0.25), proposing=0.002)
    assert seconds < 400 * 0.003 / 0.95
    assert proposed


@pytest.mark.parametrize(("slope", "share", "least"), [(0.25, 0.98, 2.5), (0.25, 0.8, 1.5), (0.45, 0.95, 1.5)])
def test_proposals_that_are_right_are_made(slope: float, share: float, least: float) -> None:
    choose = random.Random(0)
    cost = linear(slope)
    seconds, _ = generate(Pace(15), 400, lambda token: choose.random() < share, cost)
    assert 400 * cost(1) / seconds > least


def test_a_text_that_begins_to_repeat_is_noticed() -> None:
    cost, pace = linear(0.25), Pace(15)
    generate(pace, 600, lambda token: False, cost)
    seconds, _ = generate(pace, 1200, lambda token: True, cost)
    assert 1200 * cost(1) / seconds > 2


def test_a_call_that_was_interrupted_changes_little() -> None:
    times = CallTimes()
    for _ in range(10):
        times.add(1, 0, 0.003)
        times.add(1, 3, 0.005)
    times.add(1, 3, 60.0)
    assert times.of(1, 3) < 0.006
    times.add(1, 0, 60.0)
    assert times.plain(1) < 0.0031


def test_times_follow_what_was_measured() -> None:
    times = CallTimes()
    assert times.of(1, 5) == 0
    for _ in range(9):
        times.add(1, 0, 1.0)
    assert times.of(1, 7) > times.of(1, 2) > 1
    choose = random.Random(0)
    for _ in range(60):
        proposals = choose.randint(1, 15)
        times.add(1, proposals, 1.5 + 0.1 * proposals)  # as where products of one vector have kernels of their own
    for proposals in (1, 5, 15):
        assert times.of(1, proposals) == pytest.approx(1.5 + 0.1 * proposals, rel=0.05)
    assert times.plain(1) == 1


def test_an_estimate_that_was_too_high_is_corrected() -> None:
    pace = Pace(15)
    seconds, _ = generate(pace, 50, lambda token: True, lambda tokens: 0.003 if tokens == 1 else 0.009)
    before, _ = generate(pace, 600, lambda token: True, linear(0.0))
    assert before < 600 * 0.003 / 8


def test_the_likeliest_proposals_of_several_texts_are_read() -> None:
    pace = Pace(15)
    for _ in range(20):
        pace.record(2, [0, 0], 0.003, 0.0)
    for _ in range(30):
        pace.learn(2, [1, 1, 1], 3)
        pace.learn(2, [2], 0)
    pace._paused = 0
    sure, unlikely = pace.plan([[1] * 6, [2] * 6], PRIORS)
    assert sure > 2
    assert unlikely == 0


def test_without_adapting_everything_is_proposed() -> None:
    pace = Pace(15, adaptive=False)
    assert pace.plan([[1] * 5, []], PRIORS) == [5, 0]


def test_a_long_match_right_at_the_beginning_is_used() -> None:
    pace = Pace(15)
    cost = linear(0.3)
    sure = dict.fromkeys(PRIORS, 0.98)
    counts = []
    for _ in range(12):
        (count,) = pace.plan([[24] * 15], sure)
        pace.record(1, [count], cost(1 + count), 0.0)
        pace.learn(1, [24] * count, count)
        counts.append(count)
    assert counts[:3] == [0, 0, 0]
    assert counts[3] >= 8
    assert counts[-1] == 15

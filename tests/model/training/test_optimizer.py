"""The learning rate schedules."""

from __future__ import annotations

import dataclasses

import pytest

from model.training.optimizer import learning_rate
from model.training.settings import TrainConfig


def test_wsd_is_constant_after_the_warm_up_and_falls_at_the_end() -> None:
    settings = TrainConfig(steps=1, learning_rate=2.0, warmup=0.1, schedule="wsd", decay=0.25)
    rates = [learning_rate(share / 1000, settings) for share in range(1001)]
    assert rates[50] == pytest.approx(1.0)
    assert set(rates[100:751]) == {2.0}
    assert rates[875] == pytest.approx(1.1)  # half-way between the highest and a tenth of it
    assert rates[1000] == pytest.approx(0.2)
    assert learning_rate(1.0, dataclasses.replace(settings, decay=0.0)) == 2.0


def test_cosine_rises_falls_and_ends_at_a_tenth() -> None:
    settings = TrainConfig(steps=1, learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(share / 1000, settings) for share in range(1001)]
    assert 0 < rates[0] <= 0.01
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[50] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(2.0)
    assert rates[550] == pytest.approx(1.1)  # half-way between the highest and a tenth of it
    assert rates[1000] == pytest.approx(0.2)

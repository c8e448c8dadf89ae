"""Detection of losses that spike."""

from __future__ import annotations

import math

import pytest

from model.training.spikes import StepError, check_step


def test_a_loss_far_above_the_spread_of_the_last_losses_is_a_spike() -> None:
    calm = [2.0 + 0.01 * (-1) ** n for n in range(50)]
    check_step(2.39, 1.0, calm, spike=10)  # ten times 2% of the median
    with pytest.raises(StepError, match=r"the loss is 2\.450, and the median of the last 50 steps"):
        check_step(2.45, 1.0, calm, spike=10)
    check_step(2.45, 1.0, calm, spike=20)
    restless = [2.0 + 0.5 * (-1) ** n for n in range(50)]
    check_step(4.4, 1.0, restless, spike=10)
    check_step(4.9, 1.0, calm[:10], spike=10)  # too few to know their spread
    with pytest.raises(StepError):
        check_step(5.1, 1.0, calm[:10], spike=10)
    for loss, norm in ((math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan)):
        with pytest.raises(StepError):
            check_step(loss, norm, [], spike=10)

"""Detection of steps that must not be taken: losses that are not finite, and losses that spike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

REMEMBERED_LOSSES = 100
"""Number of recent losses that `check_step` compares a loss with."""

_FEW_LOSSES = 20


class StepError(Exception):
    """A step whose update would spoil the model; the message says what is wrong with it."""


def check_step(loss: float, gradient_norm: float, before: Sequence[float], spike: float) -> None:
    """Raise an error for a step that would spoil the model, or that shows that the model is spoiled already.

    A loss is a spike when it exceeds the median of the recent losses by more than `spike` times their spread. The
    spread is the median distance from the median, scaled to equal the standard deviation of normally distributed
    numbers (a factor of 1.4826), and at least 2% of the median. With fewer than 20 recent losses, a loss 3 nats above
    the median is a spike: training begins at chance, and 3 nats worse means confidence in the wrong tokens.

    Args:
        loss: Loss of the step, in nats.
        gradient_norm: Norm of all gradients of the step taken together.
        before: Losses of the last steps, in nats.
        spike: How far the loss may exceed the median, in multiples of the spread.

    Raises:
        StepError: When the loss or the gradient norm is not finite, or the loss is a spike.
    """
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        raise StepError(f"the loss is {loss} and the gradient norm {gradient_norm}")
    if not before:
        return
    median = statistics.median(before)
    spread = 1.4826 * statistics.median(abs(each - median) for each in before)
    allowed = 3.0 if len(before) < _FEW_LOSSES else spike * max(spread, 0.02 * median)
    if loss > median + allowed:
        raise StepError(f"the loss is {loss:.3f}, and the median of the last {len(before)} steps {median:.3f}")

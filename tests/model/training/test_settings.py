"""The settings of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bpe.errors import InputError
from support.training_runs import SETTINGS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "either steps or minutes"),
        ({"minutes": 1.0}, "either steps or minutes"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_tokens": 65}, r"batch_tokens \(65\) is not a multiple of sequence_length \(16\)"),
        ({"micro_batch_tokens": 24}, r"micro_batch_tokens \(24\) is not a multiple of sequence_length \(16\)"),
        ({"sequence_length": 0}, "sequence_length is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warmup": 1.5}, "warmup is 1.5"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"schedule": "wsd", "warmup": 0.5, "decay": 0.6}, "more than the whole budget"),
        ({"decay": -0.1}, "decay is -0.1"),
        ({"peak_flops": 0.0}, "peak_flops is 0.0"),
        ({"sample_tokens": -1}, "sample_tokens is -1"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"max_skipped": -1}, "max_skipped is -1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
    ],
)
def test_invalid_settings_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SETTINGS, **changes)

"""The values of a config.json: what several readers check."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bpe.errors import InputError

Values = Mapping[str, Any]


def positive(values: Values, key: str) -> int:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InputError(f"{key} is {value!r}; expected a positive whole number")
    return value


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(rope: Values, name: str, key: str, default: float | None = None) -> float:
    value = rope.get(name, default)
    if value is None:
        raise InputError(f"{key}: missing {name}")
    if not is_number(value):
        raise InputError(f"{key}: {name} is {value!r}; expected a number")
    number: float = value
    return number

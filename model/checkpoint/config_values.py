"""The values of a config.json: what several readers check."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from bpe.errors import InputError

Values = Mapping[str, Any]


def positive(values: Values, key: str) -> int:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InputError(f"{key} is {value!r}; expected a positive whole number")
    return value


def is_number(value: Any) -> bool:
    """Return whether a value is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def number(rope: Values, name: str, key: str, default: float | None = None) -> float:
    value = rope.get(name, default)
    if value is None:
        raise InputError(f"{key}: missing {name}")
    if not is_number(value):
        raise InputError(f"{key}: {name} is {value!r}; expected a number")
    number: float = value
    return number


def refuse_unknown(unknown: Sequence[tuple[str, Any]], ignore_unknown: bool) -> None:
    """Raise InputError if there are unknown keys, or warn about them if they are to be ignored.

    Args:
        unknown: The keys, as a message names them, and their values.
        ignore_unknown: Whether to warn.
    """
    if not unknown:
        return
    if not ignore_unknown:
        raise InputError(
            f"{unknown[0][0]} (value {unknown[0][1]!r}) is not a known key and may change what the model computes; "
            "if it does not, --ignore-unknown (ignore_unknown=True) passes over it, also in bpe convert"
        )
    names = ", ".join(name for name, _ in unknown)
    warnings.warn(f"passed over keys that are not known and may change what the model computes: {names}", stacklevel=2)

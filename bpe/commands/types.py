"""Types of values on the command line, which take numbers, times and names as people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fractions import Fraction

# Digits, in groups of three by commas or in any groups by underscores, and a fraction.
_DIGITS = r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*)(?:\.\d+)?"
_SIZE = re.compile(rf"(?P<digits>{_DIGITS}) ?(?:(?P<prefix>[kmgt])(?P<binary>i?))?b?", re.IGNORECASE)
_DURATION = re.compile(rf"(?P<digits>{_DIGITS}) ?(?P<unit>[a-z]+)", re.IGNORECASE)
_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
}

OTHER_VALUES = {
    "float32": ("f32", "float", "fp32", "single", "torch.float32"),
    "float16": ("f16", "fp16", "half", "torch.float16"),
    "bfloat16": ("bf16", "bfloat", "torch.bfloat16"),
    "huggingface": ("hf", "hugging-face", "safetensors", "transformers"),
    "u16": ("uint16",),
    "u32": ("uint32",),
    "always": ("force", "on", "yes"),
    "never": ("no", "none", "off"),
    "q8_0": ("int8", "q8"),
}
"""A value of a choice -> other spellings of it."""


def number_of(text: str) -> Fraction | None:
    """Return the number that a text such as 32k, 32_000, 32,000, 1.5G, 4Ki or 500MB stands for, or None.

    Prefixes are decimal, except Ki, Mi, Gi and Ti.
    """
    from fractions import Fraction  # here, because it would add to the start-up time of every command

    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    base = 1024 if match["binary"] else 1000
    power: int = "kmgt".find((match["prefix"] or " ").lower()) + 1
    return Fraction(_plain(match["digits"])) * Fraction(base) ** power


def _plain(digits: str) -> str:
    return digits.replace(",", "").replace("_", "")


def parse_size(text: str) -> int:
    """Return the number that a text such as 2G, 500MB or 64M stands for.

    Raises:
        click.BadParameter: When the text is no size.
    """
    number = number_of(text)
    if number is None or number < 0:
        raise click.BadParameter(f"{text!r} is not a size; write 2G, 500M, or a plain number")
    return int(number)


def _whole(value: Any) -> Any:
    """Return the whole number that a text stands for; other values as they are.

    Raises:
        click.BadParameter: When the text is no whole number.
    """
    if not isinstance(value, str):
        return value
    number = number_of(value) if not value.strip().lower().endswith("b") else None
    if number is None or number.denominator != 1:
        raise click.BadParameter(f"{value!r} is not a whole number; write 4096, 4_096, 4,096 or 4k")
    return int(number)


class WholeNumber(click.types.IntParamType):
    """A whole number, such as 32000, 32_000, 32,000 or 32k."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(_whole(value), param, ctx)


class WholeNumberInRange(click.IntRange):
    """A whole number between limits, such as 32000, 32_000, 32,000 or 32k."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(_whole(value), param, ctx)


class Number(click.types.FloatParamType):
    """A number, such as 0.1, 2e-3, 1_000 or 1,000."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                number = number_of(value) if not value.strip().lower().endswith("b") else None
            if number is None:
                raise click.BadParameter(f"{value!r} is not a number; write 0.5, 2e-3 or 1000")
            return float(number)
        return super().convert(value, param, ctx)


class Share(Number):
    """A share of a whole, such as 0.05 or 5%."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.strip().endswith("%"):
            return super().convert(value.strip()[:-1].rstrip(), param, ctx) / 100
        return super().convert(value, param, ctx)


class Duration(Number):
    """A time, such as 5, 5m, 90s, 1.5h, 1h30m or 5 minutes.

    Args:
        unit: The unit of the value, and of a number without a unit: "s" or "m".
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return super().convert(value, param, ctx)
        parts = [(match["digits"], match["unit"].lower()) for match in _DURATION.finditer(value)]
        is_whole = not _DURATION.sub("", value).strip() and all(unit in _SECONDS for _, unit in parts)
        if parts and is_whole:
            from fractions import Fraction

            seconds = sum(Fraction(_plain(digits)) * _SECONDS[unit] for digits, unit in parts)
            return float(seconds / _SECONDS[self._unit])
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            raise click.BadParameter(f"{value!r} is not a time; write 5m, 90s, 1h30m, or a plain number") from None


if TYPE_CHECKING:
    _Choice = click.Choice[str]
else:
    _Choice = click.Choice  # which has no type parameter before click 8.2


class OneOf(_Choice):
    """One of some names, in capitals or not, or by another spelling in `OTHER_VALUES`."""

    def __init__(self, choices: Sequence[str]) -> None:
        super().__init__(choices, case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        spelled = str(value).strip().lower()
        if spelled not in self.choices:
            value = next((name for name, others in OTHER_VALUES.items() if spelled in others), value)
        if str(value).lower() in [choice.lower() for choice in self.choices]:
            return super().convert(value, param, ctx)
        from difflib import get_close_matches  # here, because it would add to the start-up time of every command

        likely = get_close_matches(spelled, self.choices, 1, 0.5)
        question = f"; did you mean {likely[0]}?" if likely else ""
        raise click.BadParameter(f"{value!r} is not one of {', '.join(self.choices)}{question}")


def lenient(kind: click.ParamType[Any]) -> click.ParamType[Any]:
    """Return the type that takes the values of one of click's types in more spellings; other types as they are."""
    if type(kind) is click.types.IntParamType:
        return WholeNumber()
    if type(kind) is click.IntRange:
        return WholeNumberInRange(kind.min, kind.max, kind.min_open, kind.max_open, kind.clamp)
    if type(kind) is click.types.FloatParamType:
        return Number()
    return OneOf(kind.choices) if type(kind) is click.Choice else kind

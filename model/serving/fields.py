"""JSON of requests: read strictly, and its fields taken one by one, so that none is ignored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

from model.serving.refusals import Refusal

DEPTH_LIMIT = 64
"""Levels of lists and objects in a request. Schemas of real programs have fewer than 20."""


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Raises:
        Refusal: When the body is not a JSON object, an object in it has a field twice, or it has a number or a text
            that JSON does not allow. Programs disagree on what these mean.
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise Refusal(f"the body is not UTF-8: byte {body[error.start]:#04x} at {error.start:,}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno:,} column {error.colno:,}"
        raise Refusal(f"the body is not JSON: {error.msg}, at {place}; send a JSON object") from None
    except RecursionError:
        raise Refusal(_too_deep()) from None
    except Refusal:
        raise
    except ValueError:  # a whole number of thousands of digits
        raise Refusal("the body has a number with too many digits; send a smaller number") from None
    if not isinstance(value, dict):
        raise Refusal(f"the body is {kind_of(value)}; send a JSON object")
    _check_values(value, has_escapes=b"\\u" in body)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Refusal(f"an object in the body has the field {shown(twice)} twice; send it once")
    return made


def _refuse_constant(name: str) -> Any:
    raise Refusal(f"the body has the number {name}, which JSON does not allow; send a finite number")


def _too_deep() -> str:
    return f"the body is nested more than {DEPTH_LIMIT} levels deep; send fewer levels"


def _check_values(value: Any, has_escapes: bool) -> None:
    """Refuse values that are nested too deeply, and texts with half of a surrogate pair."""
    level: list[Any] = [value]
    depth = 0
    while level:
        depth += 1
        if depth > DEPTH_LIMIT:
            raise Refusal(_too_deep())
        inner = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]
        if has_escapes:
            names = (name for each in level if isinstance(each, dict) for name in each)
            for text in chain(names, inner):
                if isinstance(text, str):
                    _check_text(text)
        level = [item for item in inner if isinstance(item, (dict, list))]


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refusal("a text has half of a surrogate pair (\\ud800 to \\udfff); send both halves") from None


def kind_of(value: Any) -> str:
    """Return what a JSON value is, for a message: "a string", "a number", ..."""
    if value is None:
        return "null"
    kinds: list[tuple[type, str]] = [
        (bool, "a boolean"), (str, "a string"), (int, "an integer"), (float, "a number"), (list, "a list"),
    ]  # fmt: skip
    return next((name for kind, name in kinds if isinstance(value, kind)), "an object")


def shown(value: Any) -> str:
    """Return a value of a request as a message shows it: as JSON, and not more than 80 characters of it."""
    if isinstance(value, str) and len(value) > 200:
        value = value[:200]
    if isinstance(value, (list, dict)):
        return kind_of(value)
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class Fields:
    """The fields of an object in a request. Each is taken once; `finish` refuses those that nobody took.

    A field that is null counts as absent.

    Args:
        values: The object.
        where: The place of the object, such as "messages[2]"; "" for the body itself.
    """

    def __init__(self, values: Mapping[str, Any], where: str = "") -> None:
        self._left = dict(values)
        self._where = where

    @classmethod
    def of(cls, value: Any, where: str) -> Fields:
        """Return the fields of a value that should be an object.

        Raises:
            Refusal: When the value is not an object.
        """
        if not isinstance(value, dict):
            raise Refusal(f"{where} is {kind_of(value)}; it must be an object", where)
        return cls(value, where)

    def place(self, name: str) -> str:
        """Return the place of a field in the request, such as "messages[2].role"."""
        return f"{self._where}.{name}" if self._where else name

    def refusal(self, name: str, what: str, code: str | None = None) -> Refusal:
        """Return the error about a field.

        Args:
            name: The field.
            what: What is wrong; the message begins with the place of the field.
            code: As for `Refusal`.
        """
        return Refusal(f"{self.place(name)} {what}", self.place(name), code)

    def has(self, name: str) -> bool:
        """Return whether a field is given and not yet taken."""
        return self._left.get(name) is not None

    def any(self, name: str) -> Any:
        """Take a field of any kind; None if it is absent."""
        return self._left.pop(name, None)

    def needed(self, name: str, what: str) -> Any:
        """Take a field that must be given.

        Args:
            name: The field.
            what: What the field must be, for the message.

        Raises:
            Refusal: When the field is absent.
        """
        value = self.any(name)
        if value is None:
            raise self.refusal(name, f"is missing; give {what}", "missing_required_parameter")
        return value

    def text(self, name: str, limit: int | None = None) -> str | None:
        """Take a text of at most `limit` characters."""
        value = self.any(name)
        if value is not None and not isinstance(value, str):
            raise self.refusal(name, f"is {kind_of(value)}; it must be a string")
        if value is not None and limit is not None and len(value) > limit:
            raise self.refusal(name, f"has {len(value):,} characters; it may have at most {limit:,}")
        return value

    def flag(self, name: str) -> bool:
        """Take a boolean; False if it is absent."""
        value = self.any(name)
        if not isinstance(value, bool) and value is not None:
            raise self.refusal(name, f"is {shown(value)}; it must be true or false")
        return value is True

    def integer(self, name: str, low: int, high: int) -> int | None:
        """Take an integer between two others, inclusive."""
        value = self.any(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.refusal(name, f"is {shown(value)}; it must be an integer from {low:,} to {high:,}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """Take a number between two others, inclusive."""
        value = self.any(name)
        if value is None:
            return None
        if not is_number(value) or not low <= value <= high:
            raise self.refusal(name, f"is {shown(value)}; it must be a number from {low:g} to {high:g}")
        return float(value)

    def items(self, name: str, most: int) -> list[Any] | None:
        """Take a list of at most `most` values."""
        value = self.any(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.refusal(name, f"is {kind_of(value)}; it must be a list")
        if len(value) > most:
            raise self.refusal(name, f"has {len(value):,} values; it may have at most {most:,}")
        return value

    def choice(self, name: str, *values: str) -> str | None:
        """Take one of several texts."""
        value: Any = self.any(name)
        if value is not None and value not in values:
            raise self.refusal(name, f"is {shown(value)}; it must be {' or '.join(map(shown, values))}")
        return None if value is None else str(value)

    def refuse(self, name: str, why: str, *accepted: Any) -> None:
        """Take a field that is not supported.

        Args:
            name: The field.
            why: Why it is not supported, or what to do instead; ends the message.
            accepted: The values that change nothing, besides null.

        Raises:
            Refusal: When the field has another value.
        """
        value = self.any(name)
        if value is not None and not any(type(value) is type(each) and value == each for each in accepted):
            raise self.refusal(name, f"is not supported: {why}", "unsupported_parameter")

    def finish(self) -> None:
        """Refuse the fields that were not taken.

        Raises:
            Refusal: When there are any; the message names the first.
        """
        for name in (name for name, value in self._left.items() if value is not None):
            place = self.place(name)[:200]
            raise Refusal(f"{shown(place)} is not a field that this server knows; leave it out", place,
                          "unknown_parameter")  # fmt: skip


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number that a float can hold, and no boolean."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False

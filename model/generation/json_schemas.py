"""JSON schemas for structured output: which keywords are enforced, and where a schema is wrong.

llguidance refuses most of what it cannot enforce, but passes over keywords that it does not know, and does not say
where in a schema something is wrong. Both are found out here, so that nothing in a schema is ignored in silence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bpe.errors import InputError

_LONGEST = 1_000_000  # characters of a schema
_DEEPEST = 60  # schemas within schemas; llguidance reads JSON 128 deep

_ANNOTATIONS = {
    "$comment",
    "$schema",
    "default",
    "deprecated",
    "description",
    "example",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
}
"""Keywords that constrain nothing."""
_VALUES = {
    "type",
    "const",
    "enum",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "$ref",
}
_ONE = {"items", "additionalProperties"}
_LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
_MAPS = {"$defs", "definitions", "properties", "patternProperties"}
_KNOWN = _ANNOTATIONS | _VALUES | _ONE | _LISTS | _MAPS
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def schema_of(schema: object) -> dict[str, Any]:
    """Return a schema as a dict, from a mapping, a boolean or JSON text.

    Raises:
        InputError: When it is none of these.
    """
    if isinstance(schema, (str, bytes)):
        if len(schema) > _LONGEST:
            raise InputError(f"the JSON schema has {len(schema):,} characters; at most {_LONGEST:,} are read")
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise InputError(f"the JSON schema is not JSON: {reason}") from None
    if schema is True:
        return {}
    if schema is False:
        raise InputError("the JSON schema is false, which allows nothing; give a schema that allows something")
    if not isinstance(schema, Mapping):
        raise InputError(f"the JSON schema is {_kind(schema)}; it must be an object")
    return dict(schema)


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a schema with keywords that cannot be enforced.

    Raises:
        InputError: When there is such a keyword, or the schema is no JSON or too long; the message names the place.
    """
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"the JSON schema is not JSON: {reason}") from None
    if len(text) > _LONGEST:
        raise InputError(f"the JSON schema has {len(text):,} characters; at most {_LONGEST:,} are read")
    for pointer, part in subschemas(schema):
        if isinstance(part, bool):
            continue
        if not isinstance(part, Mapping):
            raise InputError(f"JSON schema, at {pointer or 'its root'}: {_kind(part)} is not a schema; write an object")
        if pointer.count("/") > 2 * _DEEPEST:
            raise InputError(f"JSON schema, at {pointer[:80]}...: schemas are nested too deeply; flatten it")
        _check_keywords(pointer, part, schema)


def subschemas(schema: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a schema and those within it, with their JSON pointers. Values that are no schemas are yielded, too."""
    waiting = [(pointer, schema)]
    while waiting:
        place, part = waiting.pop()
        yield place, part
        if isinstance(part, Mapping):
            waiting += reversed([*_inner(place, part)])


def first_refused(
    schema: Mapping[str, Any], refusal: Callable[[Mapping[str, Any]], str | None]
) -> tuple[str, str] | None:
    """Return the JSON pointer of the innermost schema that is refused on its own, and why; None if none is.

    Args:
        schema: The whole schema.
        refusal: Returns why a schema is refused, or None.
    """
    definitions = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    found, place, part = None, "", schema
    for _ in range(_DEEPEST):
        for pointer, inner in _inner(place, part):
            if isinstance(inner, Mapping) and (reason := refusal({**inner, **definitions})):
                found = (pointer, reason)
                place, part = pointer, inner
                break
        else:
            break
    return found


def _inner(pointer: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the schemas directly within a schema, with their JSON pointers."""
    for key, value in schema.items():
        place = f"{pointer}/{_escaped(key)}"
        if key in _ONE:
            yield place, value
        elif key in _LISTS and isinstance(value, list):
            yield from ((f"{place}/{number}", inner) for number, inner in enumerate(value))
        elif key in _MAPS and isinstance(value, Mapping):
            yield from ((f"{place}/{_escaped(name)}", inner) for name, inner in value.items())


def _check_keywords(pointer: str, schema: Mapping[str, Any], root: Mapping[str, Any]) -> None:
    for key, value in schema.items():
        place = f"{pointer}/{_escaped(key)}"
        if key in _LISTS and not isinstance(value, list):
            _refuse(place, f"{_kind(value)} is not a list of schemas")
        if key in _MAPS and not isinstance(value, Mapping):
            _refuse(place, f"{_kind(value)} is not an object of schemas")
        if key == "x-guidance" or not (key in _KNOWN or key.startswith("x-")):
            _refuse(place, f"the keyword {key} is not supported; remove it")
        if key in _NUMBERS and isinstance(value, (int, float)) and not _is_plain(value):
            _refuse(place, f"{value} is too large a number; write one below 2^53, or leave the limit out")
        if key == "$ref":
            _check_reference(place, value, root)


def _check_reference(place: str, reference: object, root: Mapping[str, Any]) -> None:
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        _refuse(place, f"{json.dumps(reference)} is not a reference within the schema; write #/$defs/NAME")
    part: Any = root
    for name in str(reference).split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(part, Mapping) and name in part:
            part = part[name]
        elif isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        else:
            _refuse(place, f"{reference} is not in the schema")


def _is_plain(number: float) -> bool:
    return math.isfinite(number) and abs(number) < 2**53


def _refuse(place: str, reason: str) -> None:
    raise InputError(f"JSON schema, at {place}: {reason}")


def _escaped(name: str) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")


def _kind(value: object) -> str:
    """Return what a value is in JSON, for a message."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."

"""JSON schemas for structured output: which keywords are enforced, and where a schema is wrong.

llguidance compiles schemas. It refuses most of what it cannot enforce, but passes over keywords that it does not know,
does not say where in a schema something is wrong, and is not exact in the cases that are refused or rewritten here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NoReturn
from urllib.parse import unquote

from bpe.errors import InputError

_LONGEST = 1_000_000  # characters of a schema
_MOST_MULTIPLES = 1000  # the product of all multipleOf, without their factors 2 and 5
_MOST_DIGITS = 15  # of a bound; with 16, the neighbor of a bound may be taken for it
_MOST_TRIES = 200  # schemas that are compiled on their own to find the one that is wrong
_DEEPEST = 100  # values within values; llguidance reads JSON 128 deep

_ANNOTATIONS = {
    "$comment",
    "$schema",
    "default",
    "deprecated",
    "description",
    "discriminator",  # OpenAPI's; pydantic writes it beside oneOf, which says the same
    "example",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
}
"""Keywords that constrain nothing."""
_COUNTS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
_NUMBERS = {*_LOWER, *_UPPER, "multipleOf"}
_OTHERS = {"type", "const", "enum", "pattern", "format", "required", "$ref"}
_ONE = {"items", "additionalProperties"}
_LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
_MAPS = {"$defs", "definitions", "properties", "patternProperties"}
_KNOWN = _ANNOTATIONS | _COUNTS | _NUMBERS | _OTHERS | _ONE | _LISTS | _MAPS
_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

_YEAR = r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_PATTERNS = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}
"""Formats that are patterns here. llguidance's allow 29 February in every year and a leap second at any time."""
_FORMATS = {*_PATTERNS, "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"}
_LONGEST_HOSTNAME = 253  # RFC 1035; llguidance checks the length of the labels only

_UNWRITABLE = re.compile(r"[\x00-\x07\x0b\x0e-\x1f]|[\ud800-\udfff]")
"""Characters that strings do not have in generated JSON: they can only be written as \\u and four digits, which is
switched off, since llguidance would then take a key written so for another key."""


def schema_of(schema: object) -> dict[str, Any]:
    """Return a schema as a dict, from a mapping, a boolean or JSON text.

    Raises:
        InputError: When it is none of these.
    """
    if isinstance(schema, (str, bytes)):
        if len(schema) > _LONGEST:
            raise InputError(f"the JSON schema has {len(schema):,} characters; at most {_LONGEST:,} are read")
        try:
            schema = json.loads(schema, object_pairs_hook=_without_repeats)
        except RecursionError:
            raise InputError("the JSON schema is nested too deeply; flatten it") from None
        except ValueError as error:
            raise InputError(f"the JSON schema is not JSON: {error}") from None
    if schema is True:
        return {}
    if schema is False:
        raise InputError("the JSON schema is false, which allows nothing; give a schema that allows something")
    if not isinstance(schema, Mapping):
        raise InputError(f"the JSON schema is {_shown(schema)}; it must be an object")
    return dict(schema)


def prepared(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Check a schema, and return it as llguidance takes it.

    Raises:
        InputError: When a keyword is wrong or cannot be enforced exactly, or the schema is no JSON or too long; the
            message names the keyword and its JSON pointer.
    """
    try:
        text = json.dumps(schema, allow_nan=False)
    except RecursionError:
        raise InputError("the JSON schema is nested too deeply; flatten it") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"the JSON schema is not JSON: {error}") from None
    if len(text) > _LONGEST:
        raise InputError(f"the JSON schema has {len(text):,} characters; at most {_LONGEST:,} are read")
    plain: dict[str, Any] = json.loads(text)  # tuples are lists now, and nobody changes it meanwhile
    if _depth(plain) > _DEEPEST:
        raise InputError(f"the JSON schema is nested more than {_DEEPEST} deep; flatten it")
    parts = [*_used(plain)]
    for pointer, part in parts:
        for key, value in part.items():
            if not (key == "$id" and not pointer):
                _check_keyword(f"{pointer}/{_escaped(key)}", key, value)
        _check_properties(pointer, part)
        _check_digits(pointer, part)
    _check_bounds(parts)
    _check_multiples(parts)
    _check_endless(dict(parts))
    return {key: value for key, value in _rewritten(plain).items() if key not in ("$id", "$schema")}


def first_refused(
    schema: Mapping[str, Any], refusal: Callable[[Mapping[str, Any]], str | None]
) -> tuple[str, str] | None:
    """Return the JSON pointer of the innermost schema that is refused on its own, and why; None if none is.

    Args:
        schema: The whole schema.
        refusal: Returns why a schema is refused, or None.
    """
    definitions = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    found, place, part, tries = None, "", schema, _MOST_TRIES
    for _ in range(_DEEPEST):
        for pointer, inner in _inner(place, part):
            tries -= 1
            if not isinstance(inner, Mapping) or tries < 0:
                continue
            reason = refusal({**inner, **definitions})
            if reason is not None and "Pointer" not in reason:  # a reference to what is not part of the inner schema
                found, place, part = (pointer, reason), pointer, inner
                break
        else:
            break
    return found


def _used(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a schema and those within it that apply, with their JSON pointers; definitions only if they are used.

    Raises:
        InputError: When something is no schema, or a reference leads nowhere.
    """
    waiting: list[tuple[str, Any]] = [("", schema)]
    seen = set()
    while waiting:
        pointer, part = waiting.pop()
        if isinstance(part, bool) or pointer in seen:
            continue
        seen.add(pointer)
        if not isinstance(part, Mapping):
            remedy = "; write prefixItems for one schema for each item" if isinstance(part, list) else ""
            _refuse(pointer, f"{_shown(part)} is not a schema, which is an object or a boolean{remedy}")
        yield pointer, part
        inner = [(place, value) for place, value in _inner(pointer, part)]
        named = tuple(f"{pointer}/{name}/" for name in ("$defs", "definitions"))
        waiting += reversed([(place, value) for place, value in inner if not place.startswith(named)])
        if "$ref" in part:
            waiting.append(_referenced(f"{pointer}/$ref", part["$ref"], schema))


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


def _referenced(place: str, reference: object, root: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the pointer and the schema that a reference leads to."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        _refuse(place, f"{_shown(reference)} is not a reference within the schema; write #/$defs/NAME")
    part: Any = root
    pointer = unquote(reference[1:])
    for name in pointer.split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(part, Mapping) and name in part:
            part = part[name]
        elif isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        else:
            _refuse(place, f"{_shown(reference)} is not in the schema")
    return pointer, part


def _check_keyword(place: str, key: str, value: Any) -> None:
    """Refuse a keyword that is not known, or whose value is wrong."""
    if key == "x-guidance" or not (key in _KNOWN or key.startswith("x-")):
        _refuse(place, f"the keyword {key} is not supported; remove it")
    if key in _LISTS and not (isinstance(value, list) and value):
        _refuse(place, f"{_shown(value)} is not a list of schemas")
    if key in _MAPS and not isinstance(value, Mapping):
        _refuse(place, f"{_shown(value)} is not an object of schemas")
    if key in _COUNTS and not (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        _refuse(place, f"{_shown(value)} is not a number of 0, 1, 2, ...")
    if key in _NUMBERS and not _is_plain_number(value):
        _refuse(place, f"{_shown(value)} is not a number below 2^53")
    if key == "multipleOf" and value <= 0:
        _refuse(place, f"{value} is not above 0")
    if key == "type":
        names = value if isinstance(value, list) else [value]
        if not names or not all(isinstance(name, str) and name in _TYPES for name in names):
            _refuse(place, f"{_shown(value)} is not a type; the types are {', '.join(_TYPES)}")
    if key == "format" and not (isinstance(value, str) and value in _FORMATS):
        _refuse(place, f"the format {_shown(value)} is not supported; those that are: {', '.join(sorted(_FORMATS))}")
    if key == "required" and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        _refuse(place, f"{_shown(value)} is not a list of names")
    if key == "enum" and not (isinstance(value, list) and value):
        _refuse(place, f"{_shown(value)} is not a list of values")
    if key == "pattern":
        _check_pattern(place, value)
    if key == "patternProperties":
        for pattern in value:
            _check_pattern(f"{place}/{_escaped(pattern)}", pattern)
    if key in ("const", "enum", "required", "properties"):
        for name_or_value in _values([*value] if key == "properties" else value):
            _check_value(place, name_or_value)


def _check_properties(pointer: str, schema: Mapping[str, Any]) -> None:
    least = schema.get("minProperties", 0)
    if least > 1 and least > len({*schema.get("required", [])}):
        # Keys of additional and pattern properties may be repeated, so the grammar's count is no lower bound.
        _refuse(f"{pointer}/minProperties", "more than 1 is supported only if as many keys are required; list them")


def _check_digits(pointer: str, schema: Mapping[str, Any]) -> None:
    """Refuse bounds with more digits than llguidance compares exactly."""
    for key in (*_LOWER, *_UPPER):
        bound = schema.get(key, 0)
        if schema.get("type") != "integer" and len(Decimal(repr(bound)).normalize().as_tuple().digits) > _MOST_DIGITS:
            _refuse(f"{pointer}/{key}", f"{bound} has more than {_MOST_DIGITS} digits; round it")


def _check_bounds(parts: list[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse exclusive bounds that llguidance does not enforce.

    It allows 0 for `exclusiveMinimum` 0 if the other bound is below 1, and so for all whole numbers: the other bound,
    perhaps of another schema that is merged with it, lies between this bound and the next whole number.
    """
    for below, above, side in ((_LOWER, _UPPER, 1), (_UPPER, _LOWER, -1)):
        others = [Decimal(repr(part[key])) * side for _, part in parts for key in above if key in part]
        for pointer, part in parts:
            bound = part.get(below[1])
            if bound is None or bound != int(bound) or part.get("type") == "integer":
                continue
            near = [other for other in others if bound * side < other < bound * side + 1]
            if near:
                _refuse(
                    f"{pointer}/{below[1]}",
                    f"an open bound of {bound} is not supported together with the bound {near[0] * side} on the other "
                    f"side; write {below[0]} with a number between them",
                )


def _check_multiples(parts: list[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse multiples that need too many states: llguidance takes minutes for three of about 90 together.

    A number is a multiple of 10^n by its last digits; the rest of `multipleOf` counts.
    """
    product = 1
    for number in {part["multipleOf"]: pointer for pointer, part in parts if "multipleOf" in part}:
        rest = int(Decimal(repr(number)).scaleb(20).to_integral_value())
        for factor in (2, 5):
            while rest % factor == 0:
                rest //= factor
        product *= rest
    if product > _MOST_MULTIPLES:
        place = next(pointer for pointer, part in parts if "multipleOf" in part)
        _refuse(f"{place}/multipleOf", f"the values of all multipleOf are too complex together, {product:,} states")


def _check_endless(parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a schema that only an endless value satisfies, such as an object that must have itself as a property.

    Args:
        parts: The schemas that apply, by their pointers.
    """
    finite: set[str] = set()  # the parts that are known to have a finite value
    for _ in range(_MOST_TRIES):  # from the inside out, so that few rounds are needed
        before = len(finite)
        for pointer, part in [*parts.items()][::-1]:
            if pointer not in finite and _is_finite(pointer, part, lambda place: place not in parts or place in finite):
                finite.add(pointer)
        if len(finite) == before:
            break
    else:
        return
    if "" not in finite:
        place = next(pointer for pointer, part in parts.items() if pointer not in finite and "$ref" in part)
        _refuse(f"{place}/$ref", "only an endless value satisfies the schema, which refers to itself; make it optional")


def _is_finite(pointer: str, part: Mapping[str, Any], known: Callable[[str], bool]) -> bool:
    """Return whether what a schema needs has finite values. What is beyond doubt is enough: others are not refused.

    Args:
        pointer: Its JSON pointer.
        part: The schema.
        known: Whether the schema at a pointer has a finite value, or is none of those that apply.
    """
    needed = [f"{pointer}/allOf/{number}" for number in range(len(part.get("allOf", [])))]
    if "$ref" in part:
        needed.append(unquote(part["$ref"][1:]))
    if part.get("type") == "object":
        needed += [f"{pointer}/properties/{_escaped(name)}" for name in part.get("required", [])]
    if part.get("type") == "array" and part.get("minItems", 0):
        first = part.get("prefixItems", [])[: part["minItems"]]
        needed += [f"{pointer}/prefixItems/{number}" for number in range(len(first))]
        needed += [f"{pointer}/items"] if len(first) < part["minItems"] else []
    lists = [key for key in ("anyOf", "oneOf") if key in part]
    choices = [[f"{pointer}/{key}/{number}" for number in range(len(part[key]))] for key in lists]
    return all(map(known, needed)) and all(any(map(known, choice)) for choice in choices)


def _check_pattern(place: str, pattern: object) -> None:
    """Refuse what Rust's regular expressions read otherwise than ECMAScript's, which patterns of JSON schemas are."""
    if not isinstance(pattern, str):
        _refuse(place, f"{_shown(pattern)} is not a regular expression")
    for match in re.finditer(r"\\.|\[\^?\]?((?:\\.|[^\]\\])*)\]", pattern, re.DOTALL):
        inside = re.sub(r"\\.", "", match[1] or "", flags=re.DOTALL)
        for part in ("[", "&&", "--", "~~"):
            if part in inside:
                _refuse(
                    place, f"{part} in brackets at character {match.start() + 1} is not supported; escape it with \\"
                )


def _check_value(place: str, value: object) -> None:
    """Refuse a string or a number that cannot be written exactly."""
    if isinstance(value, str) and (found := _UNWRITABLE.search(value)):
        _refuse(place, f"the character U+{ord(found[0]):04X} cannot be generated; remove it")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        _refuse(place, f"{_shown(value)} is above 2^53, so it cannot be written exactly; write a string")


def _values(value: Any) -> Iterator[Any]:
    """Yield a JSON value and all within it, keys too."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, Mapping):
            waiting += [*part, *part.values()]
        elif isinstance(part, list):
            waiting += part


def _rewritten(schema: Any) -> Any:
    """Return a schema in which formats that llguidance does not check exactly have a pattern or a length, too."""
    if not isinstance(schema, Mapping):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _ONE:
            result[key] = _rewritten(value)
        elif key in _LISTS:
            result[key] = [_rewritten(inner) for inner in value] if isinstance(value, list) else value
        elif key in _MAPS and isinstance(value, Mapping):
            result[key] = {name: _rewritten(inner) for name, inner in value.items()}
        elif not (key == "format" and value in _PATTERNS):
            result[key] = value
    format = schema.get("format")
    if format in _PATTERNS:
        result["allOf"] = [*result.get("allOf", []), {"pattern": _PATTERNS[format]}]
    elif format == "hostname":
        result["allOf"] = [*result.get("allOf", []), {"maxLength": _LONGEST_HOSTNAME}]
    return result


def _depth(value: Any) -> int:
    """Return how deep a JSON value is nested, at most one more than is allowed."""
    level, depth = [value], 0
    while level and depth <= _DEEPEST:
        inner: list[Any] = []
        for part in level:
            inner += part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else ()
        level, depth = inner, depth + 1
    return depth


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {_shown(name)} occurs twice in one object")
    return result


def _is_plain_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and abs(value) < 2**53


def _refuse(place: str, reason: str) -> NoReturn:
    place = place if len(place) <= 200 else f"{place[:197]}..."
    raise InputError(f"JSON schema, at {place or 'its root'}: {reason}")


def _escaped(name: str) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")


def _shown(value: object) -> str:
    """Return a value as JSON, for a message."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."

"""JSON schemas for structured output: many that are written by hand, and any number of random ones."""

from __future__ import annotations

import random
from typing import Any

Schema = dict[str, Any]


def _object(required: list[str] | None = None, /, **properties: Any) -> Schema:
    """Return a schema of an object with these properties and no others; all are required by default."""
    names = [*properties] if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


_INTEGER, _NULL, _FLAG = {"type": "integer"}, {"type": "null"}, {"type": "boolean"}
_WORD = {"type": "string", "maxLength": 4}
_SHORT = {"type": "integer", "minimum": 0, "maximum": 9}

VALUES: list[Schema] = [
    _NULL,
    _FLAG,
    _SHORT,
    _WORD,
    {"type": "integer", "minimum": -3, "maximum": 3},
    {"type": "integer", "minimum": 10, "maximum": 10},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "minimum": 1.5, "maximum": 2.5},
    {"type": "integer", "minimum": -120, "maximum": -7},
    {"type": "integer", "minimum": 0, "maximum": 10**15},
    {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
    {"type": "number", "minimum": 0.5, "maximum": 0.75},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "minimum": -0.001, "maximum": 0.001},
    {"type": "number", "exclusiveMinimum": -2.5, "maximum": 1000},
    {"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 1},
    {"type": ["integer", "null"], "minimum": 5, "maximum": 99},
    {"type": ["string", "boolean"], "maxLength": 2},
    {"type": "string", "minLength": 3, "maxLength": 3},
    {"type": "string", "enum": ["red", "green", "blue"]},
    {"enum": [1, "1", True, None, [1], {"a": 1}]},
    {"enum": ["a", "b", "c"], "pattern": "^[bc]"},
    {"enum": [1, 5, 9], "minimum": 4},
    {"const": {"a": [1, "é", True, None, 1.5]}},
    {"const": "quote \" back \\ line \n tab \t slash / \u2028 😀"},
    {"const": 0.1},
    {"const": -1e-7},
    {"const": 2**53},
    {"const": []},
    {"const": ""},
    {"enum": ["日本語", "العربية", "e\u0301", "\U0010ffff"]},
    {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
    {"type": "string", "pattern": "^(foo|bar)+$", "maxLength": 9},
    {"type": "string", "pattern": "^[^a-z]{2}$"},
    {"type": "string", "pattern": r"^\d{3}-\w\s$"},
    {"type": "string", "pattern": "b", "maxLength": 3},
    {"type": "string", "pattern": "^[\"\\\\\\n/]{3}$"},
    {"type": "string", "pattern": "^é*$", "minLength": 2, "maxLength": 5},
    {"type": "string", "pattern": "^(a?){3}$"},
    *({"type": "string", "format": format} for format in ("date", "time", "date-time", "ipv4", "ipv6", "uuid")),
    *({"type": "string", "format": format, "maxLength": 20} for format in ("duration", "email", "hostname", "uri")),
    {"type": "string", "format": "date", "pattern": "^20"},
]  # fmt: skip

ARRAYS: list[Schema] = [
    {"type": "array", "items": _SHORT, "maxItems": 3},
    {"type": "array", "items": _SHORT, "minItems": 2, "maxItems": 2},
    {"type": "array", "items": _WORD, "minItems": 1, "maxItems": 4},
    {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 5},
    {"type": "array", "maxItems": 0},
    {"type": "array", "items": False},
    {"type": "array", "prefixItems": [_SHORT, _NULL], "items": False},
    {"type": "array", "prefixItems": [_SHORT, _FLAG], "items": False, "minItems": 2},
    {"type": "array", "prefixItems": [_SHORT], "items": _WORD, "minItems": 2, "maxItems": 3},
    {"type": "array", "prefixItems": [_SHORT, _NULL], "maxItems": 1},
    {"type": "array", "items": {"type": "array", "items": _FLAG, "maxItems": 2}, "maxItems": 2},
    {"type": "array", "items": {"anyOf": [_SHORT, _NULL]}, "minItems": 1, "maxItems": 3},
    {"type": "array", "items": _object(a=_SHORT), "maxItems": 2},
]

OBJECTS: list[Schema] = [
    _object(),
    _object(a=_SHORT),
    _object([], a=_SHORT, b=_FLAG),
    _object(["b"], a=_SHORT, b=_FLAG, c=_NULL),
    _object(name=_WORD, age={"type": "integer", "minimum": 0, "maximum": 130}, email={"anyOf": [_WORD, _NULL]}),
    _object(a=_object(b=_object(c=_object(d=_SHORT)))),
    {"type": "object", "properties": {"": _SHORT, "a/b~c": _NULL, 'q"\\': _FLAG}, "required": ["", "a/b~c", 'q"\\'],
     "additionalProperties": False},
    {"type": "object", "properties": {"é": _SHORT, "日本": _WORD, "😀": _NULL}, "required": ["日本"],
     "additionalProperties": False},
    {"type": "object", "properties": {"a": _SHORT}, "additionalProperties": _WORD, "maxProperties": 2,
     "required": ["a"]},
    {"type": "object", "additionalProperties": _SHORT, "maxProperties": 3},
    {"type": "object", "additionalProperties": _SHORT, "minProperties": 1, "maxProperties": 2},
    {"type": "object", "maxProperties": 0},
    {"type": "object", "required": ["x"], "additionalProperties": _SHORT, "maxProperties": 1},
    {"type": "object", "patternProperties": {"^a.?$": _SHORT, "^b.?$": _NULL}, "additionalProperties": False,
     "maxProperties": 2},
    {"type": "object", "patternProperties": {"^n[0-9]$": _SHORT},
     "properties": {"n1": {"type": "integer", "maximum": 3}}, "additionalProperties": False, "required": ["n1"],
     "maxProperties": 3},
    {"type": "object", "properties": {"a": False, "b": _SHORT}, "additionalProperties": False},
    {"type": "object", "properties": {"a": True}, "required": ["a"], "additionalProperties": False,
     "allOf": [{"properties": {"a": _WORD}}]},
    {"type": "object", "minProperties": 2, "properties": {"a": _SHORT, "b": _SHORT}, "required": ["a", "b"],
     "additionalProperties": False},
]  # fmt: skip

_TREE = _object(["v"], v=_SHORT, c={"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2})
_LIST = _object(["head"], head=_SHORT, tail={"anyOf": [{"$ref": "#/$defs/list"}, _NULL]})

COMBINED: list[Schema] = [
    {"anyOf": [_SHORT, _WORD, _NULL]},
    {"anyOf": [_object(kind={"const": "a"}, x=_SHORT), _object(kind={"const": "b"}, y=_WORD)]},
    {"oneOf": [_object(kind={"const": "a"}, x=_SHORT), _object(kind={"const": "b"}, y=_WORD)]},
    {"oneOf": [_SHORT, {"type": "string", "maxLength": 1}]},
    {"oneOf": [_SHORT, _NULL, _FLAG, {"type": "array", "items": _FLAG, "maxItems": 1}]},
    {"allOf": [_INTEGER, {"minimum": 3}, {"maximum": 9}]},
    {"anyOf": [_INTEGER, _NULL], "minimum": 3, "maximum": 8},
    {"allOf": [{"type": "object", "properties": {"a": _SHORT}, "required": ["a"]},
               {"properties": {"a": {"minimum": 3}}, "additionalProperties": False}]},
    {"type": "object", "properties": {"a": _SHORT, "b": _SHORT}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
     "additionalProperties": False},
    {"$ref": "#/$defs/n", "maximum": 7, "$defs": {"n": {"type": "integer", "minimum": 5}}},
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": _SHORT}},
    {"$ref": "#/$defs/a%20b", "$defs": {"a b": _SHORT}},
    {"$ref": "#/definitions/x", "definitions": {"x": {"$ref": "#/definitions/y"}, "y": _WORD}},
    _object(a=_SHORT, b={"$ref": "#/properties/a"}),
    {"$ref": "#/$defs/tree", "$defs": {"tree": _TREE}},
    {"$ref": "#/$defs/list", "$defs": {"list": _LIST}},
    {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False},
    {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/s", "title": "T",
     "description": "D", "default": 1, "examples": [1], "x-order": 3, **_SHORT},
    {"$defs": {"unused": {"not": {}}}, **_SHORT},
]  # fmt: skip

BY_HAND: list[Schema] = VALUES + ARRAYS + OBJECTS + COMBINED


def random_schema(generator: random.Random, depth: int = 0) -> Schema:
    """Return a random schema that something satisfies, and whose values are short."""
    kinds = ["integer", "number", "string", "enum", "const", "flag"]
    if depth < 3:
        kinds += ["array", "object", "object", "any", "ref"]
    kind = generator.choice(kinds)
    if kind in ("integer", "number"):
        return _random_number(generator, kind)
    if kind == "string":
        return _random_string(generator)
    if kind == "enum":
        return {"enum": [_random_value(generator) for _ in range(generator.randint(1, 5))]}
    if kind == "const":
        return {"const": _random_value(generator)}
    if kind == "flag":
        return {"type": generator.choice(["boolean", "null"])}
    if kind == "array":
        least = generator.randint(0, 2)
        items = random_schema(generator, depth + 1)
        return {"type": "array", "items": items, "minItems": least, "maxItems": least + generator.randint(0, 2)}
    if kind == "any":
        return {"anyOf": [random_schema(generator, depth + 1) for _ in range(generator.randint(1, 3))]}
    if kind == "ref" and depth == 0:
        inner = random_schema(generator, 1)
        return _object(a={"$ref": "#/$defs/inner"}, b={"$ref": "#/$defs/inner"}) | {"$defs": {"inner": inner}}
    names = generator.sample(["a", "b", "name", "é", "x y", "long_name", "0"], generator.randint(0, 4))
    required = [name for name in names if generator.random() < 0.6]
    return _object(required, **{name: random_schema(generator, depth + 1) for name in names})


def _random_number(generator: random.Random, kind: str) -> Schema:
    lower = round(generator.uniform(-1000, 1000), generator.randint(0, 3) if kind == "number" else 0)
    upper = round(lower + generator.choice([1, 2, 10, 500, 12345]), 3)
    if kind == "integer":
        lower, upper = int(lower), int(upper)
    names = generator.choice([("minimum", "maximum"), ("exclusiveMinimum", "maximum"), ("minimum", "exclusiveMaximum")])
    return {"type": kind, names[0]: lower, names[1]: upper}


def _random_string(generator: random.Random) -> Schema:
    if generator.random() < 0.4:
        parts = ["[a-f]", "[0-9]{2}", "(x|yz)", "é?", "-", "[^\\s]", "\\w{1,3}", "\\."]
        return {"type": "string", "pattern": f"^{''.join(generator.choices(parts, k=generator.randint(1, 4)))}$"}
    if generator.random() < 0.3:
        return {"type": "string", "format": generator.choice(["date", "time", "date-time", "ipv4", "uuid"])}
    least = generator.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + generator.randint(0, 5)}


def _random_value(generator: random.Random) -> Any:
    values = ["", "a", "b c", 'é"\\', "😀\n", 0, -5, 12345, 0.5, 1e-3, True, None, [], [1, "x"], {}, {"k": [None]}]
    return generator.choice(values)

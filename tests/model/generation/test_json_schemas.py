"""JSON schemas: every generated text satisfies its schema, and what cannot be enforced is refused with its place."""

from __future__ import annotations

import itertools
import json
import random
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
import regex
import torch
from jsonschema import Draft202012Validator, FormatChecker

from bpe import Tokenizer
from bpe.errors import InputError
from model import GrammarCompiler, ModelConfig, NativeModel, Transformer, complete, grammar_compiler
from support.json_schemas import BY_HAND, random_schema
from support.native_models import native
from support.references import BYTE_RANKS

WORDS = [b'{"', b'":', b'": ', b'",', b'", "', b'"}', b"\\n", b' "', b"true", b"false", b"null", b"00", b"12", b"-1"]
WORDS += [b"\n  ", b"e+", b"[]", b"{}", b'\\"', b"\\\\", b"\\u00", b"ab", "é".encode(), "😀".encode()[:2]]
END = 290
_generator = random.Random(22)
SCHEMAS = BY_HAND + [random_schema(_generator) for _ in range(200 - len(BY_HAND))]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    ranks = BYTE_RANKS | {word: 256 + place for place, word in enumerate(WORDS)}
    return Tokenizer("words", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={"<|end|>": END})


@pytest.fixture(scope="module")
def model() -> NativeModel:
    torch.manual_seed(7)
    config = ModelConfig(
        dim=16, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=END + 1, max_seq_len=20_000
    )
    return native(Transformer(config))


@pytest.fixture(scope="module")
def compiler(model: NativeModel, tokenizer: Tokenizer) -> GrammarCompiler:
    return grammar_compiler(model, tokenizer, [END])


FORMATS = FormatChecker(["date", "email", "ipv4", "ipv6", "uuid"])


@FORMATS.checks("date-time", ValueError)
def is_moment(text: object) -> bool:
    return not isinstance(text, str) or bool(datetime.fromisoformat(text.replace("Z", "+00:00")[:19] + "+00:00"))


@FORMATS.checks("time", ValueError)
def is_time(text: object) -> bool:
    return not isinstance(text, str) or bool(datetime.fromisoformat(f"2020-01-01T{text[:8]}+00:00"))


@FORMATS.checks("hostname")
def is_hostname(text: object) -> bool:
    if not isinstance(text, str):
        return True
    return len(text) < 254 and all(regex.fullmatch("(?!-)[A-Za-z0-9-]{1,63}(?<!-)", part) for part in text.split("."))


def satisfies(schema: dict[str, Any], text: str) -> bool:
    """Return whether a text is JSON that satisfies a schema, with numbers taken as decimal fractions."""
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    value = json.loads(text, parse_float=Decimal)
    return bool(Draft202012Validator(exact, format_checker=FORMATS).is_valid(value))


def check(schemas: list[dict[str, Any]], model: Any, tokenizer: Tokenizer, compiler: GrammarCompiler) -> None:
    for number, schema in enumerate(schemas):
        grammar = compiler.json_schema(schema)
        settings: Any = {"samples": 3, "temperature": 1.0, "top_p": None, "seed": number, "end_ids": [END]}
        for text in complete(model, tokenizer, ["Value: "], 5000, grammar=grammar, **settings):
            assert text.finish == "end", (schema, text.text)
            assert satisfies(schema, text.text), (schema, text.text)


def test_texts_of_random_weights_satisfy_each_of_200_schemas(
    model: NativeModel, tokenizer: Tokenizer, compiler: GrammarCompiler
) -> None:
    assert len(SCHEMAS) >= 200
    check(SCHEMAS, model, tokenizer, compiler)


def accepts(compiler: GrammarCompiler, schema: dict[str, Any], text: str) -> bool:
    """Return whether a grammar allows a text, byte by byte."""
    matcher = compiler.json_schema(schema).start()
    for byte in text.encode():
        if matcher.finished or not matcher.allowed()[byte]:
            return False
        matcher.accept(byte)
    return matcher.finished or bool(matcher.allowed()[END])


NUMBERS = ["0", "-0", "0.1", "0.05", "1", "-1", "1.5", "1.4999", "5", "4.999", "5.001", "-0.1", "-4.9", "-5.1", "10"]
NUMBERS += ["99.5", "0.0001", "-0.00001", "1.00000005", "1.0000002", "12", "0.5", "0.75", "3.49", "3.51", "-0.001"]
BOUNDS = [None, 0, 1, -1, 0.1, 0.5, 5, -5, 1.5, 10, 3.5, -0.1, 1.0000001, -1e-5]


@pytest.mark.slow
def test_bounds_of_numbers_are_exact_or_refused(compiler: GrammarCompiler) -> None:
    names = [("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum"), ("exclusiveMinimum", "maximum")]
    refused = 0
    for lower, upper, (least, most) in itertools.product(BOUNDS, BOUNDS, names):
        schema: dict[str, Any] = {"type": "number", least: lower, most: upper}
        schema = {key: value for key, value in schema.items() if value is not None}
        try:
            grammar = compiler.json_schema(schema)
        except InputError as error:
            assert "nothing satisfies" in str(error) or "an open bound" in str(error), schema
            refused += "an open bound" in str(error)
            continue
        for text in NUMBERS:
            matcher, allowed = grammar.start(), True
            for byte in text.encode():
                allowed = allowed and not matcher.finished and bool(matcher.allowed()[byte])
                if allowed:
                    matcher.accept(byte)
            allowed = allowed and (matcher.finished or bool(matcher.allowed()[END]))
            if text != "-0":  # need not be allowed where 0 is
                assert allowed == satisfies(schema, text), (schema, text)
            else:
                assert not allowed or satisfies(schema, text), (schema, text)
    assert refused < 40


ALLOWED: list[tuple[dict[str, Any], str, bool]] = [
    ({"type": "object", "properties": {"ab": {"type": "null"}}}, '{"a\\u0062": 1}', False),
    ({"type": "object", "properties": {"a\nb": {"type": "null"}}}, '{"a\\u000ab": 1}', False),
    ({"type": "object", "properties": {"a\nb": {"type": "null"}}}, '{"a\\nb": null}', True),
    ({"type": "object", "properties": {"a": {}, "b": {}}}, '{"b": 1, "a": 1}', False),
    ({"type": "string"}, '"\\ud800"', False),
    ({"type": "string"}, '"\\b\\f\\n\\r\\t\\"\\\\/"', True),
    ({"type": "string", "maxLength": 2}, '"😀\\n"', True),
    ({"type": "string", "maxLength": 1}, '"😀\\n"', False),
    ({"type": "string", "format": "date"}, '"2024-02-29"', True),
    ({"type": "string", "format": "date"}, '"2023-02-29"', False),
    ({"type": "string", "format": "date"}, '"1900-02-29"', False),
    ({"type": "string", "format": "date"}, '"2000-02-29"', True),
    ({"type": "string", "format": "date"}, '"2023-04-31"', False),
    ({"type": "string", "format": "date"}, '"0000-01-01"', False),
    ({"type": "string", "format": "date-time"}, '"2024-02-29T23:59:59.5+01:00"', True),
    ({"type": "string", "format": "hostname"}, f'"{".".join(["a" * 60] * 5)}"', False),
    ({"type": "string", "pattern": "ab"}, '"xaby"', True),
    ({"type": "array"}, "[1,\n  [null, true]]", True),
    ({"type": "array"}, "[1,  2]", False),
    ({"type": "array"}, " []", False),
    ({"type": "integer"}, "1.0", False),
    ({}, '{"a": [1e5, -0.5]}', True),
    ({"type": "integer"}, "123", True),
]


@pytest.mark.parametrize(("schema", "text", "allowed"), ALLOWED)
def test_a_schema_allows_a_text(compiler: GrammarCompiler, schema: dict[str, Any], text: str, allowed: bool) -> None:
    assert accepts(compiler, schema, text) == allowed


def test_any_object_is_json(model: NativeModel, tokenizer: Tokenizer, compiler: GrammarCompiler) -> None:
    bias = {ord('"'): 3.0, ord("}"): 3.0, ord("]"): 3.0}
    settings: Any = {"samples": 3, "temperature": 1.0, "top_p": None, "seed": 1, "end_ids": [END], "logit_bias": bias}
    for text in complete(model, tokenizer, ["x"], 5000, grammar=compiler.json_object(), **settings):
        assert text.finish == "end" and isinstance(json.loads(text.text), dict)


REFUSED: list[tuple[Any, str]] = [
    ({"not": {}}, "at /not: the keyword not is not supported; remove it"),
    ({"properties": {"a/b": {"items": {"contains": {}}}}}, "at /properties/a~1b/items/contains: the keyword contains"),
    ({"anyOf": [{}, {"requierd": ["a"]}]}, "at /anyOf/1/requierd: the keyword requierd"),
    ({"x-guidance": {"lenient": True}}, "at /x-guidance: the keyword x-guidance"),
    ({"uniqueItems": True}, "at /uniqueItems: "),
    ({"if": {}}, "at /if: "),
    ({"properties": {"a": {"$id": "b"}}}, "at /properties/a/$id: "),
    ({"type": "strin"}, 'at /type: "strin" is not a type; the types are array, boolean'),
    ({"type": []}, "at /type: [] is not a type"),
    ({"type": "string", "format": "color"}, 'at /format: the format "color" is not supported; those that are: date,'),
    ({"minLength": -1}, "at /minLength: -1 is not a number"),
    ({"maxItems": True}, "at /maxItems: true is not a number"),
    ({"minimum": "1"}, 'at /minimum: "1" is not a number'),
    ({"maximum": 1e300}, "at /maximum: 1e+300 is not a number below 2^53"),
    ({"maximum": 12.365400999999999}, "at /maximum: 12.365400999999999 has more than 15 digits; round it"),
    ({"multipleOf": 0}, "at /multipleOf: 0 is not above 0"),
    ({"required": "a"}, 'at /required: "a" is not a list of names'),
    ({"enum": []}, "at /enum: [] is not a list of values"),
    ({"enum": [1, {"a": 2**60}]}, "at /enum: 1152921504606846976 is above 2^53"),
    ({"const": "a\x00"}, "at /const: the character U+0000 cannot be generated"),
    ({"properties": {"\x7f\x01": {}}}, "at /properties: the character U+0001"),
    ({"anyOf": {}}, "at /anyOf: {} is not a list of schemas"),
    ({"properties": []}, "at /properties: [] is not an object of schemas"),
    ({"items": [{}]}, "at /items: [{}] is not a schema, which is an object or a boolean; write prefixItems"),
    ({"pattern": "a("}, "at its root: unclosed group at character 2"),
    ({"properties": {"a": {"pattern": "(?=b)"}}}, "at /properties/a: look-around"),
    ({"pattern": "[a&&b]"}, "at /pattern: && in brackets at character 1 is not supported"),
    ({"pattern": "x[[:alpha:]]"}, "at /pattern: [ in brackets at character 2"),
    ({"patternProperties": {"[[]": {}}}, "at /patternProperties/[[]: [ in brackets"),
    ({"type": "object", "minProperties": 2}, "at /minProperties: more than 1 is supported only if"),
    ({"type": "object", "maxProperties": 1, "properties": {"a": {}, "b": {}}}, "minProperties and maxProperties are"),
    ({"patternProperties": {"a": {}, "b": {"type": "null"}}}, "at /patternProperties: a key may match several"),
    ({"properties": {"a": {"oneOf": [{"type": "integer"}, {"minimum": 3}]}}}, "at /properties/a/oneOf: .*write anyOf"),
    ({"exclusiveMinimum": 0, "maximum": 0.5}, "at /exclusiveMinimum: an open bound of 0"),
    ({"allOf": [{"exclusiveMaximum": 1}, {"minimum": 0.5}]}, "at /allOf/0/exclusiveMaximum: an open bound of 1"),
    ({"type": "integer", "minimum": 5, "maximum": 3}, "nothing satisfies it"),
    ({"enum": ["a"], "format": "date"}, "nothing satisfies it (no string has its pattern, format"),
    ({"type": "string", "pattern": "a{1,5}b", "allOf": [{"pattern": "^[^b]*$"}]}, "nothing satisfies it"),
    ({"$ref": "http://example.com/schema"}, 'at /$ref: "http://example.com/schema" is not a reference within'),
    ({"$ref": "other.json#/a"}, "at /$ref: "),
    ({"$ref": "#/$defs/a"}, 'at /$ref: "#/$defs/a" is not in the schema'),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "endless"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"not": {}}}}, "at /$defs/a/not: "),
    (
        {"properties": {"a": {"$ref": "#"}}, "required": ["a"], "type": "object"},
        "at /properties/a/$ref: only an endless",
    ),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/a"}}}},
        "endless",
    ),
    (False, "the JSON schema is false"),
    ([], "the JSON schema is []; it must be an object"),
    (3, "the JSON schema is 3"),
    ("{", "the JSON schema is not JSON: .*line 1 column 2"),
    (b"\xff", "the JSON schema is not JSON"),
    ('{"type": "null", "type": "string"}', 'the key "type" occurs twice'),
    ("[" * 100_000, "nested too deeply"),
    ({"const": float("nan")}, "the JSON schema is not JSON"),
    ({"const": {1, 2}}, "the JSON schema is not JSON"),
    ({"const": "a" * 1_000_001}, "at most 1,000,000 are read"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_what_cannot_be_enforced_is_refused_there(compiler: GrammarCompiler, schema: Any, message: str) -> None:
    with pytest.raises(InputError, match=message if ".*" in message else regex.escape(message)) as error:
        compiler.json_schema(schema)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def exponential(count: int) -> dict[str, Any]:
    both = [{"anyOf": [{"$ref": "#/$defs/NEXT"}, {"$ref": "#/$defs/NEXT"}]}] * 2
    definitions = {
        f"a{number}": json.loads(json.dumps({"allOf": both}).replace("NEXT", f"a{number + 1}"))
        for number in range(count)
    }
    return {"$ref": "#/$defs/a0", "$defs": {**definitions, f"a{count}": {"type": "string"}}}


HOSTILE = {
    "deep": nested(400),
    "exponential": exponential(30),
    "many alternatives of several": {
        "allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {}}} for j in range(10)]} for i in range(12)]
    },
    "100,000 values": {"enum": [f"v{number}" for number in range(90_000)]},
    "20,000 properties": {"properties": {f"p{number}": {"type": "string"} for number in range(20_000)}},
    "a large multiple": {"type": "integer", "multipleOf": 999_999_937},
    "several multiples": {"allOf": [{"type": "integer", "multipleOf": prime} for prime in (97, 89, 83)]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_schema_that_explodes_is_refused(compiler: GrammarCompiler, name: str) -> None:
    with pytest.raises(InputError, match="nested|too complex|too large"):
        compiler.json_schema(HOSTILE[name])

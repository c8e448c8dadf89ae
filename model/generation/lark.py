"""Grammars in Lark's syntax: what of llguidance's syntax is refused, because generation would not obey it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from bpe.errors import InputError
from model.generation.json_schemas import prepared, schema_of

_TOKEN = re.compile(
    r"""
    (?P<comment> //[^\n]* | \#[^\n]* )
  | (?P<string> "(?:[^"\\\n]|\\.)*"i? )
  | (?P<regex> /(?:[^/\\\n]|\\.)+/[imslux]* )
  | (?P<json> %(?:json|regex|llguidance)\b )
  | (?P<special> <[^<>\s]*>? )
  | (?P<attribute> \b(?:temperature|max_tokens|stop|stop_capture)\s*= )
  | (?P<name> [\w.~-]+ )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)

_SPACE = re.compile(r"\s*")


def check_lark(text: str) -> None:
    """Refuse a grammar that names special tokens, sets what generation does not obey, or has a wrong JSON schema.

    Raises:
        InputError: When there is such a part; the message names its line.
    """
    for kind, part, line in _parts(text):
        if kind == "special":
            raise InputError(
                f"grammar, line {line}: {part} names a special token, which a text cannot contain; remove it"
            )
        if kind == "attribute":
            raise InputError(f"grammar, line {line}: {part} is not supported; remove it")
        if kind == "llguidance" and part:
            raise InputError(f"grammar, line {line}: the option {next(iter(part))} is not supported; remove it")
        if kind == "json":
            try:
                prepared(schema_of(part))
            except InputError as error:
                raise InputError(f"grammar, line {line}: {error}") from None


def _parts(text: str) -> Iterator[tuple[str, Any, int]]:
    """Yield the parts of a grammar that matter here: their kind, their text or JSON value, and their line."""
    place = 0
    decoder = json.JSONDecoder()
    while place < len(text):
        match = _TOKEN.match(text, place)
        assert match is not None and match.lastgroup is not None
        place = match.end()
        if match.lastgroup not in ("json", "special", "attribute"):
            continue
        line = text.count("\n", 0, match.start()) + 1
        if match.lastgroup == "json":
            try:
                value, place = decoder.raw_decode(text, _SPACE.match(text, place).end())  # type: ignore[union-attr]
            except (ValueError, RecursionError):
                raise InputError(f"grammar, line {line}: {match[0]} needs a JSON object behind it") from None
            yield match[0][1:], value, line
        else:
            yield match.lastgroup, match[0].rstrip("= "), line

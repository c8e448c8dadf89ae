"""JSON lines: a document in each, under a key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import InputError
from .optional import first_module
from .parts import Cleaner, Options, Part, State, Text, as_bytes
from .streams import Stream


def json_parts(stream: Stream, options: Options, cleaner: Cleaner, state: State | None) -> Iterator[Part]:
    """The documents of the lines, as many as there are in a block."""
    number = 0
    if state is not None:
        stream.skip(state["offset"])
        number = state["line"]
    loads = first_module("orjson", "json").loads
    rest = b""
    end = False
    while not end:
        size = max(options.block, len(rest))
        block = stream.read(size)
        end = len(block) < size
        lines = (rest + block).split(b"\n")
        rest = b"" if end else lines.pop()
        texts: list[Text] = []
        problem = None
        for line in lines:
            number += 1
            if not line or line.isspace():
                continue
            try:
                texts.append(_text_of(line, loads, options.field, cleaner, number))
            except InputError as error:
                problem = error
                break
        if texts:
            after = {"offset": stream.offset - len(rest), "line": number, **cleaner.state}
            yield Part(texts, len(texts), sum(map(len, texts)), None if end else after, stream.read_so_far)
        if problem:
            raise problem


def _text_of(line: bytes, loads: Callable[[bytes], Any], field: str, cleaner: Cleaner, number: int) -> Text:
    try:
        record = loads(line)
    except (ValueError, RecursionError):
        try:
            # What orjson refuses, such as lone surrogates; and then what is not UTF-8.
            try:
                record = json.loads(line)
            except UnicodeDecodeError:
                record = json.loads(bytes(cleaner.clean(line, place=f"line {number}")))
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{cleaner.name}: line {number} is not JSON ({error})") from error
    text = record.get(field) if isinstance(record, dict) else None
    if text is None and "." in field:
        text = record
        for key in field.split("."):
            text = text.get(key) if isinstance(text, dict) else None
    if not isinstance(text, str):
        raise InputError(
            f"{cleaner.name}: line {number} has no text under {field!r}; name the key with field / --field"
        )
    return as_bytes(text)

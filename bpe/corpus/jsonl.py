"""JSON lines: a document in each, under a key; or records of any kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bpe import _core
from bpe.corpus.parts import Cleaner, Options, Part, State, Text, as_bytes
from bpe.corpus.streams import Stream
from bpe.errors import InputError

# Lines that are looked at at once, in bytes. What is made of them on the way stays in the processor's cache: twice as
# many take half as long again.
_BLOCK = 1 << 18


def json_parts(stream: Stream, options: Options, cleaner: Cleaner, state: State | None) -> Iterator[Part]:
    """The documents of the lines, as many as there are in a block."""
    number = 0  # of lines done with
    if state is not None:
        stream.skip(state["offset"])
        number = state["line"]
    rest = b""
    end = False
    while not end:
        size = max(min(options.block, _BLOCK), len(rest))
        block = stream.read(size)
        end = len(block) < size
        block = rest + block
        whole = len(block) if end else block.rfind(b"\n") + 1
        lines, rest = memoryview(block)[:whole], block[whole:]
        found = _core.json_texts(lines, options.field)
        texts: list[Text] = [text for text in found if text is not None]
        problem = None
        if len(texts) < len(found):
            # Lines that are empty, or wrong, or that only a full parser understands.
            texts.clear()
            for row, (line, text) in enumerate(zip(bytes(lines).split(b"\n"), found, strict=False), number + 1):
                if text is not None:
                    texts.append(text)
                elif line and not line.isspace():
                    try:
                        texts.append(_text_of(line, options.field, cleaner, row))
                    except InputError as error:
                        problem = error
                        break
        number += len(found)
        if texts:
            after = {"offset": stream.offset - len(rest), "line": number, **cleaner.state}
            yield Part(texts, len(texts), sum(map(len, texts)), None if end else after, stream.read_so_far)
        if problem:
            raise problem


def _text_of(line: bytes, field: str, cleaner: Cleaner, number: int) -> Text:
    try:
        try:
            record = json.loads(line)
        except UnicodeDecodeError:
            record = json.loads(bytes(cleaner.clean(line, place=f"line {number}")))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
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


def json_records(name: str, content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects in the lines of a file, each with the number of its line; lines of white space are none.

    Raises:
        InputError: a line is no JSON object; the file and the line are named.
    """
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}: line {number} is not JSON ({error})") from error
        if not isinstance(record, dict):
            raise InputError(f"{name}: line {number} is not a JSON object")
        yield number, record

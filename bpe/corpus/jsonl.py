"""JSON Lines: a document in each line, under a key; or a record of any kind in each line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from bpe import _core
from bpe.corpus.feed import Cleaner, FeedState, ReadOptions, TextBytes, TextPart, as_bytes
from bpe.corpus.streams import ByteStream
from bpe.errors import InputError

# Bytes of lines that are parsed at once. At this size the intermediate results stay in the processor's cache; with
# twice as many bytes, parsing takes half as long again.
_BLOCK = 1 << 18
_MISSING = object()  # the value of a key that is not in a record


def json_parts(
    stream: ByteStream, options: ReadOptions, cleaner: Cleaner, state: FeedState | None
) -> Iterator[TextPart]:
    """Yield the documents of a JSON Lines file, a block of lines at a time. A line whose text is null is no document.

    Raises:
        InputError: When a line is not JSON, or has no text under the field. The documents before it come first.
    """
    lines_done = 0
    if state is not None:
        stream.skip(state["offset"])
        lines_done = state["line"]
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
        texts: list[TextBytes] = [text for text in found if text is not None]
        problem = None
        if len(texts) < len(found):
            texts, problem = _parsed_one_by_one(bytes(lines), found, lines_done + 1, options.field, cleaner)
        lines_done += len(found)
        if texts:
            after = {"offset": stream.offset - len(rest), "line": lines_done, **cleaner.state}
            yield TextPart(texts, len(texts), sum(map(len, texts)), None if end else after, stream.read_so_far)
        if problem:
            raise problem


def _parsed_one_by_one(
    lines: bytes, found: Sequence[TextBytes | None], first: int, field: str, cleaner: Cleaner
) -> tuple[list[TextBytes], InputError | None]:
    """Parse the lines whose text the fast parser did not find: blank ones, those whose text is null, wrong ones, and
    unusual but valid JSON.

    Returns:
        The texts up to the first wrong line, and the error for that line, or None.
    """
    texts: list[TextBytes] = []
    for number, (line, text) in enumerate(zip(lines.split(b"\n"), found, strict=False), first):
        if text is not None:
            texts.append(text)
        elif line and not line.isspace():
            try:
                parsed = _text_of(line, field, cleaner, number)
            except InputError as error:
                return texts, error
            if parsed is not None:
                texts.append(parsed)
    return texts, None


def _text_of(line: bytes, field: str, cleaner: Cleaner, number: int) -> TextBytes | None:
    """Return the text of a line; None if it is null."""
    try:
        try:
            record = json.loads(line)
        except UnicodeDecodeError:
            record = json.loads(bytes(cleaner.clean(line, place=f"line {number}")))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{cleaner.name}: line {number} is not JSON ({error})") from error
    text = record
    for key in [field] if isinstance(record, dict) and field in record else field.split("."):
        if text is None:
            break  # within a null object, as in a Parquet file
        text = text.get(key, _MISSING) if isinstance(text, dict) else _MISSING
    if text is None and record is not None:
        return None
    if not isinstance(text, str):
        raise InputError(
            f"{cleaner.name}: line {number} has no text under {field!r}; set field (--field) to the key of the text"
        )
    return as_bytes(text)


class NotJsonError(InputError):
    """A line of a file is not JSON, so the file may be of another kind."""


def json_records(name: str, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects in the lines of a file, each with its place, such as "line 3". Blank lines are skipped.

    A file that holds a JSON list yields the items of the list, with places such as "item 3".

    Args:
        name: The name of the file, for messages.
        content: The bytes of the file.

    Raises:
        NotJsonError: When a line is not JSON; the message names the file and the line.
        InputError: When a line is not a JSON object.
    """
    if (items := _json_list(content)) is not None:
        for number, item in enumerate(items, 1):
            if not isinstance(item, dict):
                raise InputError(f"{name}: item {number} is not a JSON object")
            yield f"item {number}", item
        return
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise NotJsonError(f"{name}: line {number} is not JSON ({error})") from error
        if not isinstance(record, dict):
            raise InputError(f"{name}: line {number} is not a JSON object")
        yield f"line {number}", record


def _json_list(content: bytes) -> list[Any] | None:
    """Return the list that a file holds, or None if it holds lines. A list of objects begins with an object."""
    if not content[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return None
    try:
        items = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) and items and isinstance(items[0], dict) else None

"""Token ids as decimal text, as JSON, and as binary integers of 16 or 32 bits."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

import click

# Name of the format -> NumPy's dtype, for binary formats.
ID_FORMATS = {"text": None, "json": None, "u16": "<u2", "u32": "<u4"}

ids_format_option = click.option(
    "--format",
    "ids_format",
    type=click.Choice(list(ID_FORMATS)),
    default="text",
    help="Format of the ids: decimal numbers, JSON lists, or little-endian integers of 16 or 32 bits.",
)


_BRACKETS = {"text": (b"", b" ", b"\n"), "json": (b"[", b", ", b"]\n")}
"""What begins a text's ids, what stands between two, and what ends them."""


def write_ids(pieces: Iterable[bytes], ids_format: str) -> None:
    """Write the ids of a text to stdout in one of `ID_FORMATS`.

    Args:
        pieces: The ids in pieces, as little-endian integers of 32 bits.
        ids_format: A key of `ID_FORMATS`.
    """
    from bpe import _core

    stdout = sys.stdout.buffer
    if ids_format == "u16":
        import numpy as np

        for ids in pieces:
            stdout.write(np.frombuffer(ids, "<u4").astype("<u2").data)
        return
    if ids_format == "u32":
        for ids in pieces:
            stdout.write(ids)
        return
    begin, between, end = _BRACKETS[ids_format]
    stdout.write(begin)
    is_first = True
    for ids in pieces:
        if ids:
            stdout.write((b"" if is_first else between) + _core.decimals(ids, between))
            is_first = False
    stdout.write(end)
    stdout.flush()


def read_ids(content: bytes, ids_format: str) -> Any:
    """Return the ids in a file's content, in one of `ID_FORMATS`.

    Raises:
        ValueError: When the content is not in that format.
    """
    if ids_format == "text":
        return _read_text(content)
    if ids_format == "json":
        return _read_json(content)
    import numpy as np

    dtype = np.dtype(ID_FORMATS[ids_format])
    if len(content) % dtype.itemsize:
        raise ValueError(f"{len(content):,} bytes do not make a whole number of ids of {8 * dtype.itemsize} bits")
    return np.frombuffer(content, dtype=dtype).astype(np.uint32)


def _read_text(content: bytes) -> list[int]:
    try:
        return [int(word) for word in content.split()]
    except ValueError as error:
        words = [(number, word) for number, line in enumerate(content.splitlines(), 1) for word in line.split()]
        number, word = next(((number, word) for number, word in words if not word.isdigit()), words[0])
        shown = word[:40].decode(errors="backslashreplace")
        remedy = "write ids with spaces between them, or give --format for JSON or binary input"
        if re.fullmatch(rb"[\d\s,\[\]]+", content):
            remedy = "give --format json for lists, or leave out brackets and commas"
        raise ValueError(f"line {number}: {shown!r} is not an id; {remedy}") from error


def _read_json(content: bytes) -> list[int]:
    ids = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = json.loads(line) if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON ({error}); expected a list of ids on each line") from error
        if not isinstance(row, list):
            raise ValueError(f"line {number}: expected a JSON list of ids on each line")
        for id in row:
            if type(id) is not int:  # true and false are numbers to Python
                raise ValueError(f"line {number}: {json.dumps(id)[:40]} is not an id; expected a list of whole numbers")
        ids += row
    return ids

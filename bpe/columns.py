"""How many columns of a terminal a text takes, and texts cut to a number of columns."""

from __future__ import annotations

import os
from typing import Any

_DEFAULT_COLUMNS = 80
_DOTS = "…"


def columns_of(text: str) -> int:
    """Return how many columns a text takes: two for a wide character, none for a combining one.

    >>> columns_of("naïve"), columns_of("漢字"), columns_of("e\\u0301")
    (5, 4, 1)
    """
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth, wcwidth  # takes longer to import than the rest of a short command

    whole: int = wcswidth(text)
    return whole if whole >= 0 else sum(max(0, wcwidth(character)) for character in text)


def clipped(text: str, columns: int) -> str:
    """Return the text, cut at the end to a number of columns; an ellipsis takes the last of them.

    >>> clipped("held-out", 6), clipped("漢字漢字", 6)
    ('held-…', '漢字…')
    """
    return text if columns_of(text) <= columns else _beginning(text, columns - 1) + _DOTS[: max(0, columns)]


def clipped_in_the_middle(text: str, columns: int) -> str:
    """Return the text, cut in the middle to a number of columns; an ellipsis replaces what is cut.

    >>> clipped_in_the_middle("texts/of/a/long/path/prose.txt", 16)
    'texts/o…rose.txt'
    """
    if columns_of(text) <= columns:
        return text
    if columns < 3:
        return clipped(text, columns)
    begin = _beginning(text, (columns - 1) // 2)
    return begin + _DOTS + _end(text, columns - 1 - columns_of(begin))


def padded(text: str, columns: int, *, left: bool) -> str:
    """Return the text with spaces up to a number of columns, aligned to the left or to the right."""
    spaces = " " * (columns - columns_of(text))
    return text + spaces if left else spaces + text


def wrapped(text: str, columns: int) -> list[str]:
    """Return the text as lines of at most this many columns, broken at spaces, or within a word that is longer.

    >>> wrapped("dim 512, 8 layers, 8 heads", 10)
    ['dim 512, 8', 'layers, 8', 'heads']
    """
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if columns_of(longer) <= columns:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        while columns_of(word) > columns and (begin := _beginning(word, columns)):
            lines[-1:] = [begin, ""]
            word = word[len(begin) :]
        lines[-1] = word
    return lines


def terminal_columns(stream: Any) -> int:
    """Return the width of the terminal that a stream writes to, measured now.

    Without a terminal, or when a terminal does not know its width, COLUMNS decides, and 80 without it.
    """
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):  # a closed stream, one without a descriptor, or no terminal
        columns = 0
    said = os.environ.get("COLUMNS", "")
    return columns or (int(said) if said.isdecimal() and int(said) else _DEFAULT_COLUMNS)


def _beginning(text: str, columns: int) -> str:
    """Return the longest beginning that fits; a character stays together with the combining ones behind it."""
    size = min(len(text), max(0, columns))  # no wide character takes less than a column
    while size and columns_of(text[:size]) > columns:
        size -= 1
    while size < len(text) and size and columns_of(text[: size + 1]) <= columns:
        size += 1
    return text[:size]


def _end(text: str, columns: int) -> str:
    """Return the longest end that fits and does not begin with a combining character."""
    start = len(text)
    while start and columns_of(text[start - 1 :]) <= columns:
        start -= 1
    while start < len(text) and not columns_of(text[start]):
        start += 1
    return text[start:]

"""Text as the encoder takes it, bytes of UTF-8, and numbers in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


def without_surrogates(text: str) -> str:
    """Return the text with surrogate pairs joined and lone surrogates replaced by U+FFFD, as tiktoken does.

    >>> without_surrogates("\\ud83d\\ude00 \\ud83d")
    '😀 \ufffd'
    """
    if type(text) is str and text.isascii():  # not a subclass, which may override the methods that read it
        return text
    return str.encode(text, "utf-16", "surrogatepass").decode("utf-16", "replace")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 token" or "2,048 tokens"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def as_bytes(text: str | Buffer) -> bytes:
    """Return the UTF-8 of a str, encoded as by `without_surrogates`, or a copy of a buffer of bytes.

    Raises:
        TypeError: When `text` is neither.
    """
    if isinstance(text, str):
        return without_surrogates(text).encode()
    try:
        view = memoryview(text)
    except TypeError:
        view = None
    if view is None or view.ndim != 1 or view.format not in ("B", "b", "c"):  # numbers are no text
        raise TypeError(f"expected str or bytes, not {type(text).__name__}")
    return bytes(view)

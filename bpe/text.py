"""Text as the encoder takes it: bytes of UTF-8."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


def as_bytes(text: str | Buffer) -> bytes:
    """UTF-8 of a str, surrogates treated as in `Tokenizer.encode_ordinary`, or the memory of any buffer."""
    if isinstance(text, str):
        return str.encode(text, "utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    try:
        return bytes(memoryview(text))
    except TypeError:
        raise TypeError(f"expected str or bytes, not {type(text).__name__}") from None

"""How to cut a text to a number of tokens."""

from __future__ import annotations

from typing import Literal

from bpe.text import as_bytes
from bpe.vocabulary import Vocabulary

CONTINUATION = bytes(range(0x80, 0xC0))
"""The bytes of UTF-8 that continue a character."""


def truncated(vocabulary: Vocabulary, text: str, max_tokens: int, side: Literal["left", "right"]) -> str:
    """Return the beginning or the end of a text that has at most `max_tokens` ids; see `Tokenizer.truncate`."""
    count, added = vocabulary.encoder.count, vocabulary.always_added
    if count(text, added) <= max_tokens:
        return text
    content = as_bytes(text)
    _, places = vocabulary.encoder.encode_with_places(content, added, False)
    for keep in range(max_tokens, 0, -1):
        if side == "right":
            kept = content[: places[keep - 1][1]].decode("utf-8", "ignore")
        else:
            kept = content[places[-keep][0] :].lstrip(CONTINUATION).decode("utf-8")
        if count(kept, added) <= max_tokens:
            return kept
    return ""

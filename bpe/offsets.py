"""Where the tokens of a text begin and end in it, and how to cut a text to a number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Literal

from bpe.text import as_bytes
from bpe.vocabulary import Vocabulary

CONTINUATION = bytes(range(0x80, 0xC0))
"""The bytes of UTF-8 that continue a character."""


def token_spans(
    vocabulary: Vocabulary, ids: Sequence[int], text: str, unit: Literal["characters", "bytes"]
) -> list[tuple[int, int]]:
    """Return the begin and end of each token in the text that was encoded; see `Tokenizer.encode_with_offsets`."""
    content = as_bytes(text)
    spans = list(byte_spans(vocabulary, ids, content))
    if unit == "characters":
        begun = list(accumulate(int(byte not in CONTINUATION) for byte in content))  # characters, up to each byte
        begun = [0, *begun, (begun or [0])[-1] + 1]  # characters that have begun before each byte
        spans = [(begun[begin + 1] - 1, begun[end] if begin < end else begun[begin + 1] - 1) for begin, end in spans]
    return spans


def truncated(
    vocabulary: Vocabulary,
    encode: Callable[[str], list[int]],
    text: str,
    max_tokens: int,
    side: Literal["left", "right"],
) -> str:
    """Return the beginning or the end of a text that has at most `max_tokens` ids; see `Tokenizer.truncate`."""
    ids = encode(text)
    if len(ids) <= max_tokens:
        return text
    content = as_bytes(text)
    places = _places_of_known_bytes(vocabulary, content)
    has_spans = vocabulary.always_added is not None or vocabulary.library is not None
    spans = [] if not has_spans else list(byte_spans(vocabulary, ids, content))
    decode_bytes = vocabulary.encoder.decode_bytes
    for keep in range(max_tokens, 0, -1):
        if side == "right":
            end = spans[keep - 1][1] if spans else places[len(decode_bytes(ids[:keep])) - 1] + 1
            kept = content[:end].decode("utf-8", "ignore")
        else:
            first = spans[-keep][0] if spans else places[-len(decode_bytes(ids[-keep:]))]
            kept = content[first:].lstrip(CONTINUATION).decode("utf-8")
        if len(encode(kept)) <= max_tokens:
            return kept
    return ""


def byte_spans(vocabulary: Vocabulary, ids: Sequence[int], content: bytes) -> Iterator[tuple[int, int]]:
    """The begin and end of each token in UTF-8. White space that an added token takes belongs to it."""
    if vocabulary.library is not None:
        yield from vocabulary.library.spans(content)
        return
    matches = [] if vocabulary.always_added is None else vocabulary.always_added.all_in(content)
    rest = iter(ids)
    done = 0
    for begin, end, added in [*matches, (len(content), len(content), None)]:
        places = _places_of_known_bytes(vocabulary, content[done:begin])
        at = 0
        while at < len(places):
            size = len(vocabulary.encoder.bytes_of(next(rest)))
            yield done + places[at], done + places[at + size - 1] + 1
            at += size
        if added is not None:
            next(rest)
            yield begin, end
        done = end


def _places_of_known_bytes(vocabulary: Vocabulary, content: bytes) -> Sequence[int]:
    """The places in a text of the bytes that its ids decode to."""
    if not vocabulary.unknown_bytes:
        return range(len(content))
    return [place for place, byte in enumerate(content) if byte not in vocabulary.unknown_bytes]

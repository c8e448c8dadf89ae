"""TODO: byte_level."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bpe.errors import InputError
from bpe.patterns import Pattern

if TYPE_CHECKING:
    from bpe.tokenizer import Tokenizer


@lru_cache(maxsize=1)
def byte_characters() -> str:
    """The character that stands for each byte in this format, as GPT-2 began it.

    Bytes that print as one visible Latin-1 character stand for themselves; the other 68 follow from U+0100 on.

    >>> byte_characters()[ord("A")], byte_characters()[ord(" ")]
    ('A', 'Ġ')
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte) if byte in visible else chr(next(others)) for byte in range(256))


def from_vocabulary(
    name: str, pattern: Pattern, vocabulary: Mapping[str, Any], special_tokens: Mapping[str, int], merges_only: bool
) -> Tokenizer:
    """A tokenizer from tokens whose bytes are written as `byte_characters`, and their ids.

    Raises:
        ValueError: a token that is not written so, an id that is none or stands twice, or no token.
    """
    from bpe.tokenizer import Tokenizer

    # Characters below U+0100 that stand for no byte, such as the space, become one that is not in Latin-1 either.
    to_bytes = dict.fromkeys(range(0x100), 0xFFFF)
    to_bytes |= {ord(character): byte for byte, character in enumerate(byte_characters())}
    if not vocabulary:
        raise InputError("the vocabulary is empty")
    values = vocabulary.values()
    if {*map(type, values)} != {int} or not 0 <= min(values) <= max(values) < 2**32:
        text, id = next((text, id) for text, id in vocabulary.items() if not _is_id(id))
        raise InputError(f"the token {text!r} of the vocabulary has the id {id!r}, which is no id")
    try:
        tokens = "".join(vocabulary).translate(to_bytes).encode("latin-1")  # a byte for each character
    except UnicodeEncodeError as error:
        ends = itertools.accumulate(map(len, vocabulary))
        text = next(text for text, end in zip(vocabulary, ends, strict=True) if end > error.start)
        raise InputError(
            f"the token {text!r} has a character that stands for no byte; not a byte-level vocabulary"
        ) from None
    offsets = array("Q", itertools.accumulate(map(len, vocabulary), initial=0))
    ids = array("I", values)
    return Tokenizer._from_arrays(
        name, pattern, tokens, memoryview(offsets), memoryview(ids), special_tokens, merges_only
    )


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _no_pair(merge: object, position: int) -> InputError:
    return InputError(f"entry {position} of the merges, {merge!r}, is not a pair of tokens")


def _spaced(merge: Any, position: int) -> str:
    """A merge as one text, whichever of the two forms it has in the file."""
    if isinstance(merge, str):
        return merge
    if not isinstance(merge, list) or not all(isinstance(part, str) for part in merge):
        raise _no_pair(merge, position)
    return " ".join(merge)


def check_merges(tokenizer: Tokenizer, merges: Sequence[Any], vocabulary: Mapping[str, int]) -> None:
    """Refuse a file whose merges would give other ids than merging by rank.

    Our core merges whatever joins to a token, lowest id first. That is the same as applying the file's merges in their
    order if the pairs that can ever merge are all among them, in the order of their ids.
    """
    text_of = {id: text for text, id in vocabulary.items()}
    lefts, rights, ids = tokenizer._core.pairs().reshape(-1, 3).T.tolist()
    # No text of an ordinary token has a space, so an entry is the merge of just these two.
    expected = [f"{text_of[left]} {text_of[right]}" for left, right in zip(lefts, rights, strict=True)]
    written = [_spaced(merge, position) for position, merge in enumerate(merges)]
    if written == expected:
        return
    position_of = {merge: position for position, merge in enumerate(written)}
    positions = [position_of.pop(merge, -1) for merge in expected]
    for position in position_of.values():  # those that never merge
        merge = merges[position]
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if len(parts) != 2 or not (parts[0] in vocabulary and parts[1] in vocabulary):
            raise _no_pair(merge, position)
    previous = -1
    for position, id in zip(positions, ids, strict=True):
        if position <= previous:
            token = tokenizer.decode_single_token_bytes(id)
            raise InputError(
                f"the token {token!r} (id {id}) is not merged in the order of the ids;"
                " only vocabularies whose ids follow the merges are supported"
            )
        previous = position

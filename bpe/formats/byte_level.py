"""Byte-level BPE as text, which tokenizer.json and GGUF share: a character for each byte, and merges as pairs."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from bpe.errors import InputError
from bpe.patterns import Pattern
from bpe.vocabulary import AddedToken, Vocabulary


@lru_cache(maxsize=1)
def byte_characters() -> str:
    """Return the character that stands for each byte, as introduced by GPT-2's published code.

    Bytes that are a visible Latin-1 character stand for themselves; the other 68 get the characters from U+0100 on.

    >>> byte_characters()[ord("A")], byte_characters()[ord(" ")]
    ('A', 'Ġ')
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte) if byte in visible else chr(next(others)) for byte in range(256))


def token_text(token: bytes) -> str:
    """Return the bytes of a token as text, one of `byte_characters` for each.

    >>> token_text(b" caf\\xc3")
    'ĠcafÃ'
    """
    return token.decode("latin-1").translate(byte_characters())  # str.translate indexes a str by code point


def token_bytes(text: str) -> bytes | None:
    """Return the bytes that `token_text` writes as `text`, or None if it has a character that stands for no byte.

    >>> token_bytes("ĠcafÃ"), token_bytes("two words")
    (b' caf\\xc3', None)
    """
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    return bytes(map(byte_of.__getitem__, text)) if byte_of.keys() >= set(text) else None


def unused_as_ordinary(added_texts: Iterable[str], merges: Sequence[Any], whole_in: Pattern | None) -> set[str]:
    """Return which of the tokens that are also added tokens are found only where a text is split at added tokens.

    No merge leads to them, and none is a whole pretoken. Some have characters that stand for no byte.

    Args:
        added_texts: The texts of the added tokens that the file lists as tokens with the same id.
        merges: The merges of the file; see `vocabulary_from_texts`.
        whole_in: The split pattern, if a pretoken that is a token is taken whole.

    Raises:
        InputError: When an entry of the merges is not a pair.
    """
    pairs = {f"{text[:cut]} {text[cut:]}": text for text in added_texts for cut in range(1, len(text))}
    merged = {pairs[merge] for merge in filter(pairs.__contains__, _all_spaced(merges) if pairs else ())}
    unused = {text for text in added_texts if text not in merged and text not in byte_characters()}
    return unused if whole_in is None else {text for text in unused if not is_pretoken(text, whole_in)}


def is_pretoken(text: str, pattern: Pattern) -> bool:
    """Return whether the token that a file lists with this text may be a whole pretoken."""
    content = token_bytes(text) or b""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False  # a pretoken consists of whole characters
    return pattern.keeps(content)


def vocabulary_from_texts(
    name: str,
    pattern: Pattern,
    ids: Mapping[str, Any],
    added_tokens: Iterable[AddedToken],
    merges: Sequence[Any],
    merges_only: bool,
    all_ids: Mapping[str, Any],
    normalizer: Mapping[str, Any] | None = None,
) -> Vocabulary:
    """Create a vocabulary from tokens as `token_text` writes them, and the merges of a file.

    The pairs merge by rank if that gives the same ids as the merges of the file, or else as the file lists them.

    Args:
        name: What to call the vocabulary.
        pattern: How text is split.
        ids: The id of each token, by its text, as found in a file: the values may be of any type.
        added_tokens: The added tokens.
        merges: The merges of the file, in their order: pairs, or two texts with a space between them.
        merges_only: Whether every id comes from merging; see `Vocabulary`.
        all_ids: `ids`, and those of the tokens that are found only where a text is split at added tokens.
        normalizer: How text is normalized before it is split; see `bpe.normalizers`.

    Raises:
        ValueError: When there is no token, a value is not an id, an entry of the merges is not a pair of tokens or
            makes no token, or as `Vocabulary` does.
    """
    arrays, foreign = tokens_and_others(checked_ids(ids))
    ids = {text: id for text, id in ids.items() if text not in foreign} if foreign else ids
    create = partial(
        Vocabulary,
        name,
        pattern,
        *arrays,
        added_tokens,
        merges_only=merges_only,
        foreign_tokens=foreign,
        normalizer=normalizer,
    )
    by_rank = create()
    if _merges_by_rank(by_rank, merges, ids, all_ids):
        return by_rank
    return create(merge_list=memoryview(_listed_pairs(merges, ids)))


def tokens_and_others(ids: Mapping[str, int]) -> tuple[tuple[bytes, memoryview, memoryview], dict[str, int]]:
    """Return the tokens that stand for bytes as a `Vocabulary` takes them, and the ids of the others by their text.

    Raises:
        InputError: When so many stand for no bytes that this is not byte-level BPE.
    """
    ids, foreign = _without_foreign(ids)
    # Characters below U+0100 that stand for no byte do not occur: their tokens are foreign.
    to_bytes = {ord(character): byte for byte, character in enumerate(byte_characters())}
    tokens = "".join(ids).translate(to_bytes).encode("latin-1")  # a byte for each character
    offsets = array("Q", itertools.accumulate(map(len, ids), initial=0))
    return (tokens, memoryview(offsets), memoryview(array("I", ids.values()))), foreign


def checked_ids(ids: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the ids of tokens by their text, which are those of a file.

    Raises:
        InputError: When there is none, or a value is not an id.
    """
    if not ids:
        raise InputError("the vocabulary is empty")
    values = ids.values()
    if {*map(type, values)} != {int} or not 0 <= min(values) <= max(values) < 2**32:
        text, id = next((text, id) for text, id in ids.items() if not is_id(id))
        raise InputError(f"the token {text!r} has the id {id!r}; an id is an integer from 0 to 2**32 - 1")
    return ids


def _without_foreign(ids: Mapping[str, int]) -> tuple[Mapping[str, int], dict[str, int]]:
    """Return the tokens that stand for bytes, and those that do not: no text becomes them."""
    alphabet = frozenset(byte_characters())
    if alphabet.issuperset("".join(ids)) and "" not in ids:
        return ids, {}
    foreign = {text: id for text, id in ids.items() if not text or not alphabet.issuperset(text)}
    for text in foreign:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"the token {text!r} contains a surrogate, which is not valid Unicode")
    if len(foreign) == len(ids) or len(foreign) > len(ids) // 2 + 256:
        text = next(iter(foreign))
        raise InputError(
            f"the token {text!r} has a character that stands for no byte, as have {len(foreign) - 1:,} others; only"
            " byte-level BPE is supported"
        )
    return {text: id for text, id in ids.items() if text not in foreign}, foreign


def is_id(value: object) -> bool:
    """Return whether a value from a file is an integer that an id can be."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _merges_by_rank(
    vocabulary: Vocabulary, merges: Sequence[Any], ids: Mapping[str, int], all_ids: Mapping[str, Any]
) -> bool:
    """Return whether the merges of a file give the ids that merging by rank gives.

    By rank, the core merges the pair whose result has the lowest id. That equals applying the file's merges in their
    order if the file lists every pair that can merge, in the order of the ids.

    Raises:
        InputError: When an entry is not a pair of tokens, or makes no token.
    """
    text_of = dict(zip(ids.values(), ids.keys(), strict=True))
    # No text of an ordinary token contains a space, so two texts with a space between them stand for one pair only.
    pairs = memoryview(vocabulary.encoder.pairs()).cast("I")
    lefts, rights = (map(text_of.__getitem__, side) for side in (pairs[0::3], pairs[1::3]))
    expected = [*map(" ".join, zip(lefts, rights, strict=True))]
    if _all_spaced(merges) == expected:
        return True
    position_of = checked_merges(merges, all_ids)
    positions = [position_of.get(merge, -1) for merge in expected]
    return all(before < after for before, after in itertools.pairwise([-1, *positions]))


def checked_merges(merges: Sequence[Any], ids: Mapping[str, Any]) -> dict[str, int]:
    """Return where the merges of a file are in its list, by their two texts with a space between them.

    Of equal merges, the last counts.

    Raises:
        InputError: When an entry is not a pair of tokens, or makes no token.
    """
    position_of = {_spaced(merge, position): position for position, merge in enumerate(merges)}
    for merge, position in [*position_of.items()]:
        left, _, right = merge.partition(" ")
        if merge.startswith("#version") and isinstance(merges[position], str):
            del position_of[merge]
            continue
        missing = [part for part in (left, right) if part not in ids]
        if " " in right or (missing and not (left and right)):
            raise _not_a_pair(merges[position], position)
        if missing:
            raise InputError(
                f"entry {position} of the merges, {merges[position]!r}, has {missing[0]!r}, which is not a token"
            )
        if left + right not in ids:
            raise InputError(
                f"entry {position} of the merges, {merges[position]!r}, makes {left + right!r}, which is not a token"
            )
    return position_of


def _listed_pairs(merges: Sequence[Any], ids: Mapping[str, int]) -> array[int]:
    """Return the left, right and merged id of the merges of a file that can happen. Of equal ones, the last counts."""
    last = {_spaced(merge, position): position for position, merge in enumerate(merges)}
    listed = array("I")
    for merge in sorted(last, key=last.__getitem__):
        left, _, right = merge.partition(" ")
        if left in ids and right in ids and left + right in ids:
            listed.extend((ids[left], ids[right], ids[left + right]))
    return listed


def _all_spaced(merges: Sequence[Any]) -> list[str]:
    """Return the merges of a file as two texts with a space between them. Usually that is how the file has them."""
    if isinstance(merges, list) and {*map(type, merges)} <= {str}:
        return merges
    return [_spaced(merge, position) for position, merge in enumerate(merges)]


def _spaced(merge: Any, position: int) -> str:
    """A merge as two texts with a space between them, in whichever of the two forms the file has it."""
    if isinstance(merge, str):
        return merge
    if not isinstance(merge, list) or not all(isinstance(part, str) for part in merge):
        raise _not_a_pair(merge, position)
    return " ".join(merge)


def _not_a_pair(merge: object, position: int) -> InputError:
    return InputError(f"entry {position} of the merges, {merge!r}, is not a pair of tokens")

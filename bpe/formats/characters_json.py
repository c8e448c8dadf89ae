"""A byte-level tokenizer.json whose merges are those of characters: see `bpe.character_merges`."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bpe.character_merges import CharacterMerges
from bpe.errors import InputError
from bpe.formats.byte_level import byte_characters, checked_ids, checked_merges, token_bytes, tokens_and_others
from bpe.formats.pre_tokenizer import adds_other_characters
from bpe.patterns import Pattern
from bpe.splitting.steps import FROM_BYTE_CHARACTERS, TO_BYTE_CHARACTERS
from bpe.vocabulary import AddedToken, Vocabulary

_NOT_IN_UTF8 = b"\xc0\xc1" + bytes(range(0xF5, 0x100))


def needs_characters(model: Mapping[str, Any], ids: Mapping[str, Any], pattern: Pattern, normalizer: Any) -> bool:
    """Return whether merging bytes would give other ids than merging the characters that stand for them.

    Args:
        model: The "model" of the file.
        ids: The id of each token, by its text.
        pattern: How text is split.
        normalizer: The "normalizer" of the file.

    Raises:
        InputError: When the file has no token for some bytes, and ``tokenizers`` would fail on them.
    """
    unknown = [
        character
        for byte, character in enumerate(byte_characters())
        if character not in ids and byte not in _NOT_IN_UTF8
    ]
    steps = pattern.all_steps
    is_mapped_before = steps[-1:] == (FROM_BYTE_CHARACTERS,) and TO_BYTE_CHARACTERS not in steps
    has_others = adds_other_characters(steps) or (is_mapped_before and _normalizer_adds_others(normalizer))
    fallen = [character for character in unknown if model.get("byte_fallback") and _falls_back(character, ids)]
    unknown_token = model.get("unk_token")
    if unknown_token is not None and unknown_token not in ids and (has_others or len(fallen) < len(unknown)):
        left = [token_bytes(character) for character in unknown if character not in fallen]
        what = f"{len(left)} bytes, such as {left[0]!r}, have no token" if left else "a text may get other characters"
        raise InputError(f"{what}, and unk_token = {unknown_token!r} is no token either; set it to null to drop them")
    if not unknown:
        return has_others
    return has_others or unknown_token is not None or bool(fallen) or bool(model.get("ignore_merges"))


def _falls_back(character: str, ids: Mapping[str, Any]) -> bool:
    """Return whether there are tokens for the bytes of a character."""
    return all(f"<0x{each:02X}>" in ids for each in character.encode())


def flattened_normalizers(normalizer: Any) -> list[Mapping[str, Any]]:
    """Return the steps of a normalizer in their order, without the Sequences around them."""
    if not isinstance(normalizer, dict):
        return []
    inner = normalizer.get("normalizers")
    if normalizer.get("type") != "Sequence" or not isinstance(inner, list):
        return [normalizer]
    return [step for each in inner for step in flattened_normalizers(each)]


def _normalizer_adds_others(normalizer: Any) -> bool:
    """Return whether steps behind the last ByteLevel of a normalizer may write a character that stands for no byte."""
    steps = flattened_normalizers(normalizer)
    places = [place for place, step in enumerate(steps) if step.get("type") == "ByteLevel"]
    return bool(places) and not all(map(_keeps_byte_characters, steps[places[-1] + 1 :]))


def _keeps_byte_characters(step: Mapping[str, Any]) -> bool:
    if step.get("type") in ("Strip", "NFC"):
        return True
    content = step.get("content" if step.get("type") == "Replace" else "prepend")
    return isinstance(content, str) and set(content) <= set(byte_characters())


def read_characters(
    name: str,
    pattern: Pattern,
    model: Mapping[str, Any],
    unused: Iterable[str],
    added_tokens: Iterable[AddedToken],
    normalizer: Any,
) -> Vocabulary:
    """Read the vocabulary of a file for which `needs_characters` is true.

    Args:
        name: What to call the vocabulary.
        pattern: How text is split.
        model: The "model" of the file.
        unused: The texts of tokens that are found only where a text is split at added tokens.
        added_tokens: The added tokens.
        normalizer: The "normalizer" of the file.

    Raises:
        ValueError: When a token or a merge is not of the expected form, or as `Vocabulary` does.
    """
    ids = checked_ids(model["vocab"])
    merges = _merges(model["merges"], ids)
    unused = set(unused)
    arrays, others = tokens_and_others({text: id for text, id in ids.items() if text not in unused})
    unknown_token = model.get("unk_token")
    characters = CharacterMerges(
        {text: id for text, id in ids.items() if text},
        merges,
        unknown_token if unknown_token in ids else None,
        bool(model.get("fuse_unk")),
        bool(model.get("byte_fallback")),
        bool(model.get("ignore_merges")),
    )
    return Vocabulary(
        name,
        pattern,
        *arrays,
        added_tokens,
        foreign_tokens=others,
        normalizer=normalizer,
        characters=characters,
    )


def _merges(merges: Sequence[Any], ids: Mapping[str, int]) -> memoryview:
    """Return the left, right and merged id of each merge. Of equal merges, the last counts."""
    last = checked_merges(merges, ids)
    listed = array("I")
    for merge in sorted(last, key=last.__getitem__):
        left, _, right = merge.partition(" ")
        listed.extend((ids[left], ids[right], ids[left + right]))
    return memoryview(listed)


def unknown_options(characters: CharacterMerges) -> dict[str, Any]:
    """Return the options of the "model" of a tokenizer.json that say what characters without a token become."""
    return {
        "unk_token": characters.unknown_token,
        "fuse_unk": characters.fuse_unknown,
        "byte_fallback": characters.byte_fallback,
    }

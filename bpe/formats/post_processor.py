"""The post_processor of a tokenizer.json: the tokens that ``tokenizers`` puts in front of a text and behind it."""

from __future__ import annotations

from typing import Any

from bpe.boundaries import Boundaries
from bpe.errors import InputError
from bpe.formats.byte_level import is_id
from bpe.vocabulary import Vocabulary

SOURCE = "tokenizer.json (post_processor)"

_Ids = tuple[int, ...]


def boundaries_of(processor: Any, vocabulary: Vocabulary, strict: bool = True) -> Boundaries:
    """Return what a post-processor puts in front of a text and behind it.

    Args:
        processor: The "post_processor" of a tokenizer.json. None puts nothing anywhere.
        vocabulary: The vocabulary of the file.
        strict: Whether an id without a token is an error. Otherwise, it is not put anywhere.

    Raises:
        InputError: When the kind of the post-processor is not supported, a part of it is missing, or an id has no
            token.
    """
    sides = []
    for side in _sides(processor):
        missing = [id for id in side if not has_token(vocabulary, id)]
        if missing and strict:
            raise InputError(f'"post_processor" adds the id {missing[0]} to each text, which is the id of no token')
        sides.append(tuple(id for id in side if id not in missing))
    return Boundaries(prefix_ids=sides[0], suffix_ids=sides[1], prefix_from=SOURCE, suffix_from=SOURCE)


def has_token(vocabulary: Vocabulary, id: int) -> bool:
    """Return whether an id is that of a token."""
    if any(token.id == id for token in vocabulary.added_tokens):
        return True
    try:
        vocabulary.encoder.bytes_of(id)
    except KeyError:
        return False
    return True


def _sides(processor: Any) -> tuple[_Ids, _Ids]:
    """The ids in front and behind."""
    if processor is None:
        return (), ()
    if not isinstance(processor, dict):
        raise InputError('"post_processor" is not an object')
    kind = processor.get("type")
    if kind == "ByteLevel":  # changes offsets only
        return (), ()
    if kind in ("BertProcessing", "RobertaProcessing"):
        return (_pair(processor, "cls"),), (_pair(processor, "sep"),)
    if kind == "TemplateProcessing":
        return _template(processor)
    if kind == "Sequence":
        return _sequence(processor)
    raise InputError(
        f'"post_processor" is {kind}, which is not supported; supported are TemplateProcessing, BertProcessing,'
        " RobertaProcessing, ByteLevel and a Sequence of them"
    )


def _sequence(processor: dict[str, Any]) -> tuple[_Ids, _Ids]:
    steps = processor.get("processors")
    if not isinstance(steps, list):
        raise InputError('"post_processor" is a Sequence without a list of "processors"')
    added = [sides for sides in map(_sides, steps) if sides != ((), ())]
    if len(added) > 1:  # tokenizers stops such a text with a panic
        raise InputError('several steps of the Sequence in "post_processor" add tokens, which is not supported')
    return added[0] if added else ((), ())


def _pair(processor: dict[str, Any], key: str) -> int:
    value = processor.get(key)
    if not isinstance(value, list) or len(value) != 2 or not is_id(value[1]):
        raise InputError(f'"{key}" of "post_processor" is {value!r}; expected a text and an id')
    id: int = value[1]
    return id


def _template(processor: dict[str, Any]) -> tuple[_Ids, _Ids]:
    """The ids around the text in the template "single"; "pair", for two texts, is not used."""
    pieces, special = processor.get("single"), processor.get("special_tokens", {})
    if not isinstance(pieces, list) or not isinstance(special, dict):
        raise InputError('"post_processor" is a TemplateProcessing without a list "single" and an object of tokens')
    before: list[int] = []
    behind: list[int] | None = None
    for piece in pieces:
        if not isinstance(piece, dict) or len(piece) != 1:
            raise InputError(f'an entry of "single" in "post_processor" is {piece!r}; expected a token or the text')
        ((kind, value),) = piece.items()
        name = value.get("id") if isinstance(value, dict) else None
        if kind == "Sequence" and name == "A" and behind is None:
            behind = []
            continue
        entry = special.get(name) if kind == "SpecialToken" and isinstance(name, str) else None
        ids = entry.get("ids") if isinstance(entry, dict) else None
        if not isinstance(ids, list) or not all(map(is_id, ids)):
            raise InputError(
                f'the entry {piece!r} of "single" in "post_processor" is not supported; expected the text once, and'
                ' tokens whose ids are in its "special_tokens"'
            )
        (before if behind is None else behind).extend(ids)
    if behind is None:
        raise InputError('"single" in "post_processor" leaves out the text')
    return tuple(before), tuple(behind)


def post_processor(vocabulary: Vocabulary) -> dict[str, Any] | None:
    """Return the post-processor that puts what a vocabulary puts in front of a text, and behind it; None for nothing.

    Each of two texts gets the tokens, as with the post-processor that transformers makes.
    """
    boundaries = vocabulary.boundaries
    added = {token.id: token.content for token in vocabulary.added_tokens}
    names = {
        id: added[id] if id in added else vocabulary.encoder.bytes_of(id).decode("utf-8", "backslashreplace")
        for id in (*boundaries.prefix_ids, *boundaries.suffix_ids)
    }
    if not names:
        return None

    def around(text: str, type_id: int) -> list[dict[str, Any]]:
        before, behind = (
            [{"SpecialToken": {"id": names[id], "type_id": type_id}} for id in ids]
            for ids in (boundaries.prefix_ids, boundaries.suffix_ids)
        )
        return [*before, {"Sequence": {"id": text, "type_id": type_id}}, *behind]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]} for id, name in names.items()},
    }

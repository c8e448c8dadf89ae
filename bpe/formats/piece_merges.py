"""From scores to a list of merges, and back: the two ways in which files say how pieces merge."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from bpe.errors import InputError
from bpe.piece_vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, PieceModel, PieceVocabulary, core_pieces


def with_merges(vocabulary: PieceVocabulary) -> PieceModel:
    """Return the model of a vocabulary with a list of merges instead of scores.

    Each piece has one pair that can merge into it, so the list of these pairs, the highest score first, gives the same
    ids.

    Raises:
        InputError: When no list gives the same ids.
    """
    model = vocabulary.model
    if model.merges is not None:
        return model
    merges = memoryview(vocabulary.pieces.merges()).cast("I")
    numbers = merges.tolist()
    count = len(model.pieces)
    if any(number >= count for number in numbers):
        raise InputError(
            f"{vocabulary.name} merges characters that are no pieces, which a list of merges cannot express; write a"
            " SentencePiece model"
        )
    merged = numbers[2::3]
    unused = [id for id in merged if model.types[id] == UNUSED]
    if unused:
        raise InputError(
            f"{vocabulary.name} has the unused piece {model.pieces[unused[0]]!r}, which a list of merges cannot"
            " express; write a SentencePiece model"
        )
    scores = [model.scores[id] for id in merged]
    if len(set(scores)) < len(scores):
        raise InputError(
            f"{vocabulary.name} has pieces with the same score, which a list of merges cannot express; write a"
            " SentencePiece model"
        )
    return model._replace(merges=merges)


@dataclass
class _Places:
    """Where the merges of a list that make a piece begin and end."""

    first: int
    last: int
    count: int = 1


def with_scores(vocabulary: PieceVocabulary) -> PieceModel:
    """Return the model of a vocabulary with scores instead of a list of merges.

    A score says of a piece when any two symbols merge into it. The scores give the same ids if the merges of each piece
    follow each other in the list, and the list has the pair that can merge into each piece by the scores: then, from
    the same symbols, both ways take the same next step.

    Raises:
        InputError: When no scores give the same ids.
    """
    model = vocabulary.model
    if model.merges is None:
        return model
    numbers = model.merges.tolist()
    places: dict[int, _Places] = {}
    for place, merged in enumerate(numbers[2::3]):
        known = places.setdefault(merged, _Places(place, place, 0))
        known.last = place
        known.count += 1
    reason = "lists merges that scores of pieces cannot express; write a tokenizer.json"
    if any(known.last - known.first + 1 != known.count for known in places.values()):
        raise InputError(f"{vocabulary.name} {reason}")
    order = sorted(places, key=lambda id: places[id].first)
    rank = {id: number for number, id in enumerate(order)}
    scores = array("f", (-float(rank.get(id, len(order))) for id in range(len(model.pieces))))
    types = bytearray(model.types)
    if UNKNOWN not in types:
        if "<unk>" not in model.pieces:
            raise InputError(f"{vocabulary.name} has no unknown token, which a SentencePiece model needs")
        types[model.pieces.index("<unk>")] = UNKNOWN
    for id, kind in enumerate(types):  # tokens that nothing makes
        if kind == NORMAL and len(model.pieces[id]) > 1 and id not in rank:
            types[id] = CONTROL
    if model.byte_fallback and types.count(BYTE) < 256 or (not model.byte_fallback and model.unknown != "fused"):
        raise InputError(
            f"{vocabulary.name} treats unknown characters as no SentencePiece model does; write a tokenizer.json"
        )
    scored = model._replace(scores=memoryview(scores), types=bytes(types), merges=None, unknown="fused")
    listed = set(zip(numbers[0::3], numbers[1::3], numbers[2::3], strict=True))
    rules = memoryview(core_pieces(scored).merges()).cast("I").tolist()
    if not listed.issuperset(zip(rules[0::3], rules[1::3], rules[2::3], strict=True)):
        raise InputError(f"{vocabulary.name} {reason}")
    return scored

"""From scores to a list of merges, and back: the two ways in which files say how pieces merge."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    tied = {score for score, count in Counter(model.scores[id] for id in merged).items() if count > 1}
    if not tied:
        return model._replace(merges=merges)
    runs = [model.pieces[id] for id in merged if model.scores[id] in tied]
    sizes = _merges_of_runs({len(run) for run in runs}) if _are_runs(runs, model.pieces) and len(tied) == 1 else None
    if sizes is None:
        raise InputError(
            f"{vocabulary.name} has pieces with the same score, which a list of merges cannot express; write a"
            " SentencePiece model"
        )
    before = [i for i in range(len(merged)) if model.scores[merged[i]] > max(tied)]
    after = [i for i in range(len(merged)) if model.scores[merged[i]] < max(tied)]
    id_of = {piece: id for id, piece in enumerate(model.pieces)}
    listed = array("I")
    for triples in (
        (numbers[3 * i : 3 * i + 3] for i in before),
        ([id_of[runs[0][0] * size] for size in merge] for merge in sizes),
        (numbers[3 * i : 3 * i + 3] for i in after),
    ):
        for triple in triples:
            listed.extend(triple)
    return model._replace(merges=memoryview(listed))


def _are_runs(tied: Sequence[str], pieces: Sequence[str]) -> bool:
    """Return whether pieces are runs of one character that no other piece contains twice in a row."""
    run = 2 * tied[0][0]
    return all(len({*piece}) == 1 for piece in tied) and {*tied} == {piece for piece in pieces if run in piece}


def _merges_of_runs(sizes: set[int]) -> list[tuple[int, int, int]] | None:
    """Return the merges that cut a run of a character as the pieces of these sizes do with equal scores, or None.

    Llama 2 and Mistral have such pieces for runs of white space. With equal scores, sentencepiece merges at the
    leftmost place, which makes the first piece as long as possible, and then the next. If the longest size is a power
    of two, a list of merges can do the same: as pairs are doubled, a run becomes pieces of the longest size and a rest
    in powers of two, the largest first, which are then joined from the left to the right.

    >>> _merges_of_runs({2, 3, 4})
    [(1, 1, 2), (2, 2, 4), (2, 1, 3)]
    """
    longest = max(sizes)
    doubled = [(size, size, 2 * size) for size in (2**n for n in range(longest.bit_length() - 1))]
    powers = [left for left, _, _ in reversed(doubled)]
    joined = [
        (total, part, total + part)
        for first in powers
        for part in powers
        for total in range(first, 2 * first, 2 * part)
        if part < first and {total, total + part} <= sizes
    ]
    merges = [*doubled, *joined]
    rank = {(left, right): number for number, (left, right, _) in enumerate(merges)}
    by_score = {(left, size - left): 0 for size in sizes for left in range(1, size)}
    same = all(_merged(length, rank) == _merged(length, by_score) for length in range(1, 3 * longest))
    return merges if same and {merged for _, _, merged in merges} == sizes else None


def _merged(length: int, ranks: Mapping[tuple[int, int], int]) -> list[int]:
    """Return the sizes of the pieces of a run: the pair of the lowest rank merges first, and of these the leftmost."""
    sizes = [1] * length
    while found := [(ranks[pair], place) for place, pair in enumerate(pairwise(sizes)) if pair in ranks]:
        _, place = min(found)
        sizes[place : place + 2] = [sum(sizes[place : place + 2])]
    return sizes


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

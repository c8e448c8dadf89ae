"""Tokens that a vocabulary must contain, however rare they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bpe.errors import InputError
from bpe.patterns import Pattern
from bpe.training.initial import InitialVocabulary
from bpe.training.work import MERGE_BYTES, Merges

_NEVER = 1 << 62  # the rank of a pair that joins to no token


def required_bytes(required_tokens: Sequence[str | bytes], pattern: Pattern) -> list[bytes]:
    """Check the required tokens and return each of them once, as bytes.

    Raises:
        InputError: A required token is not exactly one pretoken of the split pattern, so that no text would use it.
    """
    if isinstance(required_tokens, (str, bytes)):
        raise InputError("required_tokens is one string; give a list of strings")
    required = list(dict.fromkeys(t.encode() if isinstance(t, str) else t for t in required_tokens))
    for token in required:
        if not pattern.keeps(token):
            raise InputError(
                f"the required token {token.decode('utf-8', 'replace')!r} is empty or is not one pretoken of the split"
                " pattern, so that no text would ever be encoded to it"
            )
    return required


def with_required(
    initial: InitialVocabulary, learned: Merges, required: Sequence[bytes], room: int
) -> tuple[int, list[bytes]]:
    """Fit the required tokens into the vocabulary, beside as many merges as possible.

    Args:
        initial: The vocabulary before the first merge.
        learned: The merges in the order in which they were learned.
        required: The required tokens.
        room: Number of tokens that merges and required tokens may take together.

    Returns:
        The number of merges to keep, and the tokens to add after them.

    Raises:
        InputError: The required tokens alone need more than `room` tokens.
    """
    most = len(learned) // MERGE_BYTES
    kept = min(most, room)
    added = _missing_tokens(initial, learned[: kept * MERGE_BYTES], required)
    while kept + len(added) > room:  # dropping merges may make more tokens missing, or fewer
        if kept == 0:
            raise InputError(
                f"the required tokens need {len(added)} tokens, but the vocabulary has room for {room};"
                " use a larger vocabulary or require fewer tokens"
            )
        kept = max(0, room - len(added))
        added = _missing_tokens(initial, learned[: kept * MERGE_BYTES], required)
    while kept < most:
        more = _missing_tokens(initial, learned[: (kept + 1) * MERGE_BYTES], required)
        if kept + 1 + len(more) > room:
            break
        kept, added = kept + 1, more
    return kept, added


def _missing_tokens(initial: InitialVocabulary, learned: Merges, required: Sequence[bytes]) -> list[bytes]:
    """Return the required tokens that the vocabulary lacks, each after the tokens that lead to it by merging."""
    if not required:
        return []
    ranks = {token: rank for rank, token in enumerate(initial.tokens_after(learned)) if token}
    known = len(ranks)
    for token in required:
        if token in ranks:
            continue
        first, *others = _merge_plain(token, ranks)
        for other in others:
            first += other
            ranks.setdefault(first, len(initial.tokens) + len(learned) // MERGE_BYTES + len(ranks))
    return list(ranks)[known:]


def _merge_plain(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Encode a token by the definition of BPE."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 1:
        rank, i = min((ranks.get(parts[i] + parts[i + 1], _NEVER), i) for i in range(len(parts) - 1))
        if rank == _NEVER:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts

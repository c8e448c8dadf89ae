"""TODO: required."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bpe import _core
from bpe.errors import InputError
from bpe.patterns import Pattern
from bpe.training.start import _Start
from bpe.training.work import Merges


def _required(required_tokens: Sequence[str | bytes], pattern: Pattern) -> list[bytes]:
    if isinstance(required_tokens, (str, bytes)):
        raise InputError("required_tokens is one string; give a list of strings")
    required = list(dict.fromkeys(t.encode() if isinstance(t, str) else t for t in required_tokens))
    for token in required:
        if pattern.scanner is not None:
            is_whole = len(_core.scan(pattern.scanner, token)) == 1
        else:
            match = pattern.compile().search(token.decode("utf-8", "surrogateescape"))
            is_whole = bool(token) and match is not None and match.span() == (0, len(match.string))
        if not is_whole:
            raise InputError(
                f"the required token {token.decode('utf-8', 'replace')!r} is empty or no pretoken of the split pattern:"
                " no text would ever become it"
            )
    return required


def _with_required(start: _Start, learned: Merges, required: Sequence[bytes], room: int) -> tuple[int, list[bytes]]:
    """How many merges stay, as many as fit, and the tokens to add for those that are required."""
    kept = min(len(learned), room)
    added = _to_add(start, learned[:kept], required)
    while kept + len(added) > room:  # fewer merges, so that more may have to be added
        kept -= kept + len(added) - room
        if kept < 0:
            raise InputError(f"the required tokens need {len(added)} places, and the vocabulary has {room}")
        added = _to_add(start, learned[:kept], required)
    while kept < len(learned) and kept + 1 + len(more := _to_add(start, learned[: kept + 1], required)) <= room:
        kept, added = kept + 1, more
    return kept, added


def _to_add(start: _Start, learned: Merges, required: Sequence[bytes]) -> list[bytes]:
    """The required tokens that are not there, each after the tokens that lead to it by merging."""
    if not required:
        return []
    ranks = {token: rank for rank, token in enumerate(start.tokens_after(learned)) if token}
    known = len(ranks)
    for token in required:
        if token in ranks:
            continue
        first, *others = _merge_plain(token, ranks)
        for other in others:
            first += other
            ranks.setdefault(first, len(start.tokens) + len(learned) + len(ranks))
    return list(ranks)[known:]


def _merge_plain(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 1:
        rank, i = min((ranks.get(parts[i] + parts[i + 1], 1 << 62), i) for i in range(len(parts) - 1))
        if rank == 1 << 62:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts

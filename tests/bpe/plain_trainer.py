"""Training by the definition: all pairs counted anew before each merge. Slow, short, and the oracle of the fast one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


def plain_merges(
    words: Iterable[bytes],
    merges: int,
    *,
    byte_order: Sequence[int] = range(256),
    min_frequency: int = 1,
    max_token_length: int | None = None,
) -> list[bytes]:
    """The tokens that `merges` merges make, in their order.

    Args:
        words: the pretokens, each as often as it occurs.
        byte_order: the byte that each base id stands for; ids break ties.
    """
    tokens = [bytes([byte]) for byte in byte_order]
    id_of_byte = {byte: id for id, byte in enumerate(byte_order)}
    counts = {tuple(id_of_byte[byte] for byte in word): count for word, count in Counter(words).items()}
    for _ in range(merges):
        pairs: Counter[tuple[int, int]] = Counter()
        for word, count in counts.items():
            for pair in zip(word, word[1:], strict=False):
                pairs[pair] += count
        candidates = [
            (-count, pair)
            for pair, count in pairs.items()
            if count >= min_frequency and len(tokens[pair[0]] + tokens[pair[1]]) <= (max_token_length or 1 << 62)
        ]
        if not candidates:
            break
        _, (left, right) = min(candidates)
        counts = {_merge(word, left, right, len(tokens)): count for word, count in counts.items()}
        tokens.append(tokens[left] + tokens[right])
    return tokens[256:]


def _merge(word: tuple[int, ...], left: int, right: int, merged: int) -> tuple[int, ...]:
    result: list[int] = []
    i = 0
    while i < len(word):
        if word[i : i + 2] == (left, right):
            result.append(merged)
            i += 2
        else:
            result.append(word[i])
            i += 1
    return tuple(result)

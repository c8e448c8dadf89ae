"""Training by the definition. Slow, short, and the oracle of the fast one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

Word = tuple[bytes, ...]  # the tokens that a pretoken is encoded to


@dataclass(frozen=True)
class PlainMerge:
    left: int
    right: int
    count: int
    words: set[Word]
    """The most frequent words with the pair, as they were encoded before the merge."""


@dataclass(frozen=True)
class PlainTraining:
    tokens: list[bytes]
    """That were learned, in their order. The first one's id is that behind the base's highest."""
    merges: list[PlainMerge]
    uses: Counter[bytes]
    """How often each token stands in the text at the end."""


def plain_training(
    words: Iterable[bytes] | Mapping[bytes, int],
    merges: int,
    *,
    base: Mapping[bytes, int] | Iterable[bytes] = tuple(bytes([byte]) for byte in range(256)),
    min_frequency: int = 1,
    max_token_length: int | None = None,
) -> PlainTraining:
    """Before each merge all words are encoded with the tokens so far, and the pairs of neighbours are counted.

    The pair with the highest count is merged, of several the one with the lowest ids.

    Args:
        words: the pretokens, each as often as it occurs, or with its count.
        merges: how many; fewer where no pair is left.
        base: the ids of the tokens to begin with; without ids, the first has 0.
    """
    ids = dict(base) if isinstance(base, Mapping) else {token: id for id, token in enumerate(base)}
    first = max(ids.values()) + 1
    counts = Counter(words)
    encoded = {word: plain_encode(word, ids) for word in counts}
    learned: list[bytes] = []
    done: list[PlainMerge] = []
    for id in range(first, first + merges):
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, tokens in encoded.items():
            for pair in zip(tokens, tokens[1:], strict=False):
                pairs[pair] += counts[word]
        candidates = [
            (-count, ids[left], ids[right], left + right)
            for (left, right), count in pairs.items()
            if count >= min_frequency and len(left + right) <= (max_token_length or 1 << 62)
        ]
        if not candidates:
            break
        negative, left_id, right_id, token = min(candidates)
        done.append(PlainMerge(left_id, right_id, -negative, _most_frequent(encoded, counts, ids, left_id, right_id)))
        learned.append(token)
        ids[token] = id
        # Only in words that hold its bytes can a token be used.
        encoded.update((word, plain_encode(word, ids)) for word in encoded if token in word)
    uses: Counter[bytes] = Counter()
    for word, tokens in encoded.items():
        for token in tokens:
            uses[token] += counts[word]
    return PlainTraining(learned, done, uses)


def plain_merges(words: Iterable[bytes] | Mapping[bytes, int], merges: int, **options: object) -> list[bytes]:
    """The tokens that are learned."""
    return plain_training(words, merges, **options).tokens  # type: ignore[arg-type]


def plain_encode(word: bytes, ranks: Mapping[bytes, int]) -> Word:
    """As tiktoken encodes a pretoken: the whole one if it is a token; else single bytes, of which two neighbours are
    joined while some are a token, those with the lowest rank first, the leftmost among equals."""
    if word in ranks:
        return (word,)
    parts = [word[i : i + 1] for i in range(len(word))]
    while len(parts) > 1:
        rank, i = min((ranks.get(parts[i] + parts[i + 1], inf), i) for i in range(len(parts) - 1))
        if rank == inf:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return tuple(parts)


def _most_frequent(
    encoded: Mapping[bytes, Word], counts: Mapping[bytes, int], ids: Mapping[bytes, int], left: int, right: int
) -> set[Word]:
    holding = [
        (counts[word], tokens)
        for word, tokens in encoded.items()
        if any(ids[a] == left and ids[b] == right for a, b in zip(tokens, tokens[1:], strict=False))
    ]
    most = max(count for count, _ in holding)
    return {tokens for count, tokens in holding if count == most}

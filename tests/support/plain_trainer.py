"""A slow and short trainer that follows the definition of BPE: the reference for tests of the fast trainer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

Word = tuple[bytes, ...]  # the tokens that a pretoken is encoded to


@dataclass(frozen=True)
class PlainMerge:
    """A learned merge: the ids of its two tokens and the count of the pair."""

    left: int
    right: int
    count: int
    words: set[Word]
    """The most frequent words that contain the pair, encoded as they were before the merge."""


@dataclass(frozen=True)
class PlainTraining:
    """The result of training."""

    tokens: list[bytes]
    """The learned tokens in order. The id of the first token is one above the highest id of the base."""
    merges: list[PlainMerge]
    uses: Counter[bytes]
    """How often each token occurs in the encoded text at the end."""


def plain_training(
    words: Iterable[bytes] | Mapping[bytes, int],
    merges: int,
    *,
    base: Mapping[bytes, int] | Iterable[bytes] = tuple(bytes([byte]) for byte in range(256)),
    min_frequency: int = 1,
    max_token_length: int | None = None,
) -> PlainTraining:
    """Learn merges by the definition.

    Before each merge, encode all words with the tokens learned so far and count the pairs of neighbours. Merge the pair
    with the highest count; among equal counts, merge the pair with the lowest ids.

    Args:
        words: The pretokens, repeated as often as they occur, or mapped to their counts.
        merges: Number of merges to learn; fewer if no pair is left.
        base: The tokens to start from with their ids, or in order of ids from 0.
        min_frequency: The lowest count of a pair to merge.
        max_token_length: The largest number of bytes of a learned token; None for no limit.

    Returns:
        The learned tokens, their merges, and the uses of all tokens.
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
        # A token can only be used in words that contain its bytes.
        encoded.update((word, plain_encode(word, ids)) for word in encoded if token in word)
    uses: Counter[bytes] = Counter()
    for word, tokens in encoded.items():
        for token in tokens:
            uses[token] += counts[word]
    return PlainTraining(learned, done, uses)


def plain_merges(words: Iterable[bytes] | Mapping[bytes, int], merges: int, **options: object) -> list[bytes]:
    """Return the tokens that `plain_training` learns."""
    return plain_training(words, merges, **options).tokens  # type: ignore[arg-type]


def plain_encode(word: bytes, ranks: Mapping[bytes, int]) -> Word:
    """Encode a pretoken as tiktoken does.

    A pretoken that is itself a token stays whole. Otherwise, start from single bytes and repeatedly join the two
    neighbours that form the token with the lowest rank, the leftmost among equals, until no neighbours form a token.
    """
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

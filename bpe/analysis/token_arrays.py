"""The tokens of a tokenizer as arrays by id, and how its merges shorten a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bpe.analysis.scripts import classes_of
from bpe.tokenizer import Tokenizer

Counts = npt.NDArray[np.int64]


class TokenArrays:
    """The tokens of a tokenizer as arrays by id. Special tokens and unused ids stand for no bytes.

    The ids go up to the highest id of a token that is not special.

    Args:
        tokenizer: The tokenizer.

    Attributes:
        tokens: The bytes of each token. [ids]
        sizes: The size of each token in bytes. int64 [ids]
        is_token: Whether there is a token with the id. bool [ids]
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        vocabulary = tokenizer.vocabulary
        added = {token.id: token.content.encode() for token in vocabulary.added_tokens if not token.special}
        self.tokens: list[bytes] = [b""] * max(vocabulary.id_limit, *(id + 1 for id in added), 0)
        for id, token in added.items():
            self.tokens[id] = token
        for id, token in vocabulary.items():
            self.tokens[id] = token
        self.sizes: Counts = np.fromiter(map(len, self.tokens), np.int64, len(self.tokens))
        self.is_token: npt.NDArray[np.bool_] = self.sizes > 0

    @cached_property
    def characters(self) -> Counts:
        """How many characters begin in each token. int64 [ids]"""
        begins = np.frombuffer(b"".join(self.tokens), np.uint8) & 0xC0 != 0x80
        sums = np.concatenate(([0], np.cumsum(begins)))
        ends = np.cumsum(self.sizes)
        counts: Counts = sums[ends] - sums[ends - self.sizes]
        return counts

    @cached_property
    def classes(self) -> npt.NDArray[np.int64]:
        """The class of each token, as an index into `CLASSES`; see `classes_of`. Meaningless for unused ids. [ids]"""
        return classes_of(self.tokens)

    @cached_property
    def _merges(self) -> list[tuple[int, Sequence[int]]]:
        """For each token of several bytes, in order of rank: its id, and its parts by lower ranks alone.

        The parts are the two halves of its last merge. There are more than two parts if merging does not lead to the
        token, so that it is found only as a whole pretoken, or leads to it through a token of higher rank.
        """
        pairs = np.array(self.tokenizer.vocabulary.merges(), np.int64).reshape(-1, 3)
        halves: dict[int, Sequence[int]] = dict(zip(pairs[:, 2].tolist(), pairs[:, :2].tolist(), strict=True))
        ids = np.flatnonzero(self.sizes > 1)
        plain = pairs[pairs[:, :2].max(axis=1) < pairs[:, 2], 2]
        parts_of = dict(halves)
        for id in np.setdiff1d(ids, plain, assume_unique=True).tolist():
            parts = halves.get(id) or self.tokenizer.vocabulary.encoder.merge(self.tokens[id])
            while any(part >= id and part in halves for part in parts):
                parts = [p for part in parts for p in (halves[part] if part >= id and part in halves else [part])]
            parts_of[id] = parts
        merges = [(id, parts_of[id]) for id in ids.tolist()]
        return merges

    def growth(self, counts: Counts) -> Counts:
        """Return how many tokens a text would have with only the lowest ranks: with 256, 257, ... tokens.

        Encoding always merges the pair of lowest rank. If both halves of every pair have lower ranks than the whole, a
        merge never makes a pair of lower rank than its own possible, so the merges of a text come in the order of their
        ranks. A vocabulary cut off at rank v then does the same merges until the next rank is v or more, and stops.
        So its tokens are the bytes less the merges of ranks below v, and the derivation trees of the full vocabulary's
        tokens contain these merges: no text has to be encoded again. A pretoken that is a token is taken whole, without
        merging. The lower ranks yield the parts of its tree, so the same count applies.

        The result is exact for every vocabulary that was trained by merges. In others, such as Llama 3's, a few tokens
        have a half of higher rank (81 of 128,000 there); the result is off where merging leads to one of them.

        Args:
            counts: How often each token is used. int64 [ids]

        Returns:
            The number of tokens for each size of the vocabulary; none where another library encodes, whose tokens do
            not come from merges. int64 [merges + 1]
        """
        if self.tokenizer.vocabulary.library is not None:
            return np.zeros(0, np.int64)
        occurrences = counts.tolist()
        for id, parts in reversed(self._merges):
            count = occurrences[id]
            if count:
                for part in parts:
                    occurrences[part] += count
        saved = [occurrences[id] * (len(parts) - 1) for id, parts in self._merges]
        tokens: Counts = int(counts @ self.sizes) - np.cumsum([0, *saved])
        return tokens

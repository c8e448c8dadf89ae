"""The vocabulary that training starts from: 256 bytes or a base vocabulary, and special tokens."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice
from typing import TYPE_CHECKING

from bpe.boundaries import Boundaries
from bpe.errors import InputError
from bpe.formats.byte_level import byte_characters
from bpe.patterns import Pattern, find_pattern
from bpe.splitting.excerpts import excerpt
from bpe.training.work import Merges, rows_of
from bpe.vocabulary import AddedToken, as_added_tokens, checked_names

if TYPE_CHECKING:
    from bpe.tokenizer import Tokenizer


@dataclass(frozen=True)
class InitialVocabulary:
    """The tokens that exist before the first merge."""

    description: str
    """The vocabulary in words, for error messages."""
    ranks: dict[bytes, int]
    tokens: list[bytes]
    """The tokens by rank; b"" for a rank that no token has."""
    special_tokens: dict[str, int]
    """The id of each special token that keeps its id; -1 for a special token whose id follows all others."""
    kept: tuple[AddedToken, ...] = ()
    """The added tokens of the base, all of which keep their ids."""
    boundaries: Boundaries | None = None
    """What begins and ends a text, if the base says it."""

    @classmethod
    def of_bytes(cls, pattern: Pattern, special_tokens: Sequence[str] | None, tie_break: str) -> InitialVocabulary:
        """Start from the 256 single bytes.

        Args:
            pattern: The split pattern, whose special tokens are the default.
            special_tokens: The special tokens, or None for those of the pattern.
            tie_break: The order of the byte ids: "bytes" or "huggingface".

        Raises:
            InputError: A special token is empty or given twice, or `tie_break` is unknown.
        """
        tokens = [bytes([byte]) for byte in _byte_order(tie_break)]
        specials = checked_names(pattern.special_tokens if special_tokens is None else special_tokens)
        return cls("256 bytes", {token: id for id, token in enumerate(tokens)}, tokens, dict.fromkeys(specials, -1))

    @classmethod
    def of_base(cls, base: Tokenizer, special_tokens: Sequence[str] | None) -> InitialVocabulary:
        """Start from the tokens of another tokenizer.

        Args:
            base: The tokenizer to extend.
            special_tokens: Special tokens to add to those of the base, which keep their ids. None adds none; an empty
                sequence drops those of the base, too.

        Raises:
            InputError: The base never uses some of its tokens, or has no token for some bytes.
        """
        if base.merges_only:
            raise InputError(
                f"{base.name} has tokens that merging never produces, or bytes without a token;"
                " such a vocabulary cannot be a base"
            )
        if base.vocabulary.merge_list is not None or base.vocabulary.foreign_tokens:
            raise InputError(
                f"{base.name} merges in another order than that of its ids, or has tokens that stand for no bytes;"
                " such a vocabulary cannot be a base"
            )
        ranks = base.mergeable_ranks
        tokens = [b""] * (max(ranks.values()) + 1)
        for token, rank in ranks.items():
            tokens[rank] = token
        description = f"the base's {len(ranks)} tokens"
        added = checked_names(special_tokens or ())
        if special_tokens is not None and not added:
            return cls(description, ranks, tokens, {})
        kept = base.vocabulary.added_tokens
        ids = dict.fromkeys(added, -1) | {token.content: token.id for token in kept}
        return cls(description, ranks, tokens, ids, kept, base.vocabulary.boundaries)

    @property
    def special_count(self) -> int:
        """The number of ids that only special tokens have."""
        ids = self.special_tokens.values()
        return len({*ids}.difference(self.ranks.values(), [-1])) + sum(id < 0 for id in ids)

    def tokens_after(self, merges: Merges) -> list[bytes]:
        """Return all tokens after some merges. A token's index is the id by which merges refer to it."""
        tokens = list(self.tokens)
        for left, right, _ in rows_of(merges):
            tokens.append(tokens[left] + tokens[right])
        return tokens

    def arrays_after(self, merges: Merges) -> tuple[bytes, array[int], array[int]]:
        """Return all tokens after some merges as `token_arrays` does."""
        return token_arrays({token: id for id, token in enumerate(self.tokens_after(merges)) if token})

    def new_ids(self, number: int) -> array[int]:
        """Return the lowest `number` ids behind the initial tokens that no special token keeps. [number], uint32"""
        first = len(self.tokens)
        taken = {id for id in self.special_tokens.values() if id >= first}
        if not taken:
            return array("I", range(first, first + number))
        return array("I", islice((id for id in count(first) if id not in taken), number))

    def added_tokens(self, highest: int) -> list[AddedToken]:
        """Return the special tokens with their ids, where `highest` is the highest id of the other tokens."""
        new = [token for token, id in self.special_tokens.items() if id < 0]
        following = max([highest, *self.special_tokens.values()]) + 1
        return [*self.kept, *as_added_tokens({token: following + i for i, token in enumerate(new)})]

    def fingerprint(self) -> str:
        """Return the SHA-256 of all tokens in the order of their ranks."""
        import hashlib  # here, because it would add to the start-up time of every training run, and to its memory

        joined = b"".join(len(token).to_bytes(4, "little") + token for token in self.tokens)
        return hashlib.sha256(joined).hexdigest()


def token_arrays(ranks: Mapping[bytes, int]) -> tuple[bytes, array[int], array[int]]:
    """Lay tokens out for the core.

    Returns:
        The joined bytes of all tokens, the offsets of the tokens in them ([tokens + 1], uint64), and their ids
        ([tokens], uint32).
    """
    return b"".join(ranks), array("Q", accumulate(map(len, ranks), initial=0)), array("I", ranks.values())


def split_pattern(pattern: str | None, base: Tokenizer | None) -> Pattern:
    """Return the split pattern to train with: the named one, that of the base, or llama3's.

    Raises:
        InputError: The base has another pattern than the named one.
    """
    if base is None:
        return find_pattern(pattern or "llama3")
    if base.vocabulary.normalizer is not None:
        raise InputError(
            f"the base {base.name} normalizes text before it is split, which training does not; train without a base"
        )
    if pattern is not None and find_pattern(pattern).text != base.pattern.text:
        raise InputError(
            f"the base splits text by '{excerpt(base.pattern.name or base.pattern.text)}', not by '{excerpt(pattern)}':"
            " leave the pattern out, or train without a base"
        )
    return base.pattern


def _byte_order(tie_break: str) -> bytes:
    """Return the byte of each initial id."""
    if tie_break == "bytes":
        return bytes(range(256))
    if tie_break == "huggingface":  # its ids follow the code points of the characters that represent bytes
        characters = byte_characters()
        return bytes(sorted(range(256), key=lambda byte: characters[byte]))
    raise InputError(f"tie_break is {tie_break!r}; it must be 'bytes' or 'huggingface'")

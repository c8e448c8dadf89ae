"""TODO: start."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bpe.errors import InputError
from bpe.formats.byte_level import byte_characters
from bpe.patterns import Pattern, find_pattern
from bpe.tokenizer import Tokenizer
from bpe.training.work import Merges


@dataclass(frozen=True)
class _Start:
    """What a vocabulary begins with."""

    what: str
    ranks: dict[bytes, int]
    tokens: list[bytes]
    """By rank; b"" where there is none."""
    special_tokens: dict[str, int]
    """The ids of those that keep theirs; -1 for those that come after all others."""

    @classmethod
    def of_bytes(cls, pattern: Pattern, special_tokens: Sequence[str] | None, tie_break: str) -> _Start:
        tokens = [bytes([byte]) for byte in _byte_order(tie_break)]
        specials = _checked(pattern.special_tokens if special_tokens is None else special_tokens)
        return cls("256 bytes", {token: id for id, token in enumerate(tokens)}, tokens, dict.fromkeys(specials, -1))

    @classmethod
    def of_base(cls, base: Tokenizer, special_tokens: Sequence[str] | None) -> _Start:
        if base.merges_only:
            raise InputError(
                f"{base.name} has tokens that merging does not lead to, or bytes without a token, and leaves both out;"
                " such a vocabulary cannot be a base"
            )
        ranks = base.mergeable_ranks
        tokens = [b""] * (max(ranks.values()) + 1)
        for token, rank in ranks.items():
            tokens[rank] = token
        specials = base.special_tokens if special_tokens is None else dict.fromkeys(_checked(special_tokens), -1)
        return cls(f"the base's {len(ranks)} tokens", ranks, tokens, specials)

    def tokens_after(self, merges: Merges) -> list[bytes]:
        """All tokens after some merges; their places are the ids that merges name."""
        tokens = list(self.tokens)
        for left, right, _ in merges.tolist():
            tokens.append(tokens[left] + tokens[right])
        return tokens

    def arrays_after(self, merges: Merges) -> tuple[bytes, npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
        """The same for the core."""
        return _arrays({token: id for id, token in enumerate(self.tokens_after(merges)) if token})

    def new_ids(self, count: int) -> npt.NDArray[np.uint32]:
        """The ids of new tokens: the lowest behind those there are that no special token keeps."""
        first = len(self.tokens)
        ids = np.arange(first, first + count + len(self.special_tokens), dtype=np.uint32)
        taken = [id for id in self.special_tokens.values() if id >= 0]
        return ids[~np.isin(ids, np.array(taken, np.uint32))][:count]

    def special_ids(self, highest: int) -> dict[str, int]:
        """The ids of special tokens, behind all others if they do not keep theirs."""
        places = iter(range(highest + 1, highest + 1 + len(self.special_tokens)))
        return {token: next(places) if id < 0 else id for token, id in self.special_tokens.items()}

    def fingerprint(self) -> str:
        """What tells it from other starts: a hash of all tokens and their ranks."""
        joined = b"".join(len(token).to_bytes(4, "little") + token for token in self.tokens)
        return hashlib.sha256(joined).hexdigest()


def _arrays(ranks: Mapping[bytes, int]) -> tuple[bytes, npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """Tokens for the core: bytes joined, offsets, ids."""
    offsets = np.cumsum([0, *map(len, ranks)], dtype=np.uint64)
    return b"".join(ranks), offsets, np.array(list(ranks.values()), np.uint32)


def _pattern(pattern: str | None, base: Tokenizer | None) -> Pattern:
    if base is None:
        return find_pattern(pattern or "llama3")
    if pattern is not None and find_pattern(pattern).text != base.pattern.text:
        raise InputError(
            f"the base splits text by {base.pattern.name or base.pattern.text!r}, not by {pattern!r}: leave the pattern"
            " out, or train without a base"
        )
    return base.pattern


def _checked(special_tokens: Sequence[str]) -> list[str]:
    if isinstance(special_tokens, str):
        raise InputError("special_tokens is a str; give a list of strings")
    if "" in special_tokens:
        raise InputError("a special token is empty")
    if len(set(special_tokens)) < len(special_tokens):
        raise InputError("a special token is named twice")
    return list(special_tokens)


def _byte_order(tie_break: str) -> bytes:
    """The byte that each base id stands for."""
    if tie_break == "bytes":
        return bytes(range(256))
    if tie_break == "huggingface":  # its base ids follow the code points of the characters that stand for bytes
        characters = byte_characters()
        return bytes(sorted(range(256), key=lambda byte: characters[byte]))
    raise InputError(f"tie_break is {tie_break!r}; it must be 'bytes' or 'huggingface'")

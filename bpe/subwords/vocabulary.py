"""A vocabulary that another library encodes with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any

from bpe import _core
from bpe.boundaries import Boundaries, extended, known_boundaries
from bpe.errors import InputError
from bpe.patterns import Pattern
from bpe.subwords.encoder import LibraryEncoder
from bpe.vocabulary import AddedToken, Vocabulary, check_added_tokens, checked_names


class LibraryVocabulary(Vocabulary):
    """Tokens with their ids and added tokens, and the library that encodes with them."""

    library: LibraryEncoder

    def __init__(
        self,
        name: str,
        encoder: LibraryEncoder,
        added_tokens: Iterable[AddedToken] = (),
        *,
        boundaries: Boundaries | None = None,
    ) -> None:
        """
        Args:
            name: What to call the vocabulary.
            encoder: The library with its tokens.
            added_tokens: The special tokens, and the tokens that the library always finds in a text.
            boundaries: What begins and ends a text. Default: the added tokens of known names.

        Raises:
            ValueError: When an added token is empty, not valid Unicode or listed twice.
        """
        self.name = name
        self.library = encoder
        self.encoder = encoder  # type: ignore[assignment]
        self.pattern = Pattern(encoder.algorithm, encoder.algorithm)
        self.added_tokens = tuple(added_tokens)
        self.normalizer = None
        self.merge_list = None
        self.foreign_tokens = {}
        check_added_tokens(self.added_tokens)
        self.added_ids = {token.content: token.id for token in self.added_tokens}
        self.special_tokens = {token.content: token.id for token in self.added_tokens if token.special}
        self.boundaries = known_boundaries(self.added_ids) if boundaries is None else boundaries
        self.special_matcher = _core.SpecialTokens(self.special_tokens)
        self.always_added = None
        self.unknown_bytes = b""
        self.merges_only = False
        self.max_token_value = max(encoder.id_limit - 1, max(self.added_ids.values(), default=0))

    @property
    def algorithm(self) -> str:
        return self.library.algorithm

    @property
    def token_count(self) -> int:
        return len({*self.library.tokens, *self.added_ids.values()})

    @property
    def unreachable_count(self) -> int:
        return 0

    @property
    def takes_white_space(self) -> bool:
        """Always: the bytes of the tokens of a text need not be those of the text."""
        return True

    @property
    def keeps_text(self) -> bool:
        return False

    @property
    def changes_text(self) -> bool:
        return True

    def added_matcher(self, allowed: AbstractSet[str]) -> Any:
        return self.library.matcher(allowed)

    def merges(self) -> list[tuple[int, int, int]]:
        return []

    @cached_property
    def ranks(self) -> dict[bytes, int]:
        """The id of each token by the bytes that it stands for; of several tokens that stand for the same, the first.
        Do not change it."""
        return {token: id for id, token in sorted(self.library.tokens.items(), reverse=True)}

    def items(self) -> Iterator[tuple[int, bytes]]:
        return iter(self.library.tokens.items())

    def with_special_tokens(self, names: Sequence[str]) -> Vocabulary:
        new = [name for name in checked_names(names) if name not in self.special_tokens]
        for name in new:
            if name in self.added_ids or self.encoder.find(name.encode()) is not None:
                raise InputError(
                    f"{self.name}: {name!r} is an ordinary token of this {self.algorithm} vocabulary and cannot become"
                    " a special token; choose another name"
                )
        added = [*self.added_tokens, *(AddedToken(name, self.n_vocab + i) for i, name in enumerate(new))]
        boundaries = extended(self.boundaries, {token.content: token.id for token in added})
        return LibraryVocabulary(self.name, self.library.with_added(added), added, boundaries=boundaries)

    def __getstate__(self) -> dict[str, object]:
        return {
            "name": self.name,
            "encoder": self.library,
            "added_tokens": self.added_tokens,
            "boundaries": self.boundaries,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

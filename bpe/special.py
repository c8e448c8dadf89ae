"""Which special tokens are recognised in a text, and which raise an error: `allowed_special`, `disallowed_special`."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import Literal, NoReturn

from bpe import _core
from bpe.vocabulary import Vocabulary

_MOST_MATCHERS = 64  # for a caller who makes up a new set for each text


class SpecialMatchers:
    """The matchers for the sets of special tokens that callers allow or disallow. Each set's matcher is kept."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = vocabulary.special_tokens
        self._all = vocabulary.special_matcher
        self._kept: dict[frozenset[str], _core.SpecialTokens] = {}

    def choose(
        self, allowed: Literal["all"] | AbstractSet[str], disallowed: Literal["all"] | Collection[str]
    ) -> tuple[_core.SpecialTokens | None, _core.SpecialTokens | None]:
        """Return the matchers of the allowed and of the disallowed tokens; None where there are none to search for.

        Args:
            allowed: The tokens that become their ids, or "all".
            disallowed: The tokens that raise, or "all" for all that are not allowed.
        """
        every = self._all if self._ids else None
        if isinstance(disallowed, str):
            if isinstance(allowed, str):
                return every, None
            if not allowed:
                return None, every
            disallowed = self._ids.keys() - allowed
        forbidden = self._matcher(frozenset(disallowed)) if disallowed else None
        if isinstance(allowed, str):
            return every, forbidden
        return self._matcher(frozenset(allowed & self._ids.keys())) if allowed else None, forbidden

    def allowed_in(
        self,
        text: str | bytes,
        allowed: Literal["all"] | AbstractSet[str],
        disallowed: Literal["all"] | Collection[str],
    ) -> _core.SpecialTokens | None:
        """Return the matcher of the allowed tokens, after a search for the disallowed ones; see `choose`.

        Raises:
            ValueError: When the text contains a disallowed token.
        """
        special, forbidden = self.choose(allowed, disallowed)
        if forbidden is not None:
            found = forbidden.first_in(text)
            if found is not None:
                raise_disallowed(found)
        return special

    def _matcher(self, tokens: frozenset[str]) -> _core.SpecialTokens:
        matcher = self._kept.get(tokens)
        if matcher is None:
            if len(self._kept) >= _MOST_MATCHERS:
                self._kept.clear()
            matcher = _core.SpecialTokens({token: self._ids.get(token, 0) for token in tokens})
            self._kept[tokens] = matcher
        return matcher


def raise_disallowed(token: str, where: str = "") -> NoReturn:
    """Raise the error about a disallowed special token in a text; `where` begins the message, such as "FILE: "."""
    raise ValueError(
        f"{where}the text contains the special token {token!r}, which is disallowed. To encode it as that token, pass"
        f" allowed_special={{{token!r}}}; to encode it as ordinary text, pass disallowed_special=()."
    )

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
        self._vocabulary = vocabulary
        self._ids = vocabulary.special_tokens
        self._all_allowed = vocabulary.added_matcher(self._ids.keys()) if vocabulary.added_tokens else None
        self._kept_allowed: dict[frozenset[str], _core.AddedTokens] = {}
        self._kept_disallowed: dict[frozenset[str], _core.SpecialTokens] = {}

    def allowed_in(
        self,
        text: str | bytes,
        allowed: Literal["all"] | AbstractSet[str],
        disallowed: Literal["all"] | Collection[str],
    ) -> _core.AddedTokens | None:
        """Return the matcher of the added tokens, after a search for the disallowed ones.

        Args:
            text: The text.
            allowed: See `allowed`.
            disallowed: See `disallowed`.

        Raises:
            TypeError: As in `allowed` and `disallowed`.
            ValueError: When the text contains a disallowed token.
        """
        forbidden = self.disallowed(allowed, disallowed)
        if forbidden is not None:
            found = forbidden.first_in(text)
            if found is not None:
                raise_disallowed(found)
        return self.allowed(allowed)

    def disallowed(
        self, allowed: Literal["all"] | AbstractSet[str], disallowed: Literal["all"] | Collection[str]
    ) -> _core.SpecialTokens | None:
        """Return the matcher of the disallowed tokens; None where there are none to search for.

        Args:
            allowed: As in `allowed`.
            disallowed: The tokens that raise, or "all" for all that are not allowed.

        Raises:
            TypeError: When `disallowed` is not a collection of str, or is "all" and `allowed` is not a set.
            ValueError: When `disallowed` contains the empty string.
        """
        if disallowed == "all":
            if allowed == "all":
                return None
            if not isinstance(allowed, AbstractSet):
                _refuse_allowed(allowed)
            if not allowed:
                return self._vocabulary.special_matcher if self._ids else None
            disallowed = self._ids.keys() - allowed
        if not disallowed:
            return None
        tokens = frozenset(disallowed)
        if not tokens or "" in tokens:  # tiktoken's regular expression then matches any text, so it raises for any
            raise ValueError("disallowed_special contains no token, or an empty one; to disallow none, pass ()")
        if tokens not in self._kept_disallowed:
            _check_names(tokens, "disallowed_special")
            if len(self._kept_disallowed) >= _MOST_MATCHERS:
                self._kept_disallowed.clear()
            self._kept_disallowed[tokens] = _core.SpecialTokens(dict.fromkeys(tokens, 0))
        return self._kept_disallowed[tokens]

    def allowed(self, allowed: Literal["all"] | AbstractSet[str]) -> _core.AddedTokens | None:
        """Return the matcher of the added tokens: the allowed special ones, and all others.

        As in tiktoken, a wrong `allowed` is reported only after a disallowed token in the text, so a caller searches
        for the disallowed tokens first.

        Args:
            allowed: The special tokens that become their ids, or "all". Added tokens that are not special always do.

        Returns:
            The matcher, or None if there is nothing to search for.

        Raises:
            TypeError: When `allowed` is neither "all" nor a set of str.
        """
        if allowed == "all":
            return self._all_allowed
        if not isinstance(allowed, (set, frozenset)):
            _refuse_allowed(allowed)
        if not allowed:
            return self._vocabulary.always_added
        tokens = frozenset(allowed)
        if tokens not in self._kept_allowed:
            _check_names(tokens, "allowed_special")
            for token in tokens:
                token.encode()  # raises UnicodeEncodeError for a surrogate, as tiktoken does
            if len(self._kept_allowed) >= _MOST_MATCHERS:
                self._kept_allowed.clear()
            self._kept_allowed[tokens] = self._vocabulary.added_matcher(tokens)
        return self._kept_allowed[tokens]


def _check_names(tokens: Collection[object], argument: str) -> None:
    for token in tokens:
        if not isinstance(token, str):
            raise TypeError(f"{argument} contains {token!r}, which is not a str")


def as_set(disallowed: Literal["all"] | Collection[str]) -> Literal["all"] | frozenset[str]:
    """Return the disallowed tokens of a batch, which are read once for all of its texts.

    Raises:
        TypeError: When `disallowed` is not a collection of str.
    """
    return "all" if disallowed == "all" else frozenset(disallowed)


def _refuse_allowed(allowed: object) -> NoReturn:
    raise TypeError(f'allowed_special is {allowed!r}; expected "all", or a set of special tokens such as {{"<|end|>"}}')


def raise_disallowed(token: str, where: str = "") -> NoReturn:
    """Raise the error about a disallowed special token in a text; `where` begins the message, such as "FILE: "."""
    raise ValueError(
        f"{where}the text contains the special token {token!r}, which is disallowed. To encode it as that token, pass"
        f" allowed_special={{{token!r}}}; to encode it as ordinary text, pass disallowed_special=()."
    )

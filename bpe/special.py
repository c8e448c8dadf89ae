"""Which special tokens are recognised in a text, and which raise an error: `allowed_special`, `disallowed_special`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
        self._kept: dict[tuple[str, frozenset[str]], _core.SpecialTokens] = {}

    def allowed_in(
        self,
        text: str | bytes,
        allowed: Literal["all"] | AbstractSet[str],
        disallowed: Literal["all"] | Collection[str],
    ) -> _core.SpecialTokens | None:
        """Return the matcher of the allowed tokens, after a search for the disallowed ones.

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
                return self._all if self._ids else None
            disallowed = self._ids.keys() - allowed
        if not disallowed:
            return None
        tokens = frozenset(disallowed)
        if not tokens or "" in tokens:  # tiktoken's regular expression then matches any text, so it raises for any
            raise ValueError("disallowed_special contains no token, or an empty one; to disallow none, pass ()")
        return self._matcher(tokens, "disallowed_special", dict.fromkeys(tokens, 0))

    def allowed(self, allowed: Literal["all"] | AbstractSet[str]) -> _core.SpecialTokens | None:
        """Return the matcher of the allowed tokens; None where there are none to search for.

        As in tiktoken, a wrong `allowed` is reported only after a disallowed token in the text, so a caller searches
        for the disallowed tokens first.

        Args:
            allowed: The tokens that become their ids, or "all".

        Raises:
            TypeError: When `allowed` is neither "all" nor a set of str.
        """
        if allowed == "all":
            return self._all if self._ids else None
        if not isinstance(allowed, (set, frozenset)):
            _refuse_allowed(allowed)
        if not allowed:
            return None
        return self._matcher(frozenset(allowed), "allowed_special", self._ids)

    def _matcher(self, tokens: frozenset[str], argument: str, ids: Mapping[str, int]) -> _core.SpecialTokens:
        """The matcher of those tokens that have an id in `ids`."""
        matcher = self._kept.get((argument, tokens))
        if matcher is None:
            for token in tokens:
                if not isinstance(token, str):
                    raise TypeError(f"{argument} contains {token!r}, which is not a str")
                if argument == "allowed_special":
                    token.encode()  # raises UnicodeEncodeError for a surrogate, as tiktoken does
            if len(self._kept) >= _MOST_MATCHERS:
                self._kept.clear()
            matcher = _core.SpecialTokens({token: ids[token] for token in tokens if token in ids})
            self._kept[argument, tokens] = matcher
        return matcher


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

"""The added tokens of a tokenizer.json: read, joined with those of other files, and written."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bpe.errors import InputError
from bpe.formats.byte_level import is_id
from bpe.vocabulary import AddedToken

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_ALIASES = "aliases"  # our own key: more tokens with the id of an added token


def listed_added_tokens(data: dict[str, Any]) -> list[AddedToken]:
    """Return the added tokens of a tokenizer.json, and those that have the ids of others.

    Raises:
        InputError: When the list is damaged, or a token has two ids.
    """
    entries = data.get("added_tokens") or []
    if not isinstance(entries, list):
        raise InputError('"added_tokens" is not a list')
    tokens: dict[str, AddedToken] = {}
    by_id: dict[int, list[AddedToken]] = {}
    for entry in entries:
        token = _token_of(entry)
        earlier = tokens.get(token.content)
        if earlier is not None and earlier.id != token.id:
            raise InputError(f"the added token {token.content!r} has the ids {earlier.id} and {token.id}")
        token = tokens[token.content] = token if earlier is None else _added_again(earlier, token)
        aliases = entry.get(_ALIASES, [])
        if not isinstance(aliases, list):
            raise InputError(f'"{_ALIASES}" of the added token {token.content!r} is not a list')
        by_id[token.id] = [token, *map(_token_of, aliases)]  # of several with one id, too
    return [token for tokens_of_id in by_id.values() for token in tokens_of_id]


def _added_again(earlier: AddedToken, token: AddedToken) -> AddedToken:
    """Return what ``tokenizers`` makes of a token that is added a second time: the last counts, but stays special."""
    return token._replace(id=earlier.id, special=earlier.special or token.special)


def with_more(
    added_tokens: Iterable[AddedToken], more: Iterable[AddedToken], ids: Mapping[str, Any]
) -> list[AddedToken]:
    """Return the added tokens of a file and those that are added to them, with the ids that ``tokenizers`` gives."""
    tokens = {token.content: token for token in added_tokens}
    for token in more:
        earlier = tokens.get(token.content)
        if earlier is not None:
            tokens[token.content] = _added_again(earlier, token)
        elif token.content:
            following = max(len(ids), *(other.id + 1 for other in tokens.values()), 0)
            tokens[token.content] = token._replace(id=ids.get(token.content, following))
    return list(tokens.values())


def with_special(added_tokens: list[AddedToken], names: Iterable[str], ids: Mapping[str, Any]) -> list[AddedToken]:
    """Return the added tokens, of which those of these names are special, and those that were only in "vocab"."""
    tokens = {token.content: token for token in added_tokens}
    for name in names:
        if name in tokens:
            tokens[name] = tokens[name]._replace(special=True)
        elif is_id(ids.get(name)):
            tokens[name] = AddedToken(name, ids[name])
    return list(tokens.values())


def _token_of(entry: Any) -> AddedToken:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str) or not is_id(entry.get("id")):
        raise InputError('an entry of "added_tokens" has no "content" or no "id"')
    for flag in _FLAGS:
        if not isinstance(entry.get(flag, False), bool):
            raise InputError(f'"{flag}" of the added token {entry["content"]!r} is not true or false')
    return AddedToken(entry["content"], entry["id"], **{flag: entry.get(flag, False) for flag in _FLAGS})


def refuse_renumbered(added_ids: dict[str, int], ids: Mapping[str, Any]) -> None:
    """Refuse added tokens with other ids than those that ``tokenizers`` gives: that of "vocab", or the next free one.

    Raises:
        InputError: When an id differs; the message has the id that ``tokenizers`` gives.
    """
    following = len(ids)
    by_id = {id: token for token, id in reversed(added_ids.items())}  # without aliases
    for id, token in reversed(by_id.items()):
        expected = ids.get(token, following)
        following = max(following, expected + 1) if is_id(expected) else following
        if id != expected:
            raise InputError(
                f"the added token {token!r} has the id {id}, but tokenizers gives it {expected}, which follows from the"
                ' rest of the file; put the right id into "added_tokens", or the token into "vocab"'
            )


def _entry(token: AddedToken) -> dict[str, object]:
    return {"id": token.id, "content": token.content} | {flag: getattr(token, flag) for flag in _FLAGS}


def written_token(token: AddedToken, added_tokens: Sequence[AddedToken]) -> dict[str, object]:
    """Return the entry of an added token.

    The other tokens with its id are under a key that ``tokenizers`` ignores; it has one token for one id.
    """
    others = [other for other in added_tokens if other.id == token.id and other != token]
    for other in others:
        warnings.warn(
            f"tokenizers has one added token for one id: it reads {token.content!r} as {token.id}, and"
            f" {other.content!r} as text",
            stacklevel=2,
        )
    return _entry(token) | ({_ALIASES: [_entry(other) for other in others]} if others else {})

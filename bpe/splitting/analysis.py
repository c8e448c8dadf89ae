"""What can be said about a part of a tree: its lengths, and how it may begin."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, Union

from bpe.errors import InputError
from bpe.splitting.program import Set
from bpe.splitting.sets import NONE, complement, intersection, union
from bpe.splitting.tree import Atomic, Chars, Choice, Concatenation, Edge, Look, Node, Repeat, sequence

_MOST_LENGTHS = 64


class Rest(NamedTuple):
    """What follows a node up to the end of the pattern, or of the body of an atomic group."""

    node: Node
    more: Following


class Unknown(NamedTuple):
    """What follows cannot be said."""


Following: TypeAlias = Union[Rest, Unknown, None]


def may_be_empty(node: Node) -> bool:
    """Return whether a node can match the empty text."""
    if isinstance(node, Concatenation):
        return all(map(may_be_empty, node.items))
    if isinstance(node, Choice):
        return any(map(may_be_empty, node.items))
    if isinstance(node, Repeat):
        return node.low == 0 or may_be_empty(node.item)
    if isinstance(node, Atomic):
        return may_be_empty(node.item)
    return not isinstance(node, Chars)


def tries_empty_last(node: Node) -> bool:
    """Return whether a node matches the empty text, if it can, only after all else has been tried."""
    if isinstance(node, Concatenation):
        return not may_be_empty(node) or all(map(tries_empty_last, node.items))
    if isinstance(node, Choice):
        return not any(map(may_be_empty, node.items[:-1])) and tries_empty_last(node.items[-1])
    if isinstance(node, Repeat):
        return not may_be_empty(node) or (node.mode != "lazy" and tries_empty_last(node.item))
    if isinstance(node, Atomic):
        return tries_empty_last(node.item)
    return True


def ends_in_atomic(node: Node) -> bool:
    """Return whether a round of an unlimited repetition of a node may match nothing within an atomic group.

    The compiler cannot know in which of the two ways such a group has ended.
    """
    if isinstance(node, Concatenation):
        return may_be_empty(node) and any(map(ends_in_atomic, node.items))
    if isinstance(node, Choice):
        return any(map(ends_in_atomic, node.items))
    if isinstance(node, Repeat):
        return node.high != 0 and may_be_empty(node.item) and (node.mode == "possessive" or ends_in_atomic(node.item))
    return isinstance(node, Atomic) and may_be_empty(node)


def beside(node: Node, behind: bool) -> tuple[Set, bool] | None:
    """Return what a condition on one character asks for: the character's set, and whether the edge of the text is fine.

    Args:
        node: The inside of look-ahead or look-behind.
        behind: Whether it is look-behind.

    Returns:
        The set and whether there may be no character; None if the condition is not on one character.
    """
    if isinstance(node, Chars):
        return node.set, False
    if isinstance(node, Edge) and node.behind == behind:
        return NONE, True
    if isinstance(node, Choice):
        found = [beside(item, behind) for item in node.items]
        kept = [pair for pair in found if pair is not None]
        if len(kept) == len(found):
            return union(*(chars for chars, _ in kept)), any(edge for _, edge in kept)
    return None


def always_matches(following: Following) -> bool:
    """Return whether what follows matches at any position, perhaps the empty text."""
    while isinstance(following, Rest):
        if not _always(following.node):
            return False
        following = following.more
    return following is None


def _always(node: Node) -> bool:
    if isinstance(node, Concatenation):
        return all(map(_always, node.items))
    if isinstance(node, Choice):
        return any(map(_always, node.items))
    if isinstance(node, Repeat):
        return node.low == 0 or _always(node.item)
    return isinstance(node, Atomic) and _always(node.item)


def can_begin(following: Following, chars: Set) -> bool:
    """Return whether what follows may match where the next character is one of a set; never wrong if it says no."""
    while isinstance(following, Rest):
        goes_on, consumes = _begin(following.node, chars)
        if consumes:
            return True
        if not goes_on:
            return False
        following = following.more
    return True


def _begin(node: Node, chars: Set) -> tuple[bool, bool]:
    """Return whether a node may match the empty text before a character of a set, and whether it may consume one."""
    if isinstance(node, Chars):
        return False, bool(intersection(node.set, chars))
    if isinstance(node, Concatenation):
        for item in node.items:
            goes_on, consumes = _begin(item, chars)
            if consumes or not goes_on:
                return False, consumes
        return True, False
    if isinstance(node, Choice):
        found = [_begin(item, chars) for item in node.items]
        return any(goes_on for goes_on, _ in found), any(consumes for _, consumes in found)
    if isinstance(node, Repeat):
        goes_on, consumes = _begin(node.item, chars) if node.high != 0 else (True, False)
        return goes_on or node.low == 0, consumes
    if isinstance(node, Atomic):
        return _begin(node.item, chars)
    if isinstance(node, Edge):
        return node.behind, False
    if isinstance(node, Look) and not node.behind:
        asked = beside(node.item, behind=False)
        if asked is not None:
            wanted = complement(asked[0]) if node.negative else asked[0]
            return bool(intersection(wanted, chars)), False
    return True, False


class UnlimitedLookBehind(InputError):
    """A look-behind whose length has no limit."""


def by_length(node: Node) -> list[tuple[int, Node]]:
    """Return alternatives of fixed lengths that together match what a node matches, for look-behind.

    Raises:
        UnlimitedLookBehind: When there are too many lengths, or an atomic group has several.
    """
    found: list[tuple[int, Node]]
    if isinstance(node, Chars):
        return [(1, node)]
    if isinstance(node, Choice):
        found = [pair for item in node.items for pair in by_length(item)]
    elif isinstance(node, Concatenation):
        found = [(0, sequence(()))]
        for item in node.items:
            found = [(n + m, sequence((one, two))) for n, one in found for m, two in _limited(by_length(item))]
            _limited(found)
    elif isinstance(node, Repeat):
        if node.high is None or node.high > 1000:
            raise UnlimitedLookBehind("a look-behind without a limit of its length")
        found = [
            pair
            for count in range(node.low, node.high + 1)
            for pair in _limited(by_length(Concatenation((node.item,) * count)))
        ]
        _refuse_several(found, node.mode == "possessive")
    elif isinstance(node, Atomic):
        found = by_length(node.item)
        _refuse_several(found, True)
    else:
        return [(0, node)]
    return _limited(found)


def _refuse_several(found: list[tuple[int, Node]], is_atomic: bool) -> None:
    if is_atomic and len({length for length, _ in found}) > 1:
        raise UnlimitedLookBehind("an atomic group or possessive repetition of several lengths in a look-behind")


def _limited(found: list[tuple[int, Node]]) -> list[tuple[int, Node]]:
    """Return the alternatives if there are not too many of them."""
    if len(found) > _MOST_LENGTHS:
        raise UnlimitedLookBehind("a look-behind of too many different lengths")
    return found

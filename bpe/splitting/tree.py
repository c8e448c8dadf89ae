"""The tree of a parsed pattern, which is the same for all dialects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, Union

from bpe.splitting.program import Set

Mode = Literal["greedy", "lazy", "possessive"]


class Chars(NamedTuple):
    """One character of a set."""

    set: Set
    source: str
    """The text in the pattern: an escape, a class with its brackets, or a literal character."""
    ignore_case: bool = False
    """Whether the set has been folded, so that the text alone means another set."""


class Concatenation(NamedTuple):
    """Nodes one after another. Without nodes, it matches the empty text."""

    items: tuple[Node, ...]


class Choice(NamedTuple):
    """Alternatives, of which the first that leads to a match counts."""

    items: tuple[Node, ...]


class Repeat(NamedTuple):
    """A node repeated `low` to `high` times; without an upper limit if `high` is None."""

    item: Node
    low: int
    high: int | None
    mode: Mode


class Atomic(NamedTuple):
    """A node whose first match is final."""

    item: Node


class Look(NamedTuple):
    """A condition on the text after (or, if `behind`, before) this position, which consumes nothing."""

    item: Node
    behind: bool
    negative: bool


class Edge(NamedTuple):
    """The beginning (`behind`) or the end of the text."""

    behind: bool


class WordBoundary(NamedTuple):
    """A position with a word character on one side only, or (`negative`) any other position."""

    word: Set
    negative: bool


Node: TypeAlias = Union[Chars, Concatenation, Choice, Repeat, Atomic, Look, Edge, WordBoundary]

EMPTY = Concatenation(())


def sequence(items: Sequence[Node]) -> Node:
    """Return the nodes one after another, as one node."""
    return items[0] if len(items) == 1 else Concatenation(tuple(items))


def choice(items: Sequence[Node]) -> Node:
    """Return the alternatives as one node."""
    return items[0] if len(items) == 1 else Choice(tuple(items))

"""The program that a pattern is compiled to: sets of characters and instructions for a backtracking matcher.

The program finds a match that begins at a position; it has no captures. Among all ways to match, the first one counts,
in the order in which a backtracking matcher tries them:

=========  =========  ==========  ================================================================================
name       x          y           meaning
=========  =========  ==========  ================================================================================
CHAR       set                    consume one character of the set
JUMP       target                 continue at the target
SPLIT      target     target      try the first target, then the second
MATCH                             end of the program, or of the body of LOOK or ATOMIC
AHEAD      set        edge        zero width: the next character is in the set, or (edge = 1) the text ends here
BEHIND     set        edge        zero width: the previous character is in the set, or (edge = 1) the text begins here
LOOK       negative   target      zero width: the body, which begins at the next instruction, matches here (or, if
                                  negative = 1, does not); then continue at the target
BACK       count                  step back by so many characters; fail if there are fewer
ATOMIC                target      the body begins at the next instruction; continue at the target where its first match
                                  ends, and never try another match of the body
=========  =========  ==========  ================================================================================

Targets are numbers of instructions. Each loop consumes at least one character in each round.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeAlias

MAX_INSTRUCTIONS = 1 << 16

Set: TypeAlias = tuple[int, ...]
"""The first and the last code point of each range of a set; the ranges are sorted, disjoint and not adjacent."""


class Op(IntEnum):
    """The operation of an instruction."""

    CHAR = 0
    JUMP = 1
    SPLIT = 2
    MATCH = 3
    AHEAD = 4
    BEHIND = 5
    LOOK = 6
    BACK = 7
    ATOMIC = 8


class Program(NamedTuple):
    """A compiled pattern."""

    sets: tuple[Set, ...]
    instructions: tuple[tuple[int, int, int], ...]
    """The operation, x and y of each instruction. Unused operands are 0."""

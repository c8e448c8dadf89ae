"""An assembler of split programs: random patterns as trees, their programs and their text for the `regex` module."""

from __future__ import annotations

import random
from typing import Any, TypeAlias

import regex

from bpe import _core
from bpe.splitting.program import Op, Set

Tree: TypeAlias = tuple[Any, ...]
"""("chars", ranges), ("sequence", *trees), ("either", *trees), ("repeat", tree, minimum, maximum or None, lazy),
("ahead", tree, negative), ("behind", tree, negative, size), ("atomic", tree), ("next", ranges, edge) or
("previous", ranges, edge)."""

Code: TypeAlias = list[tuple[int, int, int]]


def chars(text: str) -> Tree:
    """Return a tree that matches one of some characters."""
    return "chars", tuple(bound for c in sorted(set(text)) for bound in (ord(c), ord(c)))


ANY: Tree = ("chars", (0, 0x10FFFF))


class Assembler:
    """Turns trees into the sets and the instructions of a program."""

    def __init__(self) -> None:
        self.sets: list[Set] = []
        self.code: Code = []

    def program(self, tree: Tree) -> tuple[list[Set], Code]:
        """Return the program of a tree."""
        self.emit(tree)
        self.code.append((Op.MATCH, 0, 0))
        return self.sets, self.code

    def emit(self, tree: Tree) -> None:
        """Append the instructions of a tree."""
        getattr(self, "emit_" + str(tree[0]))(*tree[1:])

    def emit_chars(self, ranges: Set) -> None:
        self.code.append((Op.CHAR, self._number(ranges), 0))

    def emit_next(self, ranges: Set, edge: bool) -> None:
        self.code.append((Op.AHEAD, self._number(ranges), int(edge)))

    def emit_previous(self, ranges: Set, edge: bool) -> None:
        self.code.append((Op.BEHIND, self._number(ranges), int(edge)))

    def emit_sequence(self, *trees: Tree) -> None:
        for tree in trees:
            self.emit(tree)

    def emit_either(self, *trees: Tree) -> None:
        jumps = []
        for tree in trees[:-1]:
            split = self._reserve()
            self.emit(tree)
            jumps.append(self._reserve())
            self.code[split] = (Op.SPLIT, split + 1, len(self.code))
        self.emit(trees[-1])
        for jump in jumps:
            self.code[jump] = (Op.JUMP, len(self.code), 0)

    def emit_repeat(self, tree: Tree, minimum: int, maximum: int | None, lazy: bool) -> None:
        for _ in range(minimum):
            self.emit(tree)
        if maximum is None:
            split = self._reserve()
            self.emit(tree)
            self.code.append((Op.JUMP, split, 0))
            self._choose(split, lazy)
        else:
            splits = []
            for _ in range(maximum - minimum):
                splits.append(self._reserve())
                self.emit(tree)
            for split in splits:
                self._choose(split, lazy)

    def emit_ahead(self, tree: Tree, negative: bool) -> None:
        self._body(Op.LOOK, int(negative), tree, 0)

    def emit_behind(self, tree: Tree, negative: bool, size: int) -> None:
        self._body(Op.LOOK, int(negative), tree, size)

    def emit_atomic(self, tree: Tree) -> None:
        self._body(Op.ATOMIC, 0, tree, 0)

    def _body(self, op: Op, x: int, tree: Tree, back: int) -> None:
        begin = self._reserve()
        if back:
            self.code.append((Op.BACK, back, 0))
        self.emit(tree)
        self.code.append((Op.MATCH, 0, 0))
        self.code[begin] = (op, x, len(self.code))

    def _choose(self, split: int, lazy: bool) -> None:
        targets = (split + 1, len(self.code))
        self.code[split] = (Op.SPLIT, *(targets[::-1] if lazy else targets))

    def _reserve(self) -> int:
        self.code.append((Op.JUMP, 0, 0))
        return len(self.code) - 1

    def _number(self, ranges: Set) -> int:
        if ranges not in self.sets:
            self.sets.append(ranges)
        return self.sets.index(ranges)


def split_step(tree: Tree, behavior: str = "isolated", invert: bool = False) -> tuple[object, ...]:
    """Return a step for `_core.Splitter.stepped`."""
    return "split", *Assembler().program(tree), behavior, invert


def splitter(tree: Tree, behavior: str = "isolated", invert: bool = False) -> _core.Splitter:
    """Return a splitter with one step."""
    return _core.Splitter.stepped([split_step(tree, behavior, invert)])


def pattern_text(tree: Tree) -> str:
    """Return a tree whose sets list single characters as an expression for the `regex` module and for Oniguruma."""
    match tree:
        case ("chars", ranges):
            return _class_text(ranges)
        case ("next", ranges, edge):
            return rf"(?:(?={_class_text(ranges)})|(?![\s\S]))" if edge else f"(?={_class_text(ranges)})"
        case ("previous", ranges, edge):
            return rf"(?:(?<={_class_text(ranges)})|\A)" if edge else f"(?<={_class_text(ranges)})"
        case ("sequence", *trees):
            return "".join(map(pattern_text, trees))
        case ("either", *trees):
            return "(?:" + "|".join(map(pattern_text, trees)) + ")"
        case ("repeat", inner, minimum, maximum, lazy):
            return f"(?:{pattern_text(inner)}){{{minimum},{'' if maximum is None else maximum}}}" + "?" * lazy
        case ("ahead", inner, negative):
            return f"(?{'!' if negative else '='}{pattern_text(inner)})"
        case ("behind", inner, negative, _):
            return f"(?<{'!' if negative else '='}{pattern_text(inner)})"
        case ("atomic", inner):
            return f"(?>{pattern_text(inner)})"
    raise ValueError(tree)


def _class_text(ranges: Set) -> str:
    if ranges == ANY[1]:
        return r"[\s\S]"
    return "[" + "".join(regex.escape(chr(first), special_only=False) for first in ranges[::2]) + "]"


def find_matches(tree: Tree, text: str) -> list[tuple[int, int, bool]]:
    """Return the begin and the end of each match and of each part between, by the `regex` module."""
    compiled = regex.compile(pattern_text(tree), regex.V0)
    parts: list[tuple[int, int, bool]] = []
    done = position = 0
    last = -1
    while position <= len(text) and (found := compiled.search(text, position)):
        begin, end = found.span()
        position = end + (begin == end)
        if begin == end == last:
            continue
        if done < begin:
            parts.append((done, begin, False))
        parts.append((begin, end, True))
        done = last = end
    if done < len(text):
        parts.append((done, len(text), False))
    return parts


def matches_empty(tree: Tree) -> bool:
    """Return whether a tree may match without consuming a character."""
    match tree:
        case ("chars", _):
            return False
        case ("sequence", *trees):
            return all(map(matches_empty, trees))
        case ("either", *trees):
            return any(map(matches_empty, trees))
        case ("repeat", inner, minimum, _, _):
            return minimum == 0 or matches_empty(inner)
        case ("atomic", inner):
            return matches_empty(inner)
    return True


def random_tree(rng: random.Random, alphabet: str, depth: int = 4, bodies: bool = True) -> Tree:
    """Return a random pattern over some characters. Without `bodies`, it looks around by one character at most."""

    def some_chars() -> Tree:
        if rng.random() < 0.1:
            return ANY
        return chars("".join(rng.sample(alphabet, rng.randint(1, min(3, len(alphabet))))))

    def tree(depth: int) -> Tree:
        kind = rng.random()
        if depth == 0 or kind < 0.25:
            return some_chars()
        if kind < 0.5:
            return "sequence", *(tree(depth - 1) for _ in range(rng.randint(2, 3)))
        if kind < 0.65:
            return "either", *(tree(depth - 1) for _ in range(rng.randint(2, 3)))
        if kind < 0.83:
            inner = tree(depth - 1)
            minimum = rng.randint(0, 2)
            maximum = rng.choice([None, None, minimum + rng.randint(0, 2)])
            if matches_empty(inner):
                minimum, maximum = 0, 1
            return "repeat", inner, minimum, maximum, rng.random() < 0.3
        if kind < 0.91 or not bodies:
            return rng.choice(["next", "previous"]), some_chars()[1], rng.random() < 0.5
        if kind < 0.94:
            return "ahead", tree(depth - 1), rng.random() < 0.5
        if kind < 0.96:
            size = rng.randint(1, 2)
            return "behind", ("sequence", *(some_chars() for _ in range(size))), rng.random() < 0.5, size
        return "atomic", tree(depth - 1)

    return tree(depth)

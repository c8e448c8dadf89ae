"""From the tree of a pattern to the program that the core runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from bpe import _core
from bpe.errors import InputError
from bpe.splitting.analysis import (
    Following,
    Rest,
    Unknown,
    UnlimitedLookBehind,
    always_matches,
    beside,
    by_length,
    can_begin,
    may_be_empty,
)
from bpe.splitting.excerpts import place
from bpe.splitting.parse import parse
from bpe.splitting.program import MAX_INSTRUCTIONS, Op, Program, Set
from bpe.splitting.sets import NONE, complement, union
from bpe.splitting.steps import ByteCharacters, Dialect, PrefixSpace, Split, Step
from bpe.splitting.tree import (
    Atomic,
    Chars,
    Choice,
    Concatenation,
    Edge,
    Look,
    Node,
    Repeat,
    WordBoundary,
    choice,
    sequence,
)

_COUNT = re.compile(r"(?<!\\[xuUpP])\{(\d*),?(\d*)\}")


class _TooLong(InputError):
    """A program that would have too many instructions."""

    def __init__(self, where: str = "") -> None:
        super().__init__(
            f"the split pattern needs more than {MAX_INSTRUCTIONS} instructions{where}; lower its numbers of repeats,"
            " or write + or *"
        )


def compile_steps(steps: Sequence[Step]) -> _core.Splitter:
    """Return the splitter of the core for some steps.

    Raises:
        InputError: When the pattern of a step is not valid, or has a construct that is not supported.
    """
    return _core.Splitter.stepped([_step(step) for step in steps])


def _step(step: Step) -> tuple[object, ...]:
    """Return a step as the core takes it."""
    if isinstance(step, Split):
        program = compile_pattern(step.pattern, step.dialect)
        return "split", program.sets, program.instructions, step.behavior, step.invert
    if isinstance(step, PrefixSpace):
        return ("prefix_space",)
    if isinstance(step, ByteCharacters):
        return (f"{step.direction}_byte_characters",)
    return "metaspace", step.replacement, step.prepend_scheme, step.split


@lru_cache(64)
def compile_pattern(text: str, dialect: Dialect) -> Program:
    """Return the program of a pattern.

    Args:
        text: The pattern.
        dialect: The dialect of the text.

    Raises:
        InputError: When the pattern is not valid, or has a construct that cannot be matched exactly as in the engine.
    """
    try:
        return compile_tree(parse(text, dialect))
    except _TooLong as error:
        raise _TooLong(f", {place(text, _most_repeats(text))}") from error


def _most_repeats(text: str) -> int:
    """Return where the highest number of repeats stands in a pattern."""
    found = [(max(int(count or 0) for count in match.groups()), -match.start()) for match in _COUNT.finditer(text)]
    return -max(found, default=(0, 0))[1]


def compile_tree(tree: Node) -> Program:
    """Return the program of a tree.

    Raises:
        InputError: When the program would be too long, or a look-behind has no limit.
    """
    compiler = _Compiler()
    try:
        compiler.emit(tree, None)
    except UnlimitedLookBehind as error:
        raise InputError(
            f"the split pattern has {error}, which is not supported; write it with fixed lengths"
        ) from error
    compiler.add(Op.MATCH)
    return compiler.program()


class _Label:
    """A place in the program that is not known yet."""

    __slots__ = ("place",)

    def __init__(self) -> None:
        self.place = -1


_Operand = int | _Label


class _Compiler:
    """The instructions so far, and the sets that they use."""

    def __init__(self) -> None:
        self.code: list[tuple[Op, _Operand, _Operand]] = []
        self.sets: dict[Set, int] = {}

    def add(self, op: Op, x: _Operand = 0, y: _Operand = 0) -> None:
        if len(self.code) >= MAX_INSTRUCTIONS:
            raise _TooLong
        self.code.append((op, x, y))

    def _set(self, chars: Set) -> int:
        return self.sets.setdefault(chars, len(self.sets))

    def _here(self, label: _Label) -> None:
        label.place = len(self.code)

    def _split(self, first: _Label, second: _Label, lazy: bool = False) -> None:
        """Try the first label before the second, or after it if `lazy`."""
        self.add(Op.SPLIT, *((second, first) if lazy else (first, second)))

    def emit(self, node: Node, rest: Following) -> None:
        """Add the instructions of a node; they continue at the instruction after them."""
        if isinstance(node, Chars):
            self.add(Op.CHAR, self._set(node.set))
        elif isinstance(node, Concatenation):
            for index, item in enumerate(node.items):
                self.emit(item, _after(node.items[index + 1 :], rest))
        elif isinstance(node, Choice):
            self._choice(_factored(node.items), rest)
        elif isinstance(node, Repeat):
            self._repeat(node, rest)
        elif isinstance(node, Atomic):
            self._atomic(node.item, rest)
        elif isinstance(node, Look):
            self._look(node)
        elif isinstance(node, Edge):
            self._beside(node.behind, NONE, True)
        else:
            self._word_boundary(node)

    def _choice(self, items: list[Node], rest: Following) -> None:
        end = _Label()
        for item in items[:-1]:
            this, following = _Label(), _Label()
            self._split(this, following)
            self._here(this)
            self.emit(item, rest)
            self.add(Op.JUMP, end)
            self._here(following)
        self.emit(items[-1], rest)
        self._here(end)

    def _atomic(self, item: Node, rest: Following) -> None:
        if rest is None or always_matches(rest):
            self.emit(item, rest)
            return
        end = _Label()
        self.add(Op.ATOMIC, 0, end)
        self.emit(item, None)
        self.add(Op.MATCH)
        self._here(end)

    def _repeat(self, node: Repeat, rest: Following) -> None:
        item, low, high, mode = node
        if high == 0:
            return
        if mode == "possessive":
            node = Repeat(item, low, high, "greedy")
            if not (isinstance(item, Chars) and (low == high or not can_begin(rest, item.set))):
                self._atomic(node, rest)
                return
        within: Following = Rest(Repeat(item, 0, None, "greedy"), rest) if low < 2 and high is None else Unknown()
        if high == 1:
            within = rest
        is_loop = high is None and low > 0 and not may_be_empty(item)
        for _ in range(low - is_loop):
            self.emit(item, within)
        if is_loop:
            begin, end = _Label(), _Label()
            self._here(begin)
            self.emit(item, within)
            self._split(begin, end, mode == "lazy")
            self._here(end)
        elif high is None:
            self._star(item, mode == "lazy", within)
        else:
            self._optional(item, high - low, mode == "lazy", within)

    def _optional(self, item: Node, count: int, lazy: bool, within: Following) -> None:
        """Add up to `count` repeats, each of which may be the last."""
        end = _Label()
        for _ in range(count):
            body = _Label()
            self._split(body, end, lazy)
            self._here(body)
            self.emit(item, within)
        self._here(end)

    def _star(self, item: Node, lazy: bool, within: Following) -> None:
        """Add a loop without a limit. A round that matches nothing ends it, as in both engines."""
        begin, body, end = _Label(), _Label(), _Label()
        self._here(begin)
        self._split(body, end, lazy)
        self._here(body)
        if may_be_empty(item):
            self._emit_tracked(item, within, begin, end)
        else:
            self.emit(item, within)
            self.add(Op.JUMP, begin)
        self._here(end)

    def _emit_tracked(self, node: Node, rest: Following, consumed: _Label, empty: _Label) -> None:
        """Add the instructions of a node; they continue at one label or the other, depending on what it has matched."""
        if isinstance(node, Concatenation) and node.items and may_be_empty(node):
            after_text, after_nothing = _Label(), _Label()
            following = sequence(node.items[1:])
            self._emit_tracked(node.items[0], _after(node.items[1:], rest), after_text, after_nothing)
            self._here(after_nothing)
            self._emit_tracked(following, rest, consumed, empty)
            self._here(after_text)
            self.emit(following, rest)
            self.add(Op.JUMP, consumed)
        elif isinstance(node, Choice):
            for item in node.items[:-1]:
                this, other = _Label(), _Label()
                self._split(this, other)
                self._here(this)
                self._emit_tracked(item, rest, consumed, empty)
                self._here(other)
            self._emit_tracked(node.items[-1], rest, consumed, empty)
        elif isinstance(node, Repeat) and node.high != 0 and may_be_empty(node):
            self._repeat_tracked(node, rest, consumed, empty)
        elif isinstance(node, Atomic) and may_be_empty(node):
            raise InputError(
                "the split pattern repeats an atomic group or possessive repetition that may match nothing, which is"
                " not supported; write the group so that it matches at least one character"
            )
        else:
            self.emit(node, rest)
            self.add(Op.JUMP, empty if may_be_empty(node) else consumed)

    def _repeat_tracked(self, node: Repeat, rest: Following, consumed: _Label, empty: _Label) -> None:
        item, low, high, mode = node
        if mode == "possessive":
            if may_be_empty(item):
                self._emit_tracked(Atomic(node), rest, consumed, empty)
                return
            nothing = Look(item, behind=False, negative=True)
            self._emit_tracked(Choice((Repeat(item, 1, high, mode), nothing)), rest, consumed, empty)
        elif low > 0:
            if low > 1000:
                raise _TooLong
            more = Repeat(item, low - 1, None if high is None else high - 1, mode)
            self._emit_tracked(Concatenation((item, more)), Unknown(), consumed, empty)
        else:
            first = _Label()
            self._split(first, empty, mode == "lazy")
            self._here(first)
            more = Repeat(item, 0, None if high is None else high - 1, mode)
            if high is not None and high > 1000:
                raise _TooLong
            if high is None:
                after = _Label()
                self._emit_tracked(item, Unknown(), after, empty)
                self._here(after)
                self.emit(more, rest)
                self.add(Op.JUMP, consumed)
            else:
                self._emit_tracked(Concatenation((item, more)), Unknown(), consumed, empty)

    def _beside(self, behind: bool, chars: Set, edge: bool) -> None:
        self.add(Op.BEHIND if behind else Op.AHEAD, self._set(chars), int(edge))

    def _look(self, node: Look) -> None:
        asked = beside(node.item, node.behind)
        if asked is not None:
            chars, edge = asked
            if node.negative:
                chars, edge = complement(chars), not edge
            self._beside(node.behind, chars, edge)
            return
        bodies = by_length(node.item) if node.behind else [(0, node.item)]
        end = _Label()
        for index, (length, body) in enumerate(bodies):
            this, following = _Label(), _Label()
            is_last = index == len(bodies) - 1
            if not node.negative and not is_last:
                self._split(this, following)
            self._here(this)
            after = _Label()
            self.add(Op.LOOK, int(node.negative), after)
            if node.behind:
                self.add(Op.BACK, length)
            self.emit(body, None)
            self.add(Op.MATCH)
            self._here(after)
            if not node.negative and not is_last:
                self.add(Op.JUMP, end)
            self._here(following)
        self._here(end)

    def _word_boundary(self, node: WordBoundary) -> None:
        word, others = node.word, complement(node.word)
        other, end = _Label(), _Label()
        first = _Label()
        self._split(first, other)
        self._here(first)
        self._beside(True, word, False)
        self._beside(False, *((word, False) if node.negative else (others, True)))
        self.add(Op.JUMP, end)
        self._here(other)
        self._beside(True, others, True)
        self._beside(False, *((others, True) if node.negative else (word, False)))
        self._here(end)

    def program(self) -> Program:
        """Return the program, without jumps to jumps and without instructions that cannot be reached."""
        code = [(op, _place(x), _place(y)) for op, x, y in self.code]
        for index, (op, x, y) in enumerate(code):
            if op in (Op.JUMP, Op.SPLIT):
                x = _destination(code, x)
            if op == Op.SPLIT:  # the target of LOOK and ATOMIC must stay: their body ends there
                y = _destination(code, y)
            code[index] = op, x, y
        return Program(tuple(self.sets), _renumbered(code))


def _after(items: tuple[Node, ...], rest: Following) -> Following:
    """Return what follows, with these nodes before it."""
    for item in reversed(items):
        rest = Rest(item, rest)
    return rest


def _factored(items: tuple[Node, ...]) -> list[Node]:
    """Return alternatives with neighbours of one character joined, and the same beginning of neighbours only once."""
    joined: list[Node] = []
    for item in items:
        last = joined[-1] if joined else None
        if isinstance(item, Chars) and isinstance(last, Chars):
            joined[-1] = Chars(union(last.set, item.set), "")
        else:
            joined.append(item)
    factored: list[Node] = []
    group: list[Node] = []
    for item in joined:
        first = _first(item)
        if group and (first is None or first != _first(group[0])):
            factored.append(_with_common_beginning(group))
            group = []
        group.append(item)
    return [*factored, _with_common_beginning(group)]


def _first(node: Node) -> Set | None:
    """Return the set of the character that a node begins with, if it always begins with that one node."""
    if isinstance(node, Concatenation) and node.items:
        node = node.items[0]
    return node.set if isinstance(node, Chars) else None


def _with_common_beginning(group: list[Node]) -> Node:
    if len(group) == 1:
        return group[0]
    chars = _first(group[0])
    assert chars is not None
    ends = [sequence(node.items[1:]) if isinstance(node, Concatenation) else sequence(()) for node in group]
    return Concatenation((Chars(chars, ""), choice(ends)))


def _place(operand: _Operand) -> int:
    return operand.place if isinstance(operand, _Label) else operand


def _destination(code: list[tuple[Op, int, int]], place: int) -> int:
    """Return where jumps lead in the end."""
    while code[place][0] == Op.JUMP:
        place = code[place][1]
    return place


def _renumbered(code: list[tuple[Op, int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Return the instructions that can be reached, with new numbers."""
    reached: set[int] = set()
    waiting = [0]
    while waiting:
        index = waiting.pop()
        if index in reached:
            continue
        reached.add(index)
        op, x, y = code[index]
        if op in (Op.JUMP, Op.SPLIT):
            waiting.append(x)
        if op in (Op.SPLIT, Op.LOOK, Op.ATOMIC):
            waiting.append(y)
        if op not in (Op.JUMP, Op.SPLIT, Op.MATCH):
            waiting.append(index + 1)
    order = sorted(reached)
    kept = []
    for position, index in enumerate(order):
        following = order[position + 1] if position + 1 < len(order) else -1
        if not (code[index][0] == Op.JUMP and code[index][1] == following):
            kept.append(index)
    new = {}
    count = len(kept)
    for index in reversed(order):
        if count and kept[count - 1] == index:
            count -= 1
        new[index] = count
    out = []
    for index in kept:
        op, x, y = code[index]
        x = new[x] if op in (Op.JUMP, Op.SPLIT) else x
        y = new[y] if op in (Op.SPLIT, Op.LOOK, Op.ATOMIC) else y
        out.append((int(op), x, y))
    return tuple(out)

"""A slow, plain interpreter of the programs that split patterns are compiled to: an independent check of the core."""

from __future__ import annotations

import sys
from bisect import bisect_right

from bpe.splitting.program import Op, Program


class Interpreter:
    """Matches a program by backtracking, with the memory that keeps it polynomial.

    Args:
        program: The program of a pattern.
        text: The text to search.
    """

    def __init__(self, program: Program, text: str) -> None:
        self.code = [(Op(op), x, y) for op, x, y in program.instructions]
        self.sets = program.sets
        self.points = [ord(c) for c in text]

    def has(self, chars: int, position: int) -> bool:
        """Return whether the character at a position is in a set."""
        point = self.points[position]
        ranges = self.sets[chars]
        index = bisect_right(ranges, point)
        return bool(index & 1) or (index > 0 and ranges[index - 1] == point)

    def run(self, start: int, position: int) -> int | None:
        """Return where the first match of a program or a body ends."""
        stack = [(start, position)]
        failed = set()
        while stack:
            pc, at = stack.pop()
            while (pc, at) not in failed:
                failed.add((pc, at))  # if this state led to a match, the search would be over
                op, x, y = self.code[pc]
                if op == Op.MATCH:
                    return at
                pc += 1
                if op == Op.CHAR:
                    if at == len(self.points) or not self.has(x, at):
                        break
                    at += 1
                elif op == Op.JUMP:
                    pc = x
                elif op == Op.SPLIT:
                    stack.append((y, at))
                    pc = x
                elif op == Op.AHEAD:
                    if not (self.has(x, at) if at < len(self.points) else y):
                        break
                elif op == Op.BEHIND:
                    if not (self.has(x, at - 1) if at else y):
                        break
                elif op == Op.LOOK:
                    if (self.run(pc, at) is None) != bool(x):
                        break
                    pc = y
                elif op == Op.BACK:
                    if at < x:
                        break
                    at -= x
                else:
                    end = self.run(pc, at)
                    if end is None:
                        break
                    pc, at = y, end
        return None


def matches(program: Program, text: str) -> list[tuple[int, int]]:
    """Return where the matches begin and end, leftmost first; no empty match directly follows another match."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 5000))
    interpreter = Interpreter(program, text)
    found: list[tuple[int, int]] = []
    begin, last = 0, -1
    while begin <= len(text):
        end = interpreter.run(0, begin)
        if end is None or (end == begin == last):
            begin += 1
            continue
        found.append((begin, end))
        last = end
        begin = end if end > begin else end + 1
    return found


def pretokens(program: Program, text: str) -> list[str]:
    """Return the matches that are not empty, as tiktoken's patterns keep them."""
    return [text[begin:end] for begin, end in matches(program, text) if end > begin]


def pieces(program: Program, text: str) -> list[str]:
    """Return the matches and the parts between them, as an isolated Split of tokenizers does."""
    out, last = [], 0
    for begin, end in matches(program, text):
        out += [text[last:begin], text[begin:end]]
        last = end
    return [piece for piece in [*out, text[last:]] if piece]

"""Random split patterns made from the grammar of each dialect, and random texts that they are likely to match."""

from __future__ import annotations

import random

from bpe.splitting.program import Program

ODDITIES = "\u017f\u0130\u0131\u1e9e\u212a\u00df\u0301\u200d\u200c\r\n\u00a0\u2028\u0085"
ODDITIES += "\u0661\u00bd\u00b2\u01c5\u24d0\u0378\ufb06\u4e00\u3042\U0001f600\U0001f3fd\ufe0f\u0e33\u093f"
PLAIN = "aabbsStTkKzZ1109 \n\t'-_.!é"

_LITERALS = ["a", "b", "s", "t", "K", "1", " ", "-", "'", "é", r"\.", r"\n", r"\x41", "\u212a", r"\-", r"\t", "ſ", "_"]
_ESCAPES = [
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    r"\h",
    r"\p{L}",
    r"\p{N}",
    r"\p{Lu}",
    r"\P{L}",
    r"\p{M}",
    r"\p{P}",
]
_ESCAPES += [
    r"\p{Greek}",
    r"\p{^Ll}",
    r"\p{Han}",
    r"\p{White_Space}",
    r"\p{Ll}",
    r"\p{So}",
    r"\p{Zs}",
    r"\p{Alphabetic}",
]
_POSIX = ["alpha", "digit", "space", "upper", "lower", "punct", "word", "alnum", "^alpha", "^space", "graph", "xdigit"]
_RANGES = ["a-z", "A-Z", "0-9", "b-y", "à-þ", r"\x00-\x20", "一-龥", "a-b", r"\r\n", "s-t", "J-L"]
_CONDITIONS = [r"\b", r"\B", "^", "$", r"\A", r"\z", r"\Z"]
_QUANTIFIERS = ["*", "+", "?", "{2}", "{1,3}", "{2,}", "{0,2}", "{,2}"]


class PatternMaker:
    """Makes random patterns of a dialect.

    Args:
        rng: Where the randomness comes from.
        dialect: "tiktoken" or "tokenizers".
    """

    def __init__(self, rng: random.Random, dialect: str) -> None:
        self.rng = rng
        self.dialect = dialect

    def pattern(self) -> str:
        """Return a pattern, which the engine may refuse."""
        return "|".join(self._sequence(2) for _ in range(self.rng.randint(1, 4)))

    def _sequence(self, depth: int) -> str:
        return "".join(self._item(depth) for _ in range(self.rng.choice((1, 1, 2, 2, 3))))

    def _item(self, depth: int) -> str:
        kind = self.rng.random()
        if kind < 0.07:
            return self.rng.choice(_CONDITIONS)
        if kind < 0.16 and depth:
            return f"({self.rng.choice(('?=', '?!', '?<=', '?<!'))}{self._alternatives(depth - 1)})"
        if kind < 0.3 and depth:
            opening = self.rng.choice(("?:", "?:", "", "?>", "?i:", "?<n>" if self.rng.random() < 0.1 else "?:"))
            return f"({opening}{self._alternatives(depth - 1)}){self._quantifier(0.6)}"
        return self._atom(depth) + self._quantifier(0.5)

    def _alternatives(self, depth: int) -> str:
        found = [self._sequence(depth) for _ in range(self.rng.choice((1, 1, 2, 2, 3)))]
        if self.rng.random() < 0.06:
            found[self.rng.randrange(len(found))] = ""
        return "|".join(found)

    def _quantifier(self, chance: float) -> str:
        if self.rng.random() > chance:
            return ""
        return self.rng.choice(_QUANTIFIERS) + self.rng.choice(("", "", "", "?", "+"))

    def _atom(self, depth: int) -> str:
        kind = self.rng.random()
        if kind < 0.4:
            return self.rng.choice(_LITERALS)
        if kind < 0.6:
            return self.rng.choice(_ESCAPES)
        if kind < 0.65:
            return "."
        return self._class(2)

    def _class(self, depth: int) -> str:
        operators = ("&&", "--", "~~") if self.dialect == "tiktoken" else ("&&",)
        text = self._class_items(depth)
        while self.rng.random() < 0.15:
            text += self.rng.choice(operators) + self._class_items(depth)
        return f"[{'^' if self.rng.random() < 0.35 else ''}{text}]"

    def _class_items(self, depth: int) -> str:
        items = []
        for _ in range(self.rng.choice((1, 2, 2, 3))):
            kind = self.rng.random()
            if kind < 0.3:
                items.append(self.rng.choice([text for text in _LITERALS if text not in ("-",)]))
            elif kind < 0.55:
                items.append(self.rng.choice(_RANGES))
            elif kind < 0.8:
                items.append(self.rng.choice(_ESCAPES))
            elif kind < 0.9 or not depth:
                items.append(f"[:{self.rng.choice(_POSIX)}:]")
            else:
                items.append(self._class(depth - 1))
        return "".join(items)


def alphabet(rng: random.Random, program: Program | None, size: int = 14) -> str:
    """Return characters for texts: some at the edges of the pattern's sets, some plain, and some odd ones."""
    points = []
    for chars in program.sets if program else ():
        for _ in range(2):
            if chars:
                edge = rng.choice(chars)
                points += [edge, edge + rng.choice((-1, 1))]
    valid = [chr(p) for p in points if 0 <= p <= 0x10FFFF and not 0xD800 <= p <= 0xDFFF]
    edges = rng.sample(valid, min(len(valid), size // 2))
    return "".join([*edges, *rng.sample(PLAIN, size // 2), *rng.sample(ODDITIES, size // 4)])


def texts(rng: random.Random, program: Program | None, count: int, longest: int = 16) -> list[str]:
    """Return random texts for a pattern."""
    found: list[str] = []
    while len(found) < count:
        characters = alphabet(rng, program)
        for _ in range(min(20, count - len(found))):
            some = rng.choices(characters, k=rng.randint(2, 6))
            found.append("".join(rng.choices(some, k=rng.randint(0, longest))))
    return found

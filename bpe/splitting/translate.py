"""Writing a pattern of one dialect in another with the same meaning."""

from __future__ import annotations

import re
from functools import lru_cache

from bpe.errors import InputError
from bpe.splitting.compile import compile_pattern, compile_tree
from bpe.splitting.dialects import SYNTAXES, Syntax
from bpe.splitting.excerpts import excerpt
from bpe.splitting.parse import parse
from bpe.splitting.program import Set
from bpe.splitting.sets import NONE, difference, pairs
from bpe.splitting.steps import Dialect
from bpe.splitting.tree import Atomic, Chars, Choice, Concatenation, Edge, Look, Node, Repeat, WordBoundary
from bpe.splitting.unicode import named_set

_FEW_RANGES = 6
_PART = re.compile(r"\\.|\[\^?|\]|\{\d*,?\d*\}\+|[$^]", re.DOTALL)


@lru_cache(64)
def translate(text: str, source: Dialect, target: Dialect) -> str:
    """Return the text of a pattern in another dialect.

    The text stays as it is if it means the same in both dialects. Characters that the engines class differently are
    written as ranges.

    Raises:
        InputError: When the pattern is not valid, or cannot be written in the other dialect.

    >>> translate(r"\\p{N}{1,3}+|\\s++$|\\s+", "tiktoken", "tokenizers")
    '\\\\p{N}{1,3}|\\\\s++\\\\z|\\\\s+'
    """
    meant = compile_pattern(text, source)
    for written in (text, _similar(text)):
        if _compiles_to(written, target, meant):
            return written
    tree = parse(text, source)
    written = _Writer(SYNTAXES[target]).write(tree)
    if not _compiles_to(written, target, meant) and not _compiles_to(written, target, compile_tree(tree)):
        name = SYNTAXES[target].name
        raise InputError(
            f"the split pattern '{excerpt(text)}' cannot be written for {name} with the same meaning; write it without"
            f" what {name} lacks, such as look-around within look-behind"
        )
    return written


def _compiles_to(text: str, dialect: Dialect, meant: object) -> bool:
    try:
        return compile_pattern(text, dialect) == meant
    except InputError:
        return False


def _similar(text: str) -> str:
    r"""Return the text with ``$``, ``^`` and ``{n,m}+`` as the engines with lines as Ruby has them need it.

    The result is only a guess; its program decides.
    """
    depth = 0

    def rewritten(match: re.Match[str]) -> str:
        nonlocal depth
        part = match[0]
        depth += (part[0] == "[") - (part == "]" and depth > 0)
        if depth or part[0] in "[]\\":
            return part
        return {"$": r"\z", "^": r"\A"}.get(part, part[:-1])

    return _PART.sub(rewritten, text)


class _Writer:
    """Writes a tree in a dialect."""

    def __init__(self, syntax: Syntax) -> None:
        self.syntax = syntax

    def write(self, node: Node) -> str:
        """Return the text of a node, which may be alternatives without a group."""
        if isinstance(node, Choice):
            return "|".join(self.write(item) for item in node.items)
        if isinstance(node, Concatenation):
            return "".join(self._grouped(item, isinstance(item, Choice)) for item in node.items)
        if isinstance(node, Repeat):
            return self._repeat(node)
        if isinstance(node, Atomic):
            return f"(?>{self.write(node.item)})"
        if isinstance(node, Look):
            return f"(?{'<' if node.behind else ''}{'!' if node.negative else '='}{self.write(node.item)})"
        if isinstance(node, Edge):
            return r"\A" if node.behind else r"\z"
        if isinstance(node, WordBoundary):
            return self._word_boundary(node)
        return self._chars(node)

    def _grouped(self, node: Node, needed: bool, opening: str = "(?:") -> str:
        return f"{opening}{self.write(node)})" if needed else self.write(node)

    def _repeat(self, node: Repeat) -> str:
        item, low, high, mode = node
        symbols = {(0, None): "*", (1, None): "+", (0, 1): "?", (low, low): f"{{{low}}}", (low, None): f"{{{low},}}"}
        symbol = {**symbols, (0, None): "*", (1, None): "+"}.get((low, high), f"{{{low},{high}}}")
        # Oniguruma refuses to repeat a non-capturing group with a condition among its alternatives.
        has_condition = isinstance(item, Choice) and any(isinstance(i, (Look, Edge, WordBoundary)) for i in item.items)
        is_single = isinstance(item, (Chars, Atomic))
        inner = self._grouped(item, not is_single, "(" if has_condition else "(?:")
        braces = symbol[0] == "{"
        if mode == "possessive":
            return f"(?>{inner}{symbol})" if braces and not self.syntax.possessive_braces else f"{inner}{symbol}+"
        return f"{inner}{symbol}{'?' if mode == 'lazy' and low != high else ''}"

    def _word_boundary(self, node: WordBoundary) -> str:
        if node.word == named_set(self.syntax.engine, r"\b"):
            return r"\B" if node.negative else r"\b"
        word = self._chars(Chars(node.word, r"\w"))
        same, other = f"(?<={word})(?={word})|(?<!{word})(?!{word})", f"(?<={word})(?!{word})|(?<!{word})(?={word})"
        return f"(?:{same if node.negative else other})"

    def _chars(self, node: Chars) -> str:
        source = self._set_of(node.source)
        if source == node.set:
            return node.source
        if len(node.set) <= 2 * _FEW_RANGES or not source:
            return self._ranges(node.set)
        missing, extra = difference(node.set, source), difference(source, node.set)
        if len(missing) + len(extra) >= len(node.set):
            return self._ranges(node.set)
        text = "[^\\n]" if node.source == "." else node.source
        ranges = "".join(map(_range, pairs(missing)))
        return f"[{text}{ranges}&&[^{''.join(map(_range, pairs(extra)))}]]" if extra else f"[{text}{ranges}]"

    def _set_of(self, text: str) -> Set | None:
        """Return the set that a text means in this dialect, if it means one."""
        if not text:
            return None
        try:
            node = parse(text, self.syntax.engine)
        except InputError:
            return None
        return node.set if isinstance(node, Chars) else None

    def _ranges(self, chars: Set) -> str:
        if chars == NONE:
            return r"[a&&b]"
        if len(chars) == 2 and chars[0] == chars[1]:
            return _character(chars[0])
        return f"[{''.join(map(_range, pairs(chars)))}]"


def _range(pair: tuple[int, int]) -> str:
    """Return a range as part of a class. A range that ends within the surrogates, which no text has, ends before."""
    first, last = pair
    first = 0xE000 if 0xD800 <= first <= 0xDFFF else first
    last = 0xD7FF if 0xD800 <= last <= 0xDFFF else last
    if first > last:
        return ""
    if first == last:
        return _character(first)
    return f"{_character(first)}-{_character(last)}"


def _character(point: int) -> str:
    """Return a character so that it means itself inside and outside of a class."""
    character = chr(point)
    if character.isascii() and character.isalnum():
        return character
    if character.isascii() and character.isprintable() and character not in "<> ":
        return "\\" + character
    return f"\\x{{{point:X}}}"

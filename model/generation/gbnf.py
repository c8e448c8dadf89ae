"""Grammars in GBNF, the syntax of llama.cpp, converted to Lark's syntax as llguidance reads it.

llguidance splits a text into terminals greedily: `/[a-z]*/ "b"` matches no text, since the first terminal takes the b.
GBNF has no terminals. So a grammar that does not refer to itself becomes one regular expression here, and in others
each terminal is a single character, for which it makes no difference. A mask then takes about 1 ms within long strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from bpe.errors import InputError

_RULE = re.compile(r"^[ \t]*[A-Za-z0-9_-]+[ \t]*::=", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"(?:[ \t]|#[^\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:\s|#[^\n]*)*")
_COUNT = re.compile(r"\{\s*(\d+)\s*(,?)\s*(\d*)\s*\}")
_ESCAPE = re.compile(r'\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([nrt"\\\[\]-]))')
_RANGE = re.compile(r"-[^\]]")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t"}
_DEEPEST = 100  # parentheses within parentheses, and rules within rules
_MOST_REPEATS = 100_000
_LONGEST = 1_000_000  # characters of the result


def is_gbnf(text: str) -> bool:
    """Return whether a grammar is written in GBNF rather than in Lark's syntax."""
    return _RULE.search(text) is not None


def lark_of(text: str) -> str:
    """Return the grammar in Lark's syntax.

    Raises:
        InputError: When the grammar is wrong or too large; the message names the line.
    """
    rules = _Parser(text).rules()
    if "root" not in rules:
        raise InputError("grammar: it has no rule root, with which a text begins; write root ::= ...")
    recursive = _is_recursive(rules)
    writer = _Characters(rules) if recursive else _Expression(rules)
    lark = writer.lark()
    if len(lark) > _LONGEST:
        raise InputError("grammar: it is too large when its rules are written out; write fewer repetitions")
    return lark


@dataclass
class _Node:
    """A part of a rule."""

    kind: str
    """ "character", "set", "rule", "sequence" or "choice"."""
    text: str = ""
    """The character, the name of the rule, or the set as a regular expression."""
    parts: list[_Node] = field(default_factory=list)
    least: int = 1
    most: int | None = 1
    """How often it occurs; None for no limit."""
    line: int = 0


class _Parser:
    """Reads the rules of a grammar."""

    def __init__(self, text: str) -> None:
        self._text, self._place, self._depth = text.replace("\r\n", "\n"), 0, 0

    def rules(self) -> dict[str, _Node]:
        rules: dict[str, _Node] = {}
        references: list[_Node] = []
        self._references = references
        self._skip(lines=True)
        while self._place < len(self._text):
            name = self._name("a rule")
            if name in rules:
                self._refuse(f"the rule {name} is defined twice")
            self._skip(lines=False)
            if not self._take("::="):
                self._refuse("::= is missing behind the name of the rule")
            self._skip(lines=True)
            rules[name] = self._choice(nested=False)
            if self._place < len(self._text) and self._text[self._place] != "\n":
                self._refuse(f"{self._text[self._place]!r} is not expected")
            self._skip(lines=True)
        for node in references:
            if node.text not in rules:
                raise InputError(f"grammar, line {node.line}: there is no rule {node.text}")
        return rules

    def _choice(self, nested: bool) -> _Node:
        parts = [self._sequence(nested)]
        while self._take("|"):
            self._skip(lines=True)
            parts.append(self._sequence(nested))
        return parts[0] if len(parts) == 1 else _Node("choice", parts=parts)

    def _sequence(self, nested: bool) -> _Node:
        parts: list[_Node] = []
        while self._place < len(self._text):
            letter = self._text[self._place]
            if letter == '"':
                parts.append(self._literal())
            elif letter == "[":
                parts.append(self._set())
            elif letter == "(":
                parts.append(self._group())
            elif letter == ".":
                self._place += 1
                parts.append(_Node("set", "(?s:.)"))
            elif _NAME.match(letter):
                node = _Node("rule", self._name("a rule"), line=self._line())
                self._references.append(node)
                parts.append(node)
            elif letter in "<!" and self._text[self._place + (letter == "!") :][:1] == "<":
                self._refuse("<...> names a token, which is not supported; write its text in quotes")
            else:
                break
            self._skip(lines=nested)
            self._repeat(parts)
            self._skip(lines=nested)
        return _Node("sequence", parts=parts)

    def _group(self) -> _Node:
        self._place += 1
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse("parentheses are nested too deeply")
        self._skip(lines=True)
        node = self._choice(nested=True)
        self._skip(lines=True)
        if not self._take(")"):
            self._refuse("a closing parenthesis is missing")
        self._depth -= 1
        return _Node("sequence", parts=[node])

    def _literal(self) -> _Node:
        self._place += 1
        parts = []
        while not self._take('"'):
            parts.append(_Node("character", self._character("a string")))
        return _Node("sequence", parts=parts)

    def _set(self) -> _Node:
        self._place += 1
        negated = self._take("^")
        ranges = []
        while not self._take("]"):
            first = last = self._character("a set")
            if _RANGE.match(self._text, self._place):
                self._place += 1
                last = self._character("a set")
                if last < first:
                    self._refuse(f"the range {first}-{last} is empty")
            ranges.append(f"{_escaped(first)}-{_escaped(last)}")
        if not ranges:
            self._refuse("a set [] has no characters")
        return _Node("set", f"[{'^' * negated}{''.join(ranges)}]")

    def _character(self, within: str) -> str:
        letter = self._text[self._place : self._place + 1]
        if letter in ("", "\n"):
            self._refuse(f"{within} is not closed")
        if letter != "\\":
            self._place += 1
            return letter
        escape = _ESCAPE.match(self._text, self._place)
        if escape is None:
            self._refuse(f"the escape {self._text[self._place : self._place + 2]} is not known")
        code = escape[1] or escape[2] or escape[3]
        if code and (int(code, 16) > 0x10FFFF or 0xD800 <= int(code, 16) < 0xE000):
            self._refuse(f"{escape[0]} is not a character")
        self._place = escape.end()
        return chr(int(code, 16)) if code else _LETTERS.get(escape[4], escape[4])

    def _repeat(self, parts: list[_Node]) -> None:
        """Read what follows a part: *, +, ? or a number of times."""
        while True:
            letter = self._text[self._place : self._place + 1]
            if letter and letter in "*+?":
                least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[letter]
                self._place += 1
            elif letter == "{":
                count = _COUNT.match(self._text, self._place)
                if count is None:
                    self._refuse("{ is not followed by a number of times, such as {2}, {2,} or {2,5}")
                least = int(count[1])
                most = least if not count[2] else int(count[3]) if count[3] else None
                if max(least, most or 0) > _MOST_REPEATS or (most is not None and most < least):
                    self._refuse(f"{count[0]} is not a number of times up to {_MOST_REPEATS:,}")
                self._place = count.end()
            else:
                return
            parts[-1] = _Node("sequence", parts=[parts[-1]], least=least, most=most)

    def _name(self, what: str) -> str:
        match = _NAME.match(self._text, self._place)
        if match is None:
            self._refuse(f"the name of {what} is expected")
        self._place = match.end()
        return match[0]

    def _take(self, text: str) -> bool:
        if not self._text.startswith(text, self._place):
            return False
        self._place += len(text)
        return True

    def _skip(self, lines: bool) -> None:
        match = (_SPACE_AND_LINES if lines else _SPACE).match(self._text, self._place)
        assert match is not None
        self._place = match.end()

    def _line(self) -> int:
        return self._text.count("\n", 0, self._place) + 1

    def _refuse(self, reason: str) -> NoReturn:
        raise InputError(f"grammar, line {self._line()}: {reason}")


class _Expression:
    """Writes a grammar without recursion as one regular expression."""

    def __init__(self, rules: dict[str, _Node]) -> None:
        self._rules, self._known = rules, dict[str, str]()
        self._length = 0

    def lark(self) -> str:
        return f"start: /{self._rule('root').replace('/', chr(92) + '/')}/"

    def _rule(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = self._written(self._rules[name])
        return self._known[name]

    def _written(self, node: _Node) -> str:
        if node.kind == "choice":
            text = f"(?:{'|'.join(map(self._written, node.parts))})"
        elif node.kind == "sequence":
            text = "".join(map(self._written, node.parts))
        elif node.kind == "rule":
            text = f"(?:{self._rule(node.text)})"
        else:
            text = _escaped(node.text) if node.kind == "character" else node.text
        if len(text) > _LONGEST:
            raise InputError("grammar: it is too large when its rules are written out; make them shorter")
        return text if (node.least, node.most) == (1, 1) else f"(?:{text}){_times(node)}"


class _Characters:
    """Writes a grammar whose terminals are single characters."""

    def __init__(self, rules: dict[str, _Node]) -> None:
        self._rules = rules
        self._numbers = {name: number for number, name in enumerate(rules)}

    def lark(self) -> str:
        lines = [f"start: rule_{self._numbers['root']}"]
        lines += [f"rule_{self._numbers[name]}: {self._written(node)}" for name, node in self._rules.items()]
        return "\n".join(lines)

    def _written(self, node: _Node) -> str:
        if node.kind == "choice":
            text = f"({' | '.join(map(self._written, node.parts))})"
        elif node.kind == "sequence":
            text = f"({' '.join(map(self._written, node.parts))})" if node.parts else '""'
        elif node.kind == "rule":
            text = f"rule_{self._numbers[node.text]}"
        else:
            text = f"/{_escaped(node.text) if node.kind == 'character' else node.text}/"
        return text if (node.least, node.most) == (1, 1) else f"{text}{_times(node)}"


def _times(node: _Node) -> str:
    """Return how often a part occurs, as both syntaxes write it."""
    return f"{{{node.least},{'' if node.most is None else node.most}}}"


def _escaped(character: str) -> str:
    """Return a character as a regular expression."""
    is_plain = character.isascii() and character.isalnum()
    return character if is_plain else f"\\u{{{ord(character):X}}}"


def _is_recursive(rules: dict[str, _Node]) -> bool:
    """Return whether a rule refers to itself, perhaps through others."""
    references = {name: {*_references(node)} for name, node in rules.items()}
    done: set[str] = set()
    found = True
    while found:  # a rule is done when all that it refers to are
        before = len(done)
        done |= {name for name, others in references.items() if others <= done}
        found = len(done) > before
    return len(done) < len(rules)


def _references(node: _Node) -> Iterator[str]:
    if node.kind == "rule":
        yield node.text
    for part in node.parts:
        yield from _references(part)

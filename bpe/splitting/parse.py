"""The parser of patterns: from the text of a pattern in its dialect to a tree."""

from __future__ import annotations

import re
from typing import NamedTuple

from bpe.splitting.analysis import UnlimitedLookBehind, by_length, ends_in_atomic, may_be_empty, tries_empty_last
from bpe.splitting.classes import read_class
from bpe.splitting.dialects import SYNTAXES, Syntax
from bpe.splitting.escapes import read_character, read_set
from bpe.splitting.excerpts import excerpt
from bpe.splitting.program import Set
from bpe.splitting.scanner import Scanner
from bpe.splitting.sets import ALL, complement, intersection, span, union
from bpe.splitting.steps import Dialect
from bpe.splitting.tree import (
    EMPTY,
    Atomic,
    Chars,
    Choice,
    Edge,
    Look,
    Mode,
    Node,
    Repeat,
    WordBoundary,
    choice,
    sequence,
)
from bpe.splitting.unicode import expansions, folded, named_set

_DEEPEST = 60
_MOST_REPEATS = 100_000
_LINE_FEED = span(10, 10)
_NEWLINES = union(span(10, 13), span(0x85, 0x85), span(0x2028, 0x2029))
_QUANTIFIER = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")
_UNUSUAL_SPACES = tuple("\x0b\x0c\x85\u200e\u200f\u2028\u2029")
_NO_CAPTURES = "write the part without referring to another"
_UNSUPPORTED = (
    ("(?(", "a conditional", "write its cases as alternatives"),
    ("(?~", "an absent operator", "write a negated class or a look-ahead"),
    ("(?|", "a branch reset", "write a plain group (?:...)"),
    ("(?P=", "a back reference", _NO_CAPTURES),
    ("(?P>", "recursion", _NO_CAPTURES),
    ("(?&", "recursion", _NO_CAPTURES),
    ("(?R)", "recursion or the flag R", _NO_CAPTURES),
    ("(?{", "a callout", "remove it"),
    ("(*", "a control verb or callout", "remove it"),
)
_ESCAPES = {
    "K": (r"\K, the reset of the match's beginning", "write what comes before as look-behind, (?<=...)"),
    "G": (r"\G, the end of the match before", "remove it"),
    "X": (r"\X, a grapheme cluster", r"write \P{M}\p{M}* for a character with its marks"),
    "k": ("a back reference", _NO_CAPTURES),
    "g": ("recursion or a back reference", _NO_CAPTURES),
}


class _Flags(NamedTuple):
    ignore_case: bool = False
    dot_all: bool = False
    multi_line: bool = False
    extended: bool = False


def parse(text: str, dialect: Dialect) -> Node:
    """Return the tree of a pattern.

    Args:
        text: The pattern.
        dialect: The dialect of the text; a "literal" is the text to find.

    Raises:
        InputError: When the pattern is not valid, or has a construct that cannot be matched exactly as in the engine.
    """
    if dialect == "literal":
        return sequence([Chars(span(ord(c), ord(c)), c) for c in text])
    return _Parser(text, SYNTAXES[dialect]).parse()


class _Parser(Scanner):
    """The state of parsing: position, flags, and literal characters since the last other construct."""

    def __init__(self, text: str, syntax: Syntax) -> None:
        super().__init__(text, syntax)
        self.flags = _Flags()
        self.depth = 0
        self.literals: list[Set] = []
        self.looks_behind: list[bool] = []
        """Whether each look-behind around this position is negative."""
        self.names: set[str] = set()

    def parse(self) -> Node:
        """Parse the whole pattern."""
        node = self._alternatives()
        if self.rest:
            self.invalid(self.position, "a ) without its (", r"write it as \)")
        return node

    def _alternatives(self) -> Node:
        """Parse alternatives up to the end of the group, which is not skipped."""
        branches = [self._branch()]
        while self.take("|"):
            self.literals.clear()
            branches.append(self._branch())
        return choice(branches)

    def _branch(self) -> Node:
        items: list[Node] = []
        while True:
            self._skip_comments()
            if not self.rest or self.peek() in "|)":
                return sequence(items)
            at = self.position
            node = self._atom()
            if node is None:  # flags that hold until the group ends
                if self.syntax.flag_opens_group:
                    items.append(self._alternatives())
                    return sequence(items)
            else:
                items.append(self._quantified(node, at))

    def _skip_comments(self) -> None:
        """Skip comments, and with the flag x also white space."""
        while True:
            at = self.position
            if self.take("(?#"):
                end = self.text.find(")", self.position)
                if end < 0:
                    self.invalid(at, "a comment without its )", "close the comment")
                self.position = end + 1
            elif self.flags.extended and self.peek() in (
                "\x0b",
                "\x0c",
                "\x85",
                "\u200e",
                "\u200f",
                "\u2028",
                "\u2029",
            ):
                self.unsupported(at, "an unusual white-space character with the flag x", r"write \x{...}")
            elif self.flags.extended and self.peek() == "#":
                end = self.text.find("\n", at)
                self.position = len(self.text) if end < 0 else end + 1
            elif not (self.flags.extended and self.peek() in tuple(" \t\r\n") and self.next()):
                return

    def _atom(self) -> Node | None:
        """Parse what a quantifier may follow, or flags (None)."""
        at = self.position
        character = self.peek()
        if character == "(":
            return self._group()
        is_literal = character not in tuple("[.^$\\*+?")
        if not is_literal:
            self.literals.clear()
        if character == "[":
            chars = read_class(self, self.flags.ignore_case)
            return self._chars(chars, at)
        if character == "\\":
            return self._escape()
        if is_literal:
            match = _QUANTIFIER.match(self.text, at)
            if match and match[0] != "{}" and match[0] != "{,}":
                self.refuse(at, "a repetition of nothing", r"write a brace as \{")
            self.next()
            return self._literal(ord(character), at)
        self.next()
        if character == ".":
            return self._chars(ALL if self.flags.dot_all else complement(_LINE_FEED), at)
        if character == "^":
            return self._line_begin()
        if character == "$":
            return self._line_end()
        self.invalid(at, "a repetition of nothing", rf"write the character as \{character}")

    def _chars(self, chars: Set, begin: int) -> Chars:
        return Chars(chars, self.text[begin : self.position], self.flags.ignore_case)

    def _literal(self, point: int, begin: int) -> Chars:
        """Return the node of a character that stands for itself."""
        if not self.flags.ignore_case:
            self.literals.clear()
            return Chars(span(point, point), self.text[begin : self.position])
        chars = folded(self.syntax.engine, span(point, point))
        if self.syntax.has_expansions:
            self.literals.append(chars)
            self._refuse_expansions(begin)
        return Chars(chars, self.text[begin : self.position], ignore_case=len(chars) > 2 or chars[0] != chars[1])

    def _refuse_expansions(self, begin: int) -> None:
        """Refuse literal characters that Oniguruma also matches by another number of characters."""
        single, sequences = expansions()
        found = bool(intersection(self.literals[-1], single))
        for text in sequences:
            last = self.literals[-len(text) :]
            if len(last) == len(text):
                found = found or all(intersection(one, span(ord(c), ord(c))) for one, c in zip(last, text, strict=True))
        if found:
            self.unsupported(
                begin,
                "text without regard to case that also matches a single character for several, such as U+00DF for 'ss'",
                "write both cases as classes, such as [sS][sS]",
            )

    def _line_begin(self) -> Node:
        if not self.syntax.lines and not self.flags.multi_line:
            return Edge(behind=True)
        after_feed: Node = Look(Chars(_LINE_FEED, r"\n"), behind=True, negative=False)
        if self.syntax.lines:  # not after the line feed that ends the text
            after_feed = sequence([after_feed, Look(Chars(ALL, "(?m:.)"), behind=False, negative=False)])
        return Choice((Edge(behind=True), after_feed))

    def _line_end(self) -> Node:
        if not self.syntax.lines and not self.flags.multi_line:
            return Edge(behind=False)
        return Choice((Edge(behind=False), Look(Chars(_LINE_FEED, r"\n"), behind=False, negative=False)))

    def _escape(self) -> Node:
        at = self.position
        self.next()
        letter = self.peek()
        if not letter:
            self.invalid(at, "a backslash at its end", r"write a backslash as \\")
        value = read_character(self, in_class=False)
        if value is not None:
            return self._literal(value, at)
        chars = read_set(self, self.flags.ignore_case and self.syntax.folds_properties, in_class=False)
        if chars is not None:
            return self._chars(chars, at)
        if letter.isdigit():
            remedy = r"write the group's text again, or a character as \x{...}"
            self.unsupported(at, "a back reference or an octal escape", remedy)
        if letter in _ESCAPES:
            self.unsupported(at, *_ESCAPES[letter])
        self.next()
        node = self._special_escape(letter, at)
        if node is None:
            escape = "\\" + excerpt(letter)
            self.refuse(at, f"the escape {escape}, which is not known", "write the character without the backslash")
        return node

    def _special_escape(self, letter: str, at: int) -> Node | None:
        r"""Return the node of an escape such as ``\b``, if there is one."""
        if letter in "bB":
            if self.peek() == "{" and self.syntax.engine == "tiktoken":
                self.unsupported(at, rf"the kind of word boundary \{letter}{{...}}", r"write \b and look-around")
            word = named_set(self.syntax.engine, r"\b")
            assert word is not None
            return WordBoundary(word, negative=letter == "B")
        if letter == "A":
            return Edge(behind=True)
        if letter in "zZ" and self.looks_behind and not self.syntax.looks_in_look_behind:
            self.invalid(at, f"\\{letter} in a look-behind", "write it after the look-behind")
        if letter == "z":
            return Edge(behind=False)
        if letter == "Z":
            feed = Chars(_LINE_FEED, r"\n")
            if self.syntax.line_end_at_end == "one":
                before = sequence([feed, Edge(behind=False)])
                return Choice((Edge(behind=False), Look(before, behind=False, negative=False)))
            before = sequence([Repeat(feed, 0, None, "greedy"), Edge(behind=False)])
            return Look(before, behind=False, negative=False)
        if letter == "R":
            pair = sequence([Chars(span(13, 13), r"\r"), Chars(_LINE_FEED, r"\n")])
            return Atomic(Choice((pair, Chars(_NEWLINES, r"[\n-\r\x{85}\x{2028}\x{2029}]"))))
        if letter == "N" and self.peek() != "{":
            return self._chars(complement(_LINE_FEED), at)
        if letter == "O":
            return self._chars(ALL, at)
        return None

    def _group(self) -> Node | None:
        """Parse a group from its parenthesis on; None if there are only flags in it."""
        at = self.position
        for opening, construct, remedy in _UNSUPPORTED:
            if self.text.startswith(opening, at):
                self.unsupported(at, construct, remedy)
        for opening, behind, negative in (("(?=", 0, 0), ("(?!", 0, 1), ("(?<=", 1, 0), ("(?<!", 1, 1)):
            if self.take(opening):
                return self._look(at, bool(behind), bool(negative))
        if self.take("(?>"):
            item = self._inside(at, self.flags)
            if isinstance(item, Repeat) and item.mode == "greedy":
                return item._replace(mode="possessive")
            return Atomic(item)
        if self.take("(?:"):
            return self._inside(at, self.flags)
        if self._take_name(at) or not self.text.startswith("(?", at):
            if any(self.looks_behind) and not self.syntax.looks_in_look_behind:
                self.invalid(at, "a capturing group in a negative look-behind", "write it as (?:...)")
            self.position += self.position == at
            return self._inside(at, self.flags)
        self.position += 2
        return self._flag_group(at)

    def _look(self, begin: int, behind: bool, negative: bool) -> Look:
        """Parse the inside of look-ahead or look-behind."""
        if self.looks_behind and not self.syntax.looks_in_look_behind:
            self.unsupported(begin, "look-around within look-behind", "write it outside of the look-behind")
        self.literals.clear()
        if behind:
            self.looks_behind.append(negative)
        item = self._inside(begin, self.flags)
        if behind:
            self.looks_behind.pop()
            try:
                by_length(item)
            except UnlimitedLookBehind as error:
                self.unsupported(begin, str(error), "write it with fixed lengths, such as (?<=a|bc)")
        self.literals.clear()
        return Look(item, behind, negative)

    def _inside(self, begin: int, flags: _Flags) -> Node:
        """Parse the inside of a group and its closing parenthesis."""
        outer, self.flags = self.flags, flags
        self.depth += 1
        if self.depth > _DEEPEST:
            self.refuse(begin, f"groups nested deeper than {_DEEPEST}", "write the pattern with fewer groups")
        node = self._alternatives()
        if not self.take(")"):
            self.invalid(begin, "a ( without its )", r"close the group, or write the character as \(")
        self.depth -= 1
        self.flags = outer
        return node

    def _take_name(self, begin: int) -> bool:
        """Skip the beginning of a named group, and return whether there is one."""
        for opening in self.syntax.named_groups:
            if self.text.startswith(opening, begin) and self.text[begin + len(opening) :][:1] not in ("=", "!"):
                end = self.text.find(">", begin)
                name = self.text[begin + len(opening) : max(end, 0)]
                if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name in self.names:
                    self.refuse(begin, "a group whose name is taken or not plain", "write a plain group (?:...)")
                self.names.add(name)
                self.position = end + 1
                return True
        return False

    def _flag_group(self, begin: int) -> Node | None:
        """Parse ``(?i)`` or ``(?i:...)`` after the question mark."""
        flags, on, count = self.flags, True, 0
        while self.rest and self.peek() not in ":)":
            letter = self.next()
            meaning = self.syntax.flags.get(letter)
            if letter == "-" and on and self.peek() not in ("", ":", ")"):
                on = False
            elif meaning == "nothing" and on:
                count += 1
            elif meaning and meaning != "nothing":
                flags = flags._replace(**{meaning: on})
                count += 1
            else:
                known = ", ".join(self.syntax.flags)
                self.refuse(begin, "an unknown group or flag", f"use (?:...) or the flags {known}")
        if not count or not self.rest:
            self.invalid(begin, "a group without flags", "write (?:...)")
        if self.next() == ":":
            return self._inside(begin, flags)
        self.flags = flags
        return None

    def _quantified(self, node: Node, begin: int) -> Node:
        """Parse the quantifiers that follow a node."""
        self._skip_comments()
        at = self.position
        match = self._quantifier()
        if match is None:
            return node
        self.literals.clear()
        self._check_target(node, at)
        low, high = self._bounds(match, at)
        if high is None and self.syntax.engine == "tiktoken" and may_be_empty(node) and not tries_empty_last(node):
            # tiktoken's two engines differ: one leaves a loop after an empty round, the other tries the alternatives.
            self.unsupported(
                at,
                "a repetition of a part that may match nothing before its other alternatives",
                "write the part so that it matches at least one character",
            )
        if high is None:
            self._check_rounds(node, at)
        braces = match[0][0] == "{"
        self._skip_comments()
        suffix = self.peek() if self.peek() in ("?", "+") else ""
        self.position += len(suffix)
        self._skip_comments()
        if self._quantifier() is not None:
            self.refuse(at, "a repetition of a repetition", "put the inner one into a group, (?:a+)*")
        if braces and not self.syntax.possessive_braces:
            if suffix == "+":
                inner = Repeat(node, low, high, "greedy")
                self._check_rounds(inner, at)
                return Repeat(inner, 1, None, "greedy")
            if suffix == "?" and low == high:
                if match[2]:
                    self.unsupported(at, "{n,n}?", "write {n}")
                return Repeat(Repeat(node, low, high, "greedy"), 0, 1, "greedy")
        mode: Mode = "lazy" if suffix == "?" else "possessive" if suffix == "+" else "greedy"
        return Repeat(node, low, high, mode)

    def _quantifier(self) -> re.Match[str] | None:
        """Skip a quantifier without its suffix, and return it."""
        match = _QUANTIFIER.match(self.text, self.position)
        if match is None or match[0] == "{}" or (match[0] == "{,}" and not self.syntax.possessive_braces):
            return None
        self.position = match.end()
        return match

    def _bounds(self, match: re.Match[str], at: int) -> tuple[int, int | None]:
        """Return the lowest and the highest number of repeats."""
        if match[0] in "*+?":
            return int(match[0] == "+"), 1 if match[0] == "?" else None
        if max(len(match[1]), len(match[3])) > 9 or max(int(match[1] or 0), int(match[3] or 0)) > _MOST_REPEATS:
            self.refuse(at, f"more than {_MOST_REPEATS} repeats", "write fewer, or * or +")
        low = int(match[1] or 0)
        high = low if not match[2] else int(match[3]) if match[3] else None
        if high is not None and low > high:
            self.refuse(at, "a repetition with its limits in the wrong order", "swap the two numbers")
        return low, high

    def _check_target(self, node: Node, at: int) -> None:
        """Refuse a repetition of what matches no text."""
        any_part = self.syntax.engine == "tokenizers"
        if node == EMPTY or _is_condition(node, any_part):
            self.unsupported(at, "a repetition of a condition that matches no text", "remove the repetition")

    def _check_rounds(self, node: Node, at: int) -> None:
        """Refuse to repeat a node without a limit if the compiler cannot know whether a round has matched text."""
        if may_be_empty(node) and ends_in_atomic(node):
            self.unsupported(
                at,
                "a repetition of an atomic group or possessive repetition that may match nothing",
                "write the group so that it matches at least one character",
            )


def _is_condition(node: Node, any_part: bool) -> bool:
    """Return whether a node is a condition, or alternatives all of which are (or any, if `any_part`)."""
    if isinstance(node, Choice):
        return (any if any_part else all)(_is_condition(item, any_part) for item in node.items)
    return isinstance(node, (Look, Edge, WordBoundary))

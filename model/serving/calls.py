"""Calls of tools in the text of an answer, recognised while it is written, in the formats of the model families."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import regex

_NAME = r'"((?:[^"\\]|\\.){1,64})"'
_HEAD = regex.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*' + _NAME + r'\s*,\s*"(?:arguments|parameters)"\s*:\s*\{'
)
"""The beginning of a call, up to the brace of its arguments."""
_LONGEST_HEAD = 400  # characters, of which white space may be some


@dataclass(frozen=True)
class CallFormat:
    """How the models of a family write calls: as JSON objects with a name and arguments, between marks."""

    name: str
    begin: str
    """The mark before a call; "" if the answer itself begins with the JSON object."""
    end: str
    """The mark behind a call; "" if there is none."""
    key: str = "arguments"
    """The name of the field with the arguments, as the family writes it."""
    opening: str = ""
    """What the family writes between the mark and the object."""
    closing: str = ""
    """What the family writes between the object and the mark behind it."""
    id_length: int = 24
    """Characters of the id of a call, which some chat templates check."""

    def new_id(self) -> str:
        """Return a new id for a call."""
        prefix = "call_" if self.id_length > 9 else ""
        return prefix + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(self.id_length))


TAGGED = CallFormat("tagged", "<tool_call>", "</tool_call>", opening="\n", closing="\n")
"""Qwen 2.5 and 3, Hermes, SmolLM."""
BARE = CallFormat("bare", "", "", key="parameters")
"""Llama 3.1 to 3.3."""
LISTED = CallFormat("listed", "[TOOL_CALLS]", "", opening=" [", closing="]", id_length=9)
"""Mistral, up to version 7 of its tokenizer."""


def format_in(template: str) -> CallFormat | None:
    """Return the format of calls that a chat template writes; None if it is none of these.

    Args:
        template: The source of the template.
    """
    if "<tool_call>" in template and "<function=" not in template and "<arg_key>" not in template:
        return TAGGED
    if "[TOOL_CALLS]" in template and "[ARGS]" not in template and "[CALL_ID]" not in template:
        return LISTED
    if re.search(r'\\?"parameters\\?"\s*:', template) and ("<|python_tag|>" in template or "ipython" in template):
        return BARE
    return None


class Piece(NamedTuple):
    """A piece of an answer: text, or a part of a call."""

    text: str
    """Text of the answer; for a call, of its arguments."""
    call: int | None = None
    """The number of the call; None for text."""
    name: str | None = None
    """The name of the tool, with which a call begins."""


class CallReader:
    """Divides the text of an answer into text and calls, however it is cut.

    Text that may be the beginning of a call is held back. What begins like a call but is none, because it is no JSON or
    calls no tool that there is, is text.

    Args:
        format: The format of the model family.
        names: The names of the tools.
        is_single: Whether the answer ends with its first call.
        is_begun: Whether the mark before the first call, and what the format writes behind it, is in the prompt.
    """

    def __init__(
        self, format: CallFormat, names: Collection[str], *, is_single: bool = False, is_begun: bool = False
    ) -> None:
        self.calls = 0
        """The number of calls that have begun."""
        self.is_finished = False
        """Whether the answer has ended, because its first call is complete."""
        self._format, self._names, self._is_single = format, frozenset(names), is_single
        self._text = ""  # not yet returned
        self._read = self._head if is_begun or not format.begin else self._content
        self._is_marked = not is_begun and bool(format.begin)  # whether the mark is in the answer
        self._said = False
        self._depth, self._in_string, self._escaped = 0, False, False

    def feed(self, text: str) -> list[Piece]:
        """Take the next piece of the answer, and return what is now certain."""
        self._text += text
        return list(self._pieces(is_end=False))

    def flush(self) -> list[Piece]:
        """Return what is held back at the end of the answer."""
        return list(self._pieces(is_end=True))

    def _pieces(self, is_end: bool) -> Iterator[Piece]:
        while not self.is_finished:
            before = (self._read, len(self._text))
            yield from self._read(is_end)
            if (self._read, len(self._text)) == before:
                return

    def _content(self, is_end: bool) -> Iterator[Piece]:
        """Read text up to the mark of a call."""
        begin = self._format.begin
        place = self._text.find(begin) if begin else -1
        if place >= 0:
            text, self._text = self._text[:place], self._text[place + len(begin) :]
            if text.strip() or self._said:
                yield Piece(text)
            self._read, self._is_marked = self._head, True
            return
        safe = len(self._text) if is_end else len(self._text) - _overlap(self._text, begin)
        text = self._text[:safe]
        if not (self._said or is_end or text.strip()):
            return  # white space at the beginning, perhaps before a call
        if text:
            self._said, self._text = True, self._text[safe:]
            yield Piece(text)

    def _head(self, is_end: bool) -> Iterator[Piece]:
        """Read the beginning of a call, up to its arguments."""
        text = self._text
        if self._format is LISTED:
            text = re.sub(r"^\s*\[?", lambda match: " " * len(match[0]), text)
        if self._format is BARE and not self.calls:
            text = re.sub(r"^\s*<\|python_tag\|>", lambda match: " " * len(match[0]), text)
        match = _HEAD.match(text)
        if match:
            name = _unescaped(match[1])
            if name in self._names:
                self._text = self._text[match.end() - 1 :]
                self._read, self._depth, self._in_string, self._escaped = self._value, 0, False, False
                self.calls += 1
                yield Piece("", self.calls - 1, name)
                return
        elif not is_end and len(text) < _LONGEST_HEAD and self._may_begin(text):
            return
        yield from self._other_order(is_end)

    def _may_begin(self, text: str) -> bool:
        """Return whether text may be the beginning of a call."""
        if self._format is BARE and not self.calls and "<|python_tag|>".startswith(text.strip()):
            return True
        return _HEAD.fullmatch(text, partial=True) is not None

    def _other_order(self, is_end: bool) -> Iterator[Piece]:
        """Read a call between two marks that does not begin with its name, once it is complete; or take it for text."""
        end = self._format.end
        place = self._text.find(end) if end else -1
        if place < 0 and end and not is_end:
            return
        call = _parsed(self._text[:place], self._names) if place >= 0 else None
        if call is None:
            mark = self._format.begin if self._is_marked else ""
            self._read, self._said = self._plain if not self._format.begin else self._content, True
            if mark:
                yield Piece(mark)
            return
        self._text = self._text[place + len(end) :]
        self.calls += 1
        yield Piece("", self.calls - 1, call[0])
        yield Piece(call[1], self.calls - 1)
        self._close()

    def _plain(self, is_end: bool) -> Iterator[Piece]:
        """Read an answer that has no calls, or none any more."""
        if self._text:
            text, self._text = self._text, ""
            yield Piece(text)

    def _value(self, is_end: bool) -> Iterator[Piece]:
        """Read the arguments of a call, up to the brace that closes them."""
        for place, character in enumerate(self._text):
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._in_string = False
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    text, self._text = self._text[: place + 1], self._text[place + 1 :]
                    self._read = self._tail
                    yield Piece(text, self.calls - 1)
                    return
        text, self._text = self._text, ""
        if text:
            yield Piece(text, self.calls - 1)

    def _tail(self, is_end: bool) -> Iterator[Piece]:
        """Read what closes a call behind its arguments."""
        end = self._format.end
        place = self._text.find(end or "}")
        if place >= 0:
            self._text = self._text[place + len(end or "}") :]
            self._close()
        elif is_end:
            self._text = ""
        yield from ()

    def _close(self) -> None:
        self._read = self._between
        self.is_finished = self._is_single

    def _between(self, is_end: bool) -> Iterator[Piece]:
        """Read what follows a call: white space and another call, or text."""
        rest = self._text.lstrip(" \t\r\n;,]" if not self._format.end else None)
        begin = self._format.begin if self._format.end else ""
        if rest and not begin:
            self._text, self._read, self._is_marked = rest, (self._head if rest[0] == "{" else self._plain), False
        elif rest.startswith(begin) and begin:
            self._text, self._read, self._is_marked = rest[len(begin) :], self._head, True
        elif rest and (is_end or not begin.startswith(rest)):
            self._read = self._content
        elif is_end:
            self._text = ""
        yield from ()


def _overlap(text: str, mark: str) -> int:
    """Return the number of characters at the end of a text with which a mark may begin."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-size:])), 0)


def _unescaped(text: str) -> str | None:
    try:
        name: str = json.loads(f'"{text}"')
    except ValueError:
        return None
    return name


def _parsed(text: str, names: Collection[str]) -> tuple[str, str] | None:
    """Return the name and the arguments of a call in any order of its fields; None if the text is no call."""
    try:
        call: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or call["name"] not in names:
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    return (call["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None

"""Text that knows where each of its characters comes from: from a template, from the dialog, or from code in between.

A template can do anything with the text of a message: trim, split, replace, change case, compare. To know which special
tokens of the result the template wrote, each string carries the origin of its characters through these operations. All
comparisons see the text as it is. An operation that is not followed here returns a plain string, whose origin counts as
unknown, so nothing can pass for text of the template by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

from bpe.text import without_surrogates

TEMPLATE, DATA, UNKNOWN = "t", "d", "u"

_DIRECTIVE = re.compile(r"%(?:\((\w+)\))?([sd%])")
_FIELD = re.compile(r"\{\{|\}\}|\{(\w*)\}")
_WORD = re.compile(r"\w+")


class Traced(str):
    """A string with the origin of each character.

    Args:
        text: The text.
        origin: One of `TEMPLATE`, `DATA` and `UNKNOWN` for each character, or a single one for all.
    """

    _origin: str  # not readable in a template, because the sandbox hides names with an underscore

    def __new__(cls, text: str, origin: str = UNKNOWN) -> Traced:
        traced = super().__new__(cls, text)
        traced._origin = origin * len(text) if len(origin) == 1 else origin
        return traced

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> Traced:
        return joined((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> Traced:
        return joined((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, count: SupportsIndex) -> Traced:
        return Traced(str.__mul__(self, count), self._origin * count.__index__())

    __rmul__ = __mul__

    def __getitem__(self, key: SupportsIndex | slice) -> Traced:
        return Traced(str.__getitem__(self, key), self._origin[key])

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __mod__(self, values: Any) -> str:
        text = str.__mod__(self, values)
        given = iter(values) if isinstance(values, tuple) else iter((values,))

        def value(directive: re.Match[str]) -> Any:
            name, kind = directive.groups()
            found = self[directive.start() : directive.start() + 1] if kind == "%" else None
            return found or (next(given) if name is None else values[name])

        return self._filled(_DIRECTIVE, value, text)

    def filled(self, text: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return `text`, which is ``self.format(*args, **kwargs)``, with its origin as far as it can be followed."""
        numbers = iter(range(len(args)))

        def value(field: re.Match[str]) -> Any:
            name = field[1]
            if name is None:
                return self[field.start() : field.start() + 1]
            return args[int(name or next(numbers))] if not name or name.isdecimal() else kwargs[name]

        return self._filled(_FIELD, value, text)

    def _filled(self, pattern: re.Pattern[str], value: Callable[[re.Match[str]], Any], text: str) -> str:
        pieces, done = [], 0
        try:
            for match in pattern.finditer(self):
                pieces += [self[done : match.start()], text_of(value(match))]
                done = match.end()
        except (LookupError, TypeError, StopIteration):
            return text
        result = joined([*pieces, self[done:]])
        return result if str.__eq__(result, text) else text

    # Pieces of the text

    def _piece(self, piece: str, begin: int) -> Traced:
        return self[begin : begin + len(piece)]

    def strip(self, characters: str | None = None, /) -> Traced:
        return self.lstrip(characters).rstrip(characters)

    def lstrip(self, characters: str | None = None, /) -> Traced:
        return self[len(self) - len(str.lstrip(self, characters)) :]

    def rstrip(self, characters: str | None = None, /) -> Traced:
        return self[: len(str.rstrip(self, characters))]

    def removeprefix(self, prefix: str, /) -> Traced:
        return self[len(self) - len(str.removeprefix(self, prefix)) :]

    def removesuffix(self, suffix: str, /) -> Traced:
        return self[: len(str.removesuffix(self, suffix))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._placed(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._placed(str.rsplit(self, sep, maxsplit), sep)

    def _placed(self, pieces: list[str], sep: str | None) -> list[str]:
        placed: list[str] = []
        begin = 0
        for piece in pieces:
            if sep is None:  # only white space stands before a piece, so its first occurrence is the right one
                begin = str.index(self, piece, begin)
            placed.append(self._piece(piece, begin))
            begin += len(piece) + len(sep or "")
        return placed

    def splitlines(self, keepends: bool = False) -> list[str]:
        lines: list[str] = []
        begin = 0
        for line, whole in zip(str.splitlines(self), str.splitlines(self, True), strict=True):
            lines.append(self._piece(whole if keepends else line, begin))
            begin += len(whole)
        return lines

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        return self._in_three(*str.partition(self, sep))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        return self._in_three(*str.rpartition(self, sep))

    def _in_three(self, first: str, sep: str, last: str) -> tuple[str, str, str]:
        end = len(first) + len(sep)
        return self[: len(first)], self[len(first) : end], self._piece(last, end)

    # New texts

    def join(self, items: Iterable[str], /) -> str:
        pieces: list[str] = []
        for item in items:
            pieces += [self, item]
        return joined(pieces[1:])

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        if not old:
            return str.replace(self, old, new, count)
        between = new if isinstance(new, Traced) else Traced(new)
        return between.join(self.split(old, count))

    def _in_case(self, change: Callable[[str], str]) -> str:
        """Return the text in another case. Each character becomes one or several."""
        text = change(self)
        if len(text) == len(self):
            return Traced(text, self._origin)
        pieces = [change(str.__getitem__(self, index)) for index in range(len(self))]
        if "".join(pieces) != text:
            return text
        return Traced(text, "".join(len(piece) * origin for piece, origin in zip(pieces, self._origin, strict=True)))

    def upper(self) -> str:
        return self._in_case(str.upper)

    def lower(self) -> str:
        return self._in_case(str.lower)

    def casefold(self) -> str:
        return self._in_case(str.casefold)

    def swapcase(self) -> str:
        return self._in_case(str.swapcase)

    def title(self) -> str:
        return self._in_case(str.title)

    def capitalize(self) -> str:
        return self._in_case(str.capitalize)


def origin_of(text: str) -> str:
    """Return the origin of each character: of a plain string, unknown."""
    return text._origin if isinstance(text, Traced) else UNKNOWN * len(text)


def joined(pieces: Iterable[str]) -> Traced:
    """Return the pieces as one text."""
    pieces = list(pieces)
    return Traced("".join(pieces), "".join(map(origin_of, pieces)) or UNKNOWN)


def text_of(value: Any) -> str:
    """Return the text that a template writes for a value."""
    return value if isinstance(value, str) else written(str(value), value)


def written(text: str, value: Any) -> str:
    """Return a text that writes a value, such as JSON. It is the dialog's if all strings of the value are.

    Words of the template, such as the names of fields, may be among them: they hold no special token.
    """
    origins = set(_origins(value))
    return Traced(text, DATA) if origins == {DATA} else text


def _origins(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        word = set(origin_of(value)) == {TEMPLATE} and _WORD.fullmatch(value)
        yield from DATA if word else origin_of(value)
    elif isinstance(value, Mapping):
        yield DATA
        for pair in value.items():
            yield from _origins(pair)
    elif isinstance(value, (list, tuple)):
        yield DATA
        for item in value:
            yield from _origins(item)


def traced(value: Any, origin: str) -> Any:
    """Return JSON values in which each string has an origin."""
    if isinstance(value, str):
        return Traced(value, origin)
    if isinstance(value, dict):
        return {traced(key, origin): traced(item, origin) for key, item in value.items()}
    if isinstance(value, list):
        return [traced(item, origin) for item in value]
    return value


def without_surrogates_traced(text: Traced) -> Traced:
    """Return the text as `bpe.text.without_surrogates` does, with its origin."""
    if str(text).isascii():
        return text
    pieces, done = [], 0
    for pair in re.finditer("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]", text):
        origins = set(origin_of(text)[pair.start() : pair.end()])
        origin = origins.pop() if len(origins) == 1 else DATA if DATA in origins else UNKNOWN
        pieces += [text[done : pair.start()], Traced(without_surrogates(pair[0]), origin)]
        done = pair.end()
    return joined([*pieces, text[done:]])

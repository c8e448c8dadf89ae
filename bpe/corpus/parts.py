"""What a source is made of, and what reading it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Union

from bpe import _core
from bpe.errors import InputError
from bpe.text import without_surrogates

Text = Union[bytes, memoryview]
State = dict[str, Any]  # where to go on, of plain values


class Part(NamedTuple):
    """Some of the text of a feed, whole documents or pieces of one."""

    texts: list[Text]
    documents: int  # that end in this part
    size: int  # of the texts, in bytes
    state: State | None  # what follows begins there; None: nothing does
    read: int  # bytes of the file so far, as they are on disk


@dataclass(frozen=True)
class Options:
    """How to read."""

    field: str = "text"
    separator: bytes | None = None
    cut: Callable[[Text], int] | None = None
    block: int = 4 << 20  # how much of a file is looked at at once, in bytes


class Invalid(NamedTuple):
    """What in a file is not UTF-8."""

    name: str
    sequences: int  # that are malformed, each of which is one U+FFFD where they are replaced
    first: str  # the place of the first, such as "byte 17"


class Cleaner:
    """Makes well-formed UTF-8 of what one feed holds, and counts what it was not.

    errors: "replace" (by U+FFFD, as Python's decoder does), "ignore", "strict", or "keep": nothing is looked at.
    """

    def __init__(self, name: str, errors: str, state: State | None = None) -> None:
        self.name = name
        self.count, self.first = (state or {}).get("invalid", (0, ""))
        self._errors = errors

    def clean(self, text: Text, *, start: int = 0, place: str = "") -> Text:
        """place: where the text stands, for messages; by default the byte is named, where `start` is the first."""
        if self._errors == "keep" or (invalid := _core.invalid_utf8(text)) == len(text):
            return text
        place = place or f"byte {start + invalid}"
        if self._errors == "strict":
            raise InputError(f"{self.name}: {place} is not UTF-8; convert it, or let errors be 'replace' or 'ignore'")
        self.first = self.first or place
        text, count = _core.replace_invalid_utf8(text, "\ufffd".encode() if self._errors == "replace" else b"")
        self.count += count
        return text

    @property
    def state(self) -> State:
        return {"invalid": [self.count, self.first]} if self.count else {}

    @property
    def found(self) -> Invalid:
        return Invalid(self.name, self.count, self.first)


class Feed:
    """A file, stdin, or an iterable of documents: what sources come down to."""

    name: str
    size: int | None = 0  # in bytes on disk, None if that is not known
    ahead = True  # another thread may read it
    identity: State  # what tells it from another one

    def parts(self, options: Options, cleaner: Cleaner, state: State | None = None) -> Iterator[Part]:
        """The text after `state`, which is that of an earlier part.

        Raises:
            InputError: it cannot be read as what it should be, or `state` is not one of this feed's.
            OSError: it cannot be read.
        """
        raise NotImplementedError


def as_bytes(document: object) -> Text:
    """The bytes of a document; pairs of surrogates are joined, lone ones become U+FFFD."""
    if isinstance(document, bytes):
        return document
    if isinstance(document, str):
        try:
            return document.encode()
        except UnicodeEncodeError:
            return without_surrogates(document).encode()
    if isinstance(document, memoryview):
        return document.cast("B")
    raise InputError(f"a document is str or bytes, not {type(document).__name__}")

"""Feeds: the common form of every source of text, how a feed is read, and what reading it yields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Union

from bpe import _core
from bpe.errors import InputError
from bpe.text import without_surrogates

TextBytes = Union[bytes, memoryview]
FeedState = dict[str, Any]  # where to resume in a feed: plain values, which JSON can hold


class TextPart(NamedTuple):
    """A part of the text of a feed: whole documents, or pieces of one document."""

    texts: list[TextBytes]
    documents: int
    """How many documents end in this part."""
    size: int
    """Size of the texts, in bytes."""
    state: FeedState | None
    """Where the next part begins; None after the last part."""
    read: int
    """Bytes of the file that have been read so far, as stored on disk."""


@dataclass(frozen=True)
class ReadOptions:
    """How to read a feed.

    Attributes:
        field: The key or column that holds the text of a document.
        separator: What separates the documents of a text file; None if a file is one document.
        cut: Returns how many bytes of a text can be counted on their own, whatever text follows.
        block: How much of a file to process at once, in bytes.
    """

    field: str = "text"
    separator: bytes | None = None
    cut: Callable[[TextBytes], int] | None = None
    block: int = 4 << 20


class Invalid(NamedTuple):
    """The bytes of a feed that are not UTF-8."""

    name: str
    """The name of the feed."""
    sequences: int
    """How many malformed sequences there are. Each becomes one U+FFFD if they are replaced."""
    first: str
    """The place of the first one, such as "byte 17"."""


class Cleaner:
    """Makes the text of one feed well-formed UTF-8, and counts the malformed sequences.

    Args:
        name: The name of the feed, for messages.
        errors: "replace" by U+FFFD as Python's decoder does, "ignore", "strict", or "keep", which checks nothing.
        state: The state of an earlier part, whose counts are continued.
    """

    def __init__(self, name: str, errors: str, state: FeedState | None = None) -> None:
        self.name = name
        self.count, self.first = (state or {}).get("invalid", (0, ""))
        self._errors = errors

    def clean(self, text: TextBytes, *, start: int = 0, place: str = "") -> TextBytes:
        """Return the text as well-formed UTF-8.

        Args:
            text: The text to clean.
            start: Offset of the text in the feed, for messages that name a byte.
            place: The place of the text for messages, in place of a byte.

        Raises:
            InputError: When the text is malformed and errors are "strict".
        """
        if self._errors == "keep" or (invalid := _core.invalid_utf8(text)) == len(text):
            return text
        place = place or f"byte {start + invalid}"
        if self._errors == "strict":
            raise InputError(
                f"{self.name}: {place} is not UTF-8; convert the text, or set errors to 'replace' or 'ignore'"
            )
        self.first = self.first or place
        text, count = _core.replace_invalid_utf8(text, "\ufffd".encode() if self._errors == "replace" else b"")
        self.count += count
        return text

    @property
    def state(self) -> FeedState:
        """The counts as an entry of a feed's state; empty if nothing was malformed."""
        return {"invalid": [self.count, self.first]} if self.count else {}

    @property
    def found(self) -> Invalid:
        """The malformed sequences so far."""
        return Invalid(self.name, self.count, self.first)


class Feed:
    """A file, stdin, or an iterable of documents. Every source resolves to feeds.

    Attributes:
        name: The name of the feed, for messages.
        size: Bytes on disk; None if unknown.
        ahead: Whether another thread may read the feed.
        identity: Plain values that distinguish this feed from others.
    """

    name: str
    size: int | None = 0
    ahead = True
    identity: FeedState

    def parts(self, options: ReadOptions, cleaner: Cleaner, state: FeedState | None = None) -> Iterator[TextPart]:
        """Yield the text of the feed, from `state` on, which is the state of an earlier part.

        Raises:
            InputError: When the feed cannot be read as its format, or `state` does not fit it.
            OSError: When the feed cannot be read.
        """
        raise NotImplementedError


def as_bytes(document: object) -> TextBytes:
    """Return the bytes of a document. Surrogate pairs in a str are joined, and lone surrogates become U+FFFD.

    Raises:
        InputError: When the document is neither str nor bytes.
    """
    if isinstance(document, bytes):
        return document
    if isinstance(document, str):
        try:
            return document.encode()
        except UnicodeEncodeError:
            return without_surrogates(document).encode()
    if isinstance(document, memoryview):
        return document.cast("B")
    raise InputError(f"a document must be str or bytes, not {type(document).__name__}")

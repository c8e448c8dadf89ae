"""Text that arrives in pieces: ids as soon as they are certain; ids that arrive one by one: only whole characters."""

from __future__ import annotations

import codecs
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Literal, Protocol

from bpe import _core
from bpe.text import as_bytes

if TYPE_CHECKING:
    from bpe.tokenizer import Tokenizer


class StreamEncoder:
    """Encodes a text that comes in pieces. The ids of all pieces are those that `Tokenizer.encode` gives the whole.

    An id is given out when no more text can change it. What waits is seldom more than the last word, or the white space
    at the end: a pretoken that may go on; the beginning of a character; what may become an allowed special token, and
    the pretoken before it. Of pretokens longer than 64 bytes, some may wait a little longer than they would have to.
    The work is in proportion to the text, however it is cut into pieces.

    With a pattern that the core has no scanner for, all waits for the end.

    >>> from bpe import Tokenizer
    >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b" w": 256, b"or": 257, b" wor": 258}
    >>> encoder = StreamEncoder(Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={}))
    >>> encoder.feed("a wor"), encoder.feed("ld"), encoder.feed("!"), encoder.flush()
    ([97], [], [258, 108, 100], [33])
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> None:
        """The special tokens are treated as `Tokenizer.encode` does."""
        special, forbidden = tokenizer._matchers_for(allowed_special, disallowed_special)
        self._stream: _core.Stream | _WaitingStream
        if tokenizer.pattern.scanner is None:
            self._stream = _WaitingStream(tokenizer, special, forbidden)
        else:
            self._stream = _core.Stream(tokenizer._core, special, forbidden)
        self._raise_disallowed = tokenizer._raise_disallowed
        self._high = ""  # the first half of a surrogate pair, whose other half may begin the next piece

    def feed(self, piece: str | bytes) -> list[int]:
        """The ids that are certain with this piece. It may end within a character, a surrogate pair or a special token.

        Raises:
            ValueError: a disallowed special token is complete with it. It is as if the piece had not been fed. With a
                pattern that has no scanner, `flush` raises it.
        """
        high = ""
        if isinstance(piece, str):
            piece = self._high + piece
            if piece[-1:] >= "\ud800" and piece[-1] <= "\udbff":
                piece, high = piece[:-1], piece[-1]
        elif self._high:
            content = as_bytes(piece)
            if not content:
                return []
            piece = "\ufffd".encode() + content
        ids = self._stream.feed(piece)
        if isinstance(ids, str):
            self._raise_disallowed(ids)
        self._high = high
        return ids

    def flush(self) -> list[int]:
        """The ids of what is left at the end. After that a new text may begin."""
        ids = self._stream.feed(self._high)
        if isinstance(ids, str):
            self._raise_disallowed(ids)
        self._high = ""
        return ids + self._stream.flush()


class _WaitingStream:
    """What stands for `_core.Stream` where the pattern may look anywhere, so that nothing is certain before the end."""

    def __init__(
        self, tokenizer: Tokenizer, special: _core.SpecialTokens | None, forbidden: _core.SpecialTokens | None
    ) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._forbidden = forbidden
        self._text = bytearray()

    def feed(self, piece: str | bytes) -> list[int]:
        self._text += as_bytes(piece)
        return []

    def flush(self) -> list[int]:
        text, self._text = bytes(self._text), bytearray()
        if self._forbidden is not None and (found := self._forbidden.first_in(text)) is not None:
            self._tokenizer._raise_disallowed(found)
        return self._tokenizer._encode(text, self._special)


class _HasTokenBytes(Protocol):
    def decode_single_token_bytes(self, token: int, /) -> bytes: ...


class StreamDecoder:
    """Decodes ids one at a time. Bytes that begin a character wait until the rest of it has come.

    >>> from bpe import Tokenizer
    >>> ranks = {bytes([byte]): byte for byte in range(256)}
    >>> decoder = StreamDecoder(Tokenizer("bytes", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={}))
    >>> [decoder.feed(id) for id in "aé".encode()], decoder.flush()
    (['a', '', 'é'], '')
    """

    def __init__(self, tokenizer: _HasTokenBytes, errors: str = "replace") -> None:
        self._bytes_of = tokenizer.decode_single_token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def feed(self, id: int) -> str:
        """The characters that are complete now.

        Raises:
            KeyError: the vocabulary has no such id.
        """
        return self._decoder.decode(self._bytes_of(id))

    def flush(self) -> str:
        """What is left at the end: a character that was never finished, as `errors` treats it."""
        return self._decoder.decode(b"", True)


class StopStrings:
    """Text in pieces, up to the stop string that is complete first, without it; how the text is cut does not matter.

    What may be the beginning of a stop string waits for the next piece.

    >>> stops = StopStrings(["END"])
    >>> [stops.feed(piece) for piece in ("one. t", "w", "o. EN", "Dthree")], stops.stopped
    (['one. t', 'w', 'o. ', ''], True)
    """

    def __init__(self, stops: Collection[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False
        """Whether a stop string has come; nothing comes out after it."""

    def feed(self, piece: str) -> str:
        """The text that is certain now."""
        if self.stopped:
            return ""
        text = self._held + piece
        ends = [(text.index(stop) + len(stop), -len(stop)) for stop in self._stops if stop in text]
        if ends:
            self.stopped, self._held = True, ""
            end, minus_length = min(ends)
            return text[: end + minus_length]
        safe = len(text) - self._unfinished(text)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """What is left at the end: the beginning of a stop string that was never finished."""
        text, self._held = self._held, ""
        return text

    def _unfinished(self, text: str) -> int:
        """How many characters at the end of `text` begin a stop string."""
        longest = min(len(text), max((len(stop) - 1 for stop in self._stops), default=0))
        for count in range(longest, 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self._stops):
                return count
        return 0

"""Encoding and decoding of a stream: text in pieces to ids, ids one at a time to text, and text up to a stop string."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from bpe import _core
from bpe.special import as_set, raise_disallowed
from bpe.text import as_bytes

if TYPE_CHECKING:
    from bpe.tokenizer import Tokenizer

_Ids = TypeVar("_Ids", list[int], bytes)


class StreamEncoder:
    """Encodes a text that arrives in pieces to the ids that `Tokenizer.encode` gives for the whole text.

    An id is returned as soon as no further text can change it. The text that is held back is rarely longer than the
    last word or the white space at the end: a pretoken that may continue, the beginning of a character, or the
    beginning of an added token together with the pretoken before it. Some pretokens longer than 64 bytes are held back
    slightly longer than necessary. The time is proportional to the length of the text, however small the pieces are.

    Where added tokens take the white space beside them or depend on the characters there, the text after the last word,
    number or line that ends beside no such token is held back.

    With a pattern, or a normalizer, for which no place is known where a text can be cut, and with a vocabulary that
    another library encodes, all of the text is held back until `flush`.

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
        """
        Args:
            tokenizer: The tokenizer to encode with.
            allowed_special: As in `Tokenizer.encode`.
            disallowed_special: As in `Tokenizer.encode`.

        Raises:
            TypeError: As in `Tokenizer.encode`.
        """
        disallowed_special = as_set(disallowed_special)
        forbidden = tokenizer.special_matchers.disallowed(allowed_special, disallowed_special)
        added = tokenizer.special_matchers.allowed(allowed_special)
        self._name = tokenizer.name
        self._stream: _core.Stream | _WaitingStream
        if tokenizer.vocabulary.library is not None:
            self._stream = _WaitingStream(tokenizer, allowed_special, disallowed_special)
        else:
            self._stream = _core.Stream(tokenizer.vocabulary.encoder, added, forbidden)
        self._high = ""  # the first half of a surrogate pair, whose other half may begin the next piece

    def __repr__(self) -> str:
        return f"<StreamEncoder of {self._name!r}>"

    def feed(self, piece: str | bytes) -> list[int]:
        """Encode the next piece, and return the ids that are now certain.

        Args:
            piece: The next piece of the text. It may end inside a character, a surrogate pair or a special token.

        Raises:
            ValueError: When a disallowed special token is complete with this piece, which then counts as not fed. With
                a vocabulary that another library encodes, `flush` raises instead.
        """
        return self._feed(piece, self._stream.feed)

    def feed_to_bytes(self, piece: str | bytes) -> bytes:
        """Encode the next piece as `feed` does, and return the ids that are now certain in packed form.

        Args:
            piece: As for `feed`.

        Returns:
            The ids as little-endian integers of 32 bits, for `numpy.frombuffer(ids, "<u4")`. They have the same order
            and number as those of `feed`.

        Raises:
            ValueError: As for `feed`.
        """
        return self._feed(piece, self._stream.feed_to_bytes)

    def flush(self) -> list[int]:
        """Return the remaining ids at the end of the text. The encoder can then encode another text."""
        return [*self._end(self._stream.feed), *self._stream.flush()]

    def flush_to_bytes(self) -> bytes:
        """Return the remaining ids as `flush` does, in the form of `feed_to_bytes`."""
        return self._end(self._stream.feed_to_bytes) + self._stream.flush_to_bytes()

    def _feed(self, piece: str | bytes, feed: Callable[[str | bytes], _Ids | str]) -> _Ids:
        high = ""
        if isinstance(piece, str):
            piece = self._high + piece
            if piece[-1:] >= "\ud800" and piece[-1] <= "\udbff":
                piece, high = piece[:-1], piece[-1]
        elif self._high:
            content = as_bytes(piece)
            if content:
                piece = "\ufffd".encode() + content
            else:
                piece, high = b"", self._high
        ids = feed(piece)
        if isinstance(ids, str):
            raise_disallowed(ids)
        self._high = high
        return ids

    def _end(self, feed: Callable[[str | bytes], _Ids | str]) -> _Ids:
        """Feed the half of a surrogate pair that was held back."""
        ids = feed(self._high)
        if isinstance(ids, str):
            raise_disallowed(ids)
        self._high = ""
        return ids

    def __copy__(self) -> StreamEncoder:
        """Return an independent encoder with the same text so far and the same tokenizer."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._stream = self._stream.copy()
        return twin

    def __deepcopy__(self, memo: object) -> StreamEncoder:
        return self.__copy__()


class _WaitingStream:
    """The substitute for `_core.Stream` where another library encodes: no id is certain before the end."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        allowed_special: Literal["all"] | AbstractSet[str],
        disallowed_special: Literal["all"] | Collection[str],
    ) -> None:
        self._tokenizer = tokenizer
        self._allowed: Literal["all"] | AbstractSet[str] = allowed_special
        self._disallowed: Literal["all"] | Collection[str] = disallowed_special
        self._text = bytearray()

    def feed(self, piece: str | bytes) -> list[int]:
        self._text += as_bytes(piece)
        return []

    def feed_to_bytes(self, piece: str | bytes) -> bytes:
        self.feed(piece)
        return b""

    def flush_to_bytes(self) -> bytes:
        ids = self.flush()
        return struct.pack(f"<{len(ids)}I", *ids)

    def copy(self) -> _WaitingStream:
        twin = _WaitingStream(self._tokenizer, self._allowed, self._disallowed)
        twin._text += self._text
        return twin

    def flush(self) -> list[int]:
        text, self._text = bytes(self._text), bytearray()
        return self._tokenizer.encode(text, allowed_special=self._allowed, disallowed_special=self._disallowed)


class _HasTokenBytes(Protocol):
    def decode_single_token_bytes(self, token: int, /) -> bytes: ...


class StreamDecoder:
    """Decodes ids one at a time. The bytes of an incomplete character are held back until the rest arrives.

    The space that a SentencePiece model puts in front of a text is kept, unlike in `Tokenizer.decode`, because the ids
    may continue another text.

    >>> from bpe import Tokenizer
    >>> ranks = {bytes([byte]): byte for byte in range(256)}
    >>> decoder = StreamDecoder(Tokenizer("bytes", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={}))
    >>> [decoder.feed(id) for id in "aé".encode()], decoder.flush()
    (['a', '', 'é'], '')
    """

    def __init__(self, tokenizer: _HasTokenBytes, errors: str = "replace") -> None:
        """
        Args:
            tokenizer: A `Tokenizer`, or any object with its `decode_single_token_bytes`.
            errors: What to do with bytes that are not UTF-8, as in `bytes.decode`. Default: replace them by U+FFFD.
        """
        self._errors = errors
        self._bytes_of = tokenizer.decode_single_token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)
        self._name = getattr(tokenizer, "name", type(tokenizer).__name__)

    def __repr__(self) -> str:
        return f"<StreamDecoder of {self._name!r}>"

    def feed(self, id: int) -> str:
        """Decode the next id, and return the characters that are now complete.

        Raises:
            KeyError: When the vocabulary has no token with this id.
        """
        return self._decoder.decode(self._bytes_of(id))

    def flush(self) -> str:
        """Return what `errors` makes of an incomplete character at the end; usually an empty string."""
        return self._decoder.decode(b"", True)

    def __copy__(self) -> StreamDecoder:
        """Return an independent decoder with the same ids so far and the same tokenizer."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._decoder = codecs.getincrementaldecoder("utf-8")(self._errors)
        twin._decoder.setstate(self._decoder.getstate())
        return twin

    def __deepcopy__(self, memo: object) -> StreamDecoder:
        return self.__copy__()


class StopStrings:
    """Passes a text on in pieces, up to the first stop string and without it, however the text is cut.

    Text that may be the beginning of a stop string is held back until the next piece.

    >>> stops = StopStrings(["END"])
    >>> [stops.feed(piece) for piece in ("one. t", "w", "o. EN", "Dthree")], stops.stopped
    (['one. t', 'w', 'o. ', ''], True)
    """

    def __init__(self, stops: Collection[str]) -> None:
        """
        Args:
            stops: The stop strings. The one that is complete first ends the text.

        Raises:
            TypeError: When `stops` is a str, whose characters would be the stop strings, or holds anything but str.
        """
        self._stops = tuple(stops)
        if isinstance(stops, str) or not all(isinstance(stop, str) for stop in self._stops):
            raise TypeError("stop strings must be a list of str, also if there is only one")
        self._held = ""
        self.stopped: bool = False
        """Whether a stop string was found. After that, `feed` returns empty strings."""

    def feed(self, piece: str) -> str:
        """Take the next piece, and return the text that is now certain to precede any stop string."""
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
        """Return the text held back at the end: the beginning of a stop string that never became complete."""
        text, self._held = self._held, ""
        return text

    def _unfinished(self, text: str) -> int:
        """The number of characters at the end of `text` that begin a stop string."""
        longest = min(len(text), max((len(stop) - 1 for stop in self._stops), default=0))
        for count in range(longest, 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self._stops):
                return count
        return 0

"""The encoder of a vocabulary that another library encodes with, in the form of the core's encoder."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from importlib import import_module
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from bpe.errors import InputError
from bpe.text import as_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Buffer

    from bpe.vocabulary import AddedToken

INSTALL = "pip install 'bpe-llama[subwords]'"
Spans = list[tuple[int, int]]
_CONTINUATION = bytes(range(0x80, 0xC0))  # the bytes of UTF-8 that continue a character


def library(name: str, what: str) -> Any:
    """Import and return a library that encodes or trains a vocabulary.

    Args:
        name: The name of the package.
        what: What needs it; the message begins with it.

    Raises:
        InputError: When it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"{what} needs the package {name}: {INSTALL}") from error


class LibraryEncoder(ABC):
    """Encodes and decodes with a library, with the methods of `bpe._core.Encoder` that `bpe.Tokenizer` uses.

    A text is a str or bytes of UTF-8. Bytes that are not UTF-8 become U+FFFD, because the libraries take text only.
    The argument `added` of a method is what `matcher` returned, or None for no special tokens.
    """

    algorithm: str
    """What the library encodes by: "unigram", "wordpiece", "wordlevel", "word" or "char"."""
    package: str
    """The name of the package that encodes."""
    format: str
    """The name of the format of `content`; see `bpe.formats.TOKENIZER_FORMATS`."""
    content: bytes
    """The content of a file that the library reads, and that is written when the vocabulary is saved."""

    def __init__(self, tokens: Mapping[int, bytes], texts: Mapping[int, str], added: Iterable[AddedToken]) -> None:
        """
        Args:
            tokens: The bytes that each ordinary token stands for in a text, by id.
            texts: Each ordinary token as the library writes it, such as "▁the" or "##ing", by id.
            added: The added tokens.
        """
        self.tokens: dict[int, bytes] = dict(tokens)
        """The bytes that each ordinary token stands for in a text, by id. Two tokens may stand for the same."""
        self._texts = dict(texts)
        self._added = {token.id: token.content for token in reversed(list(added))}

    # To be defined for each library.

    @abstractmethod
    def matcher(self, allowed: AbstractSet[str]) -> Any:
        """Return what `encode` needs to recognise these special tokens in a text."""

    @abstractmethod
    def with_added(self, added: Sequence[AddedToken]) -> LibraryEncoder:
        """Return an encoder of the same tokens that knows more special tokens.

        Args:
            added: All added tokens, the new ones with the ids after the last.
        """

    @abstractmethod
    def encode_str(self, text: str, added: Any) -> list[int]:
        """Return the ids of a text without surrogates."""

    @abstractmethod
    def spans_of(self, text: str, added: Any) -> Spans:
        """Return where in the UTF-8 of a text each token begins and ends. A token may be empty there."""

    @abstractmethod
    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[np.uint32]) -> bytes:
        """Decode ids to bytes.

        Raises:
            KeyError: When an id is that of no token.
            OverflowError: When an id is negative or has more than 32 bits.
        """

    def encode_many(self, texts: Sequence[str], added: Any, threads: int) -> list[list[int]]:
        """Return what `encode_str` returns for each text, on several threads where the library has them."""
        return [self.encode_str(text, added) for text in texts]

    # As in the core.

    def encode(self, text: str | Buffer, added: Any) -> list[int]:
        """Return the ids of a text."""
        return self.encode_str(_as_str(text), added)

    def encode_to_numpy(self, text: str | Buffer, added: Any) -> npt.NDArray[np.uint32]:
        """Return the same ids as `encode`, as an array: [tokens], uint32."""
        import numpy as np

        return np.array(self.encode(text, added), dtype=np.uint32)

    def count(self, text: str | Buffer, added: Any) -> int:
        """Return the number of ids that `encode` would return."""
        return len(self.encode(text, added))

    def encode_all(
        self,
        texts: Iterable[str | Buffer],
        added: Any,
        threads: int,
        separator: str | None = None,
        short_ids: bool = False,
        out: npt.NDArray[Any] | None = None,
    ) -> tuple[Any, npt.NDArray[np.int64]]:
        """Encode many texts, or the documents in them; see `bpe._core.Encoder.encode_all`."""
        import numpy as np

        if separator is not None:
            parts = (part.strip() for text in texts for part in as_bytes(text).split(separator.encode()))
            texts = [part for part in parts if part]
        rows = self.encode_many([_as_str(text) for text in texts], added, threads)
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        size = int(offsets[-1])
        ids = np.empty(size, dtype=np.uint16 if short_ids else np.uint32) if out is None else out
        if len(ids) < size:
            raise ValueError(f"out has room for {len(ids)} ids, but there are {size}")
        ids[:size] = [id for row in rows for id in row]
        return (ids if out is None else size), offsets

    def lists(self, ids: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64]) -> list[list[int]]:
        """Return the ids of each text as a list."""
        places: list[int] = offsets.tolist()
        return [ids[begin:end].tolist() for begin, end in zip(places, places[1:], strict=False)]

    def encode_with_places(self, text: str | Buffer, added: Any, in_characters: bool) -> tuple[list[int], Spans]:
        """Return the ids of a text, and where in it each begins and ends, in bytes or in characters."""
        content = as_bytes(text)
        spans = self.spans(content, added)
        if in_characters:
            begun = list(accumulate(int(byte not in _CONTINUATION) for byte in content))  # characters, up to each byte
            begun = [0, *begun, (begun or [0])[-1] + 1]  # characters that have begun before each byte
            spans = [
                (begun[begin + 1] - 1, begun[end] if begin < end else begun[begin + 1] - 1) for begin, end in spans
            ]
        return self.encode(content, added), spans

    def spans(self, content: bytes, added: Any = None) -> Spans:
        """Return where each token of `encode` begins and ends in a text, in bytes. A token may be empty there."""
        text = content.decode("utf-8", "replace")
        spans = self.spans_of(text, added)
        if len(replaced := text.encode()) == len(content) and replaced == content:
            return spans
        places = _places_of(content, len(replaced))
        return [(places[begin], places[end]) for begin, end in spans]

    def decode(self, ids: Sequence[int] | npt.NDArray[np.uint32], errors: str) -> str:
        """Decode ids to text."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def bytes_of(self, id: int) -> bytes:
        """Return the bytes that a token stands for in a text.

        Raises:
            KeyError: When there is no such token.
        """
        number = operator.index(id)
        if number in self.tokens:
            return self.tokens[number]
        if number in self._added:
            return self._added[number].encode()
        raise KeyError(f"no token has the id {number}")

    token_bytes = bytes_of

    def text_of(self, id: int) -> str:
        """Return a token as the library writes it, such as "▁the" or "##ing".

        Raises:
            KeyError: When there is no such token.
        """
        return self._texts[id] if id in self._texts else self._added[id]

    def find(self, token: bytes) -> int | None:
        """Return the id of the ordinary token that stands for these bytes, or that the library writes so."""
        return self._ids.get(token)

    def token_sizes(self, count: int) -> npt.NDArray[np.uint32]:
        """Return the length of each token in bytes, by id; 0 for added tokens and unused ids. [count], uint32"""
        import numpy as np

        return np.array([len(self.tokens.get(id, b"")) for id in range(count)], dtype=np.uint32)

    def limit_cache(self, bytes: int) -> None:
        """Do nothing: the libraries' caches have limits of their own."""
        return None

    @property
    def id_limit(self) -> int:
        """The highest id plus one. Any token may come from a text, such as the one for what is unknown."""
        return max([*self.tokens, *self._added], default=-1) + 1

    @property
    def longest_token(self) -> int:
        """The length of the longest token in bytes."""
        return max(map(len, self.tokens.values()), default=0)

    @property
    def pair_count(self) -> int:
        """The number of merges, of which there are none."""
        return 0

    unreachable_count = pair_count

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        by_text = {text.encode("utf-8", "surrogatepass"): id for id, text in self._texts.items()}
        return by_text | {token: id for id, token in reversed(self.tokens.items())}

    def checked_ids(self, ids: Sequence[int] | npt.NDArray[np.uint32]) -> list[int]:
        """Return ids as a list of int.

        Raises:
            KeyError: When an id is that of no token.
            OverflowError: When an id is negative or has more than 32 bits.
        """
        numbers = [operator.index(id) for id in ids]
        for id in numbers:
            if id not in self.tokens and id not in self._added:
                if not 0 <= id < 1 << 32:
                    raise OverflowError(f"the id {id} is negative or has more than 32 bits")
                raise KeyError(f"no token has the id {id}")
        return numbers


def _as_str(text: str | Buffer) -> str:
    return as_bytes(text).decode("utf-8", "replace")


def _places_of(content: bytes, size: int) -> list[int]:
    """Where in a text each byte is from, after what is not UTF-8 in it was replaced. [size + 1]"""
    places: list[int] = []
    begin = 0
    while begin < len(content):
        try:
            content[begin:].decode()
            end, length = len(content), 0
        except UnicodeDecodeError as error:
            end, length = begin + error.start, error.end - error.start
        places += range(begin, end)
        if length:
            places += [end] * len("\ufffd".encode())
        begin = end + length
    return [*places, len(content)]

"""Text that arrives token by token: only whole characters are given out."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tokenizer import Tokenizer


class StreamDecoder:
    """Decodes ids one at a time. Bytes that begin a character wait until the rest of it has come.

    >>> from bpe import Tokenizer
    >>> ranks = {bytes([byte]): byte for byte in range(256)}
    >>> decoder = StreamDecoder(Tokenizer("bytes", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={}))
    >>> [decoder.feed(id) for id in "aé".encode()], decoder.flush()
    (['a', '', 'é'], '')
    """

    def __init__(self, tokenizer: Tokenizer, errors: str = "replace") -> None:
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


def whole_characters(pieces: Iterable[bytes]) -> Iterator[str]:
    """UTF-8 in pieces cut anywhere -> the text, in pieces of whole characters; bytes that are no UTF-8 become U+FFFD.

    >>> list(whole_characters([b"caf", b"\\xc3", b"\\xa9!", b"\\xe2"]))
    ['caf', 'é!', '\\ufffd']
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text

"""What shards are made from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import _core
from ..corpus import Position, Reader, Source, Text, read_corpus

_BLOCK = 1024 * 32  # bytes: 1,024 documents


@dataclass(frozen=True)
class Corpus:
    """Sources of documents, and how they are read; see `bpe.corpus.read_corpus`.

    sources: one, or several: a path, a glob, an address, "-" for stdin, or an iterable of str or bytes.
    errors: what becomes of bytes that are not UTF-8; by default "keep", for a vocabulary has tokens for all bytes.
    """

    sources: Source | Iterable[Source]
    field: str = "text"
    separator: str | None = None
    errors: str = "keep"
    exclude: Sequence[str] = ()

    def listed(self) -> list[Source]:
        """The sources, one by one."""
        sources: Any = self.sources
        return [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)

    def reader(self, sources: Sequence[Source], start: Position | None = None, batch_bytes: int = 1 << 20) -> Reader:
        """Reads what `listed` gave."""
        return read_corpus(
            sources,
            field=self.field,
            errors=self.errors,
            exclude=self.exclude,
            separator=self.separator,
            start=start,
            batch_bytes=batch_bytes,
        )


def digests_of(texts: Sequence[Text]) -> bytes:
    """The SHA-256 of each text, one after the other."""
    # hashlib takes more than twice as long for texts of 2 KB, but knows the instructions of more processors.
    return _core.sha256(texts) or b"".join([hashlib.sha256(text).digest() for text in texts])


def sizes_of(texts: Sequence[Text]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The bytes of each text."""
    return np.fromiter(map(len, texts), np.int64, len(texts))


@dataclass
class Tally:
    """Counts the documents of one source and hashes them, in order.

    The hash is ``h = SHA-256(h + block)`` for each 1,024 SHA-256s of documents, at the end fewer, where h begins empty.
    A plain SHA-256 of them all could not be put down and taken up again.
    """

    documents: int = 0
    size: int = 0
    """In bytes."""
    _hash: str = ""
    _rest: bytes = field(default=b"", repr=False)

    def add(self, digests: bytes, size: int) -> None:
        """More documents: the SHA-256 of each, and their bytes in all."""
        self.documents += len(digests) // 32
        self.size += size
        rest = self._rest + digests
        whole = len(rest) - len(rest) % _BLOCK
        for start in range(0, whole, _BLOCK):
            self._hash = self._chained(rest[start : start + _BLOCK])
        self._rest = rest[whole:]

    def _chained(self, block: bytes) -> str:
        return hashlib.sha256(bytes.fromhex(self._hash) + block).hexdigest()

    @property
    def sha256(self) -> str:
        """Of all documents so far."""
        return self._chained(self._rest) if self._rest or not self._hash else self._hash

    def summary(self) -> dict[str, Any]:
        """What the index says of the source."""
        return {"documents": self.documents, "bytes": self.size, "sha256": self.sha256}

    @property
    def state(self) -> list[Any]:
        """Of plain values; ``Tally.from_state`` goes on from it."""
        return [self.documents, self.size, self._hash, self._rest.hex()]

    @classmethod
    def from_state(cls, state: Sequence[Any]) -> Tally:
        documents, size, hash, rest = state
        return cls(documents, size, hash, bytes.fromhex(rest))

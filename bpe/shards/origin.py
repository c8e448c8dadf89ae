"""What shards are made from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpe.corpus import CorpusReader, CorpusSource, Position, TextBytes, read_corpus
from bpe.shards.layout import Checksums, crc32


@dataclass(frozen=True)
class ShardSources:
    """Sources of documents, and how they are read; see `bpe.corpus.read_corpus`.

    sources: one, or several: a path, a glob, an address, "-" for stdin, or an iterable of str or bytes.
    errors: what becomes of bytes that are not UTF-8; by default "keep", for a vocabulary has tokens for all bytes.
    """

    sources: CorpusSource | Iterable[CorpusSource]
    field: str = "text"
    separator: str | None = None
    errors: str = "keep"
    exclude: Sequence[str] = ()

    def listed(self) -> list[CorpusSource]:
        """The sources, one by one."""
        sources: Any = self.sources
        return [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)

    def reader(
        self, sources: Sequence[CorpusSource], start: Position | None = None, batch_bytes: int = 1 << 20
    ) -> CorpusReader:
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


def checksums_of(texts: Sequence[TextBytes]) -> Checksums:
    """The CRC-32 of each text."""
    return np.fromiter(map(crc32, texts), np.uint32, len(texts))


def sizes_of(texts: Sequence[TextBytes]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The bytes of each text."""
    return np.fromiter(map(len, texts), np.int64, len(texts))


@dataclass
class SourceTally:
    """Counts the documents of one source, in order."""

    documents: int = 0
    size: int = 0
    """In bytes."""
    crc32: int = 0
    """Of the CRC-32s of all documents, as little-endian uint32."""

    def add(self, checksums: Checksums, size: int) -> None:
        """More documents: the CRC-32 of each, and their bytes in all."""
        self.documents += len(checksums)
        self.size += size
        self.crc32 = crc32(checksums.astype("<u4").tobytes(), self.crc32)

    def summary(self) -> dict[str, int]:
        """What the index says of the source."""
        return {"documents": self.documents, "bytes": self.size, "crc32": self.crc32}

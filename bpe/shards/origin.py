"""The origin of shards: the sources that they are made from, and the counts and hashes of each source."""

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
    """Sources of documents, and how to read them; see `bpe.corpus.read_corpus`.

    Attributes:
        sources: One source, or several: a path, a glob, an address, "-" for stdin, or an iterable of str or bytes.
        field: The key or column of the text.
        separator: Text that separates the documents of a text file.
        errors: What to do with bytes that are not UTF-8. Default "keep", because a vocabulary has tokens for all bytes.
        exclude: Files and directories to skip.
    """

    sources: CorpusSource | Iterable[CorpusSource]
    field: str = "text"
    separator: str | None = None
    errors: str = "keep"
    exclude: Sequence[str] = ()

    def listed(self) -> list[CorpusSource]:
        """Return the sources as a list."""
        sources: Any = self.sources
        return [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)

    def reader(
        self, sources: Sequence[CorpusSource], start: Position | None = None, batch_bytes: int = 1 << 20
    ) -> CorpusReader:
        """Return a reader of the sources that `listed` returned."""
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
    """Return the CRC-32 of each text."""
    return np.fromiter(map(crc32, texts), np.uint32, len(texts))


def sizes_of(texts: Sequence[TextBytes]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the size of each text in bytes."""
    return np.fromiter(map(len, texts), np.int64, len(texts))


@dataclass
class SourceTally:
    """The counts and the hash of the documents of one source, added in order."""

    documents: int = 0
    size: int = 0
    """Size of the documents, in bytes."""
    crc32: int = 0
    """CRC-32 of the CRC-32s of all documents, each a little-endian uint32."""

    def add(self, checksums: Checksums, size: int) -> None:
        """Add documents, given the CRC-32 of each and their total size in bytes."""
        self.documents += len(checksums)
        self.size += size
        self.crc32 = crc32(checksums.astype("<u4").tobytes(), self.crc32)

    def summary(self) -> dict[str, int]:
        """Return the entry of the source in the index."""
        return {"documents": self.documents, "bytes": self.size, "crc32": self.crc32}

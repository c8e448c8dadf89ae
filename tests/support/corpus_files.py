"""Files of every format for tests of corpora, and helpers that read them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from bpe.corpus import TextBatch, read_corpus
from bpe.optional import first_module


def zstd_compress(content: bytes) -> bytes:
    """Return the content as a .zst file."""
    return bytes(first_module("compression.zstd", "backports.zstd").compress(content))


COMPRESSIONS = [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress), (".ZST", zstd_compress)]

TEXTS = [f"document {n} é {'x' * (n % 13)}" for n in range(40)]


def write_file(path: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content)
    return path


def json_lines(texts: list[str]) -> bytes:
    """Return the texts as JSON Lines, under the key "text"."""
    return b"".join(json.dumps({"n": n, "text": text}).encode() + b"\n" for n, text in enumerate(texts))


def parquet(path: Path, texts: list[str | None], **options: Any) -> Path:
    """Write the texts as the column "text" of a Parquet file with several row groups, and return its path."""
    table = pyarrow.table({"n": list(range(len(texts))), "text": pyarrow.array(texts, **options)})
    pyarrow.parquet.write_table(table, path, row_group_size=7)
    return path


def text_of(batches: Iterable[TextBatch]) -> bytes:
    """Return the joined text of batches."""
    return b"".join(bytes(text) for batch in batches for text in batch.texts)


def last_space(text: bytes | memoryview) -> int:
    """Return where to cut: the text before the last space can be counted on its own."""
    return max(0, bytes(text).rfind(b" "))


def resume(before: TextBatch, *arguments: Any, **options: Any) -> list[TextBatch]:
    """Return the batches after `before`, resumed from its position after a round trip through JSON."""
    return list(read_corpus(*arguments, **options, start=json.loads(json.dumps(before.position))))

"""The names, versions and hashes of a shard directory. docs/reference/shards.md specifies the files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bpe.optional import first_module

INDEX_FORMAT = "bpe-llama token shards"
INDEX_VERSION = 4
INDEX = "index.json"
TOKEN_BYTES = "token_bytes.bin"
WORK = "work"  # the subdirectory of unfinished shards
TRAIN, HELD_OUT = "train", "held_out"
SPLITS = (TRAIN, HELD_OUT)
SHARD_FILE = re.compile(r"(train|held_out)-\d{5,}\.(bin|docs)")

Ids = npt.NDArray[np.unsignedinteger[Any]]
Checksums = npt.NDArray[np.uint32]

crc32: Callable[..., int] = first_module("isal.isal_zlib", "zlib").crc32
"""Return the CRC-32 of bytes, given that of the bytes before them. It equals zlib's, which is several times slower."""


def shard_files(split: str, number: int) -> tuple[str, str]:
    """Return the names of the two files of a shard: ids, and offsets of documents."""
    return f"{split}-{number:05}.bin", f"{split}-{number:05}.docs"


def crc32_of(path: Path) -> int:
    """Return the CRC-32 of a file."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found = crc32(block, found)
    return found


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

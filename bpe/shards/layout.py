"""Names and numbers that a shard directory is known by; LAYOUT.md tells what is in the files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT = "bpe-llama token shards"
VERSION = 2
INDEX = "index.json"
TOKEN_BYTES = "token_bytes.bin"
WORK = "work"  # within the directory: shards that are being written
TRAIN, HELD_OUT = "train", "held_out"
SPLITS = (TRAIN, HELD_OUT)
BOS_TOKEN, EOS_TOKEN = "<|begin_of_text|>", "<|end_of_text|>"
SHARD_FILE = re.compile(r"(train|held_out)-\d{5,}\.(bin|docs)")

Ids = npt.NDArray[np.unsignedinteger[Any]]


def shard_files(split: str, number: int) -> tuple[str, str]:
    """The names of a shard's ids and of its documents' offsets."""
    return f"{split}-{number:05}.bin", f"{split}-{number:05}.docs"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

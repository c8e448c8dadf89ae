"""The settings that shards are written with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bpe.errors import InputError
from bpe.shards.layout import INDEX, SHARD_FILE, TOKEN_BYTES, WORK
from bpe.shards.unfinished import STATE


@dataclass(frozen=True)
class WriteOptions:
    """The options of `write_shards` that are plain numbers; see there."""

    shard_tokens: int
    held_out: float
    seed: int
    threads: int | None
    batch_bytes: int | None

    def check(self) -> None:
        """Raise InputError if an option is out of range."""
        for name, is_right, right in (
            ("shard_tokens", self.shard_tokens > 0, "positive"),
            ("held_out", 0 <= self.held_out < 1, "at least 0 and below 1"),
            ("seed", 0 <= self.seed < 1 << 64, "between 0 and 2**64 - 1"),
            ("threads", self.threads is None or self.threads > 0, "positive"),
            ("batch_bytes", self.batch_bytes is None or self.batch_bytes > 0, "positive"),
        ):
            if not is_right:
                raise InputError(f"{name} is {getattr(self, name)}; it must be {right}")


@dataclass(frozen=True)
class ShardsSettings:
    """The settings that decide what is in the files, in the order of the index. To resume, all must be equal."""

    n_vocab: int
    bos_id: int | None
    eos_id: int | None
    tokenizer_file: str
    tokenizer_sha256: str
    shard_tokens: int
    held_out: float
    seed: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of an id on disk: little-endian uint16, or uint32 for more than 65,536 ids."""
        return np.dtype("<u2" if self.n_vocab <= 1 << 16 else "<u4")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as the index holds them."""
        return asdict(self)


def check_tokenizer_file(path: Path) -> None:
    """Raise InputError if the file does not exist, or its name is that of a file of the shards."""
    if not path.is_file():
        raise InputError(f"{path}: no such tokenizer file")
    if path.name in (INDEX, TOKEN_BYTES, WORK, STATE) or SHARD_FILE.fullmatch(path.name):
        raise InputError(f"{path}: a file of the shards has the same name; rename the tokenizer file")

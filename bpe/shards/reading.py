"""Reading of shards: opens a shard directory and checks it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bpe.errors import InputError
from bpe.kinds import instead
from bpe.quoting import quoted
from bpe.shards.layout import (
    HELD_OUT,
    INDEX,
    INDEX_FORMAT,
    INDEX_VERSION,
    SHARD_FILE,
    SPLITS,
    TOKEN_BYTES,
    TRAIN,
    WORK,
    Ids,
    sha256_of,
)


class Shard(NamedTuple):
    """One shard, memory-mapped."""

    name: str
    """The name of the file with the ids."""
    ids: Ids
    """uint16 or uint32 [tokens]"""
    offsets: npt.NDArray[np.int64]
    """Document i is ``ids[offsets[i]:offsets[i + 1]]``. [documents + 1]"""
    crc32: int
    """The CRC-32 of the file with the ids, as recorded in the index."""
    documents_name: str
    """The name of the file with the offsets."""
    documents_crc32: int
    """The CRC-32 of the file with the offsets, as recorded in the index."""


class Shards:
    """A shard directory, memory-mapped: opening it reads little, whatever its size.

    Args:
        directory: The directory that `write_shards` wrote.

    Attributes:
        directory: The path of the directory.
        tokenizer_path: The path of its copy of the tokenizer.
        n_vocab: All ids are below it.
        bos_id: The token that begins each document, or None.
        eos_id: The token that ends each document, or None.
        dtype: The type of the ids on disk.
        held_out: The share of documents that were held out.
        seed: The seed that selected them.
        token_bytes: How many bytes of text each id stands for; 0 for special tokens. uint32 [n_vocab]
        fingerprint: A hash of the index. It differs for other documents, another split or another tokenizer, but does
            not depend on where the documents came from.
        corpus: The entry of the index about the sources: how they were read, and the counts, hash and files of each.

    Raises:
        InputError: When a file is missing, or does not fit the index. Only `check` reads all ids.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory: Path = Path(directory)
        path = self.directory / INDEX
        try:
            raw = path.read_bytes()
        except OSError as error:
            unfinished = (self.directory / WORK).is_dir()
            if self.directory.exists() and not unfinished:
                remedy = instead(self.directory, "shards") or "; write them with: bpe shards TEXTS -o DIR"
                raise InputError(f"{self.directory}: no token shards here{remedy}") from None
            if not self.directory.exists():
                raise InputError(
                    f"{self.directory}: no such directory; write token shards with: bpe shards TEXTS -o"
                    f" {quoted(os.fspath(self.directory))}"
                ) from None
            remedy = "writing was interrupted, run it again to resume" if unfinished else "write the shards again"
            raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
        try:
            index = json.loads(raw)
            if index["format"] != INDEX_FORMAT or index["version"] != INDEX_VERSION:
                raise InputError(
                    f"{path}: {index['format']!r} version {index['version']!r};"
                    f" expected {INDEX_FORMAT!r} version {INDEX_VERSION}"
                )
            self._read(index)
            self.fingerprint: str = _fingerprint(index)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            problem = error if type(error) is ValueError else repr(error)
            raise InputError(f"{path}: not an index of token shards ({problem}); write the shards again") from None
        self.token_bytes: npt.NDArray[Any] = self._map(TOKEN_BYTES, np.dtype("<u4"), self.n_vocab)
        self._shards = {split: [self._open(shard) for shard in shards] for split, shards in self._listed.items()}
        if not self.tokenizer_path.is_file():
            raise InputError(
                f"{self.tokenizer_path}: missing; shards cannot be decoded without their tokenizer, write them again"
            )
        if sha256_of(self.tokenizer_path) != self.tokenizer_sha256:
            raise InputError(
                f"{self.tokenizer_path}: not the tokenizer that these shards were written with; write them again"
            )

    def __repr__(self) -> str:
        counts = f"{self.token_count(TRAIN):,} tokens to train on, {self.token_count(HELD_OUT):,} held out"
        return f"<Shards {str(self.directory)!r}: {counts}, {self.n_vocab:,} ids>"

    def _read(self, index: dict[str, Any]) -> None:
        """Check and take the values of the index."""
        self.n_vocab: int = _count(index["n_vocab"])
        self.dtype: np.dtype[Any] = np.dtype({"uint16": "<u2", "uint32": "<u4"}[index["dtype"]])
        self.bos_id: int | None = _optional_id(index["bos_id"], self.n_vocab)
        self.eos_id: int | None = _optional_id(index["eos_id"], self.n_vocab)
        self.seed: int = _count(index["seed"], below=1 << 64)
        self.held_out: float = float(index["held_out"])
        self.tokenizer_sha256: str = str(index["tokenizer_sha256"])
        # A bare name, so that an index cannot point outside its directory.
        self.tokenizer_path: Path = self.directory / _name(index["tokenizer_file"])
        self.corpus: dict[str, Any] = _corpus(index["corpus"])
        self._splits = {
            split: {key: _count(index["splits"][split][key]) for key in ("tokens", "documents", "bytes")}
            for split in SPLITS
        }
        self._listed: dict[str, list[dict[str, Any]]] = {split: index["splits"][split]["shards"] for split in SPLITS}
        for split, shards in self._listed.items():
            for key, total in self._splits[split].items():
                if sum(_count(shard[key]) for shard in shards) != total:
                    raise ValueError(f"the {key} of {split} are not the sum over its shards")
            for name in (shard[key] for shard in shards for key in ("file", "documents_file")):
                if not SHARD_FILE.fullmatch(name):
                    raise ValueError(f"{name!r} is not the name of a shard")

    def _open(self, shard: dict[str, Any]) -> Shard:
        ids = self._map(shard["file"], self.dtype, shard["tokens"])
        offsets = self._map(shard["documents_file"], np.dtype("<i8"), shard["documents"] + 1)
        crc32, documents_crc32 = (_count(shard[key], below=1 << 32) for key in ("crc32", "documents_crc32"))
        return Shard(shard["file"], ids, offsets, crc32, shard["documents_file"], documents_crc32)

    def _map(self, name: str, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        path = self.directory / name
        expected = count * dtype.itemsize
        try:
            size = path.stat().st_size
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); write the shards again") from None
        if size != expected:
            raise InputError(
                f"{path}: {size:,} bytes, but the index says {expected:,}; the file is truncated or was replaced,"
                " write the shards again"
            )
        return np.memmap(path, dtype, "r") if count else np.empty(0, dtype)

    def tokens(self, split: str = TRAIN) -> list[Ids]:
        """Return the ids of each shard of "train" or "held_out", as read-only views of the files."""
        return [shard.ids for shard in self.shards(split)]

    def shards(self, split: str = TRAIN) -> list[Shard]:
        """Return the shards of a split."""
        self._known(split)
        return list(self._shards[split])

    def documents(self, split: str = TRAIN) -> Iterator[Ids]:
        """Yield the ids of each document of a split, with the tokens that begin and end it."""
        for shard in self.shards(split):
            for start, end in itertools.pairwise(shard.offsets.tolist()):
                yield shard.ids[start:end]

    def token_count(self, split: str = TRAIN) -> int:
        """Return how many tokens a split has."""
        return int(self._known(split)["tokens"])

    def document_count(self, split: str = TRAIN) -> int:
        """Return how many documents a split has."""
        return int(self._known(split)["documents"])

    def byte_count(self, split: str = TRAIN) -> int:
        """Return how many bytes of text a split was made from."""
        return int(self._known(split)["bytes"])

    def check(self) -> None:
        """Read all ids and offsets once.

        Raises:
            InputError: When an id is beyond the vocabulary, or documents are out of order.
        """
        for shard in itertools.chain(*self._shards.values()):
            for start in range(0, len(shard.ids), _CHECKED):
                ids = shard.ids[start : start + _CHECKED]
                if int(ids.max()) >= self.n_vocab:
                    position = int(np.argmax(ids >= self.n_vocab))
                    document = int(np.searchsorted(shard.offsets, start + position, side="right")) - 1
                    raise InputError(
                        f"{self.directory / shard.name}: token {start + position} is {ids[position]}, in document"
                        f" {document}, beyond the vocabulary of {self.n_vocab}; write the shards again"
                    )
            offsets = shard.offsets
            if offsets[0] != 0 or offsets[-1] != len(shard.ids) or bool((offsets[1:] < offsets[:-1]).any()):
                raise InputError(
                    f"{self.directory / shard.documents_name}: the documents are out of order; write the shards again"
                )

    def _known(self, split: str) -> dict[str, Any]:
        if split not in self._splits:
            raise InputError(f"no split {split!r}; the splits are {', '.join(self._splits)}")
        return self._splits[split]


_CHECKED = 1 << 22  # ids to check at once: a shard need not fit in memory


def _count(value: Any, below: int = 1 << 63) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise ValueError(f"{value!r} is not a number from 0 to {below - 1}")
    return value


def _optional_id(value: Any, n_vocab: int) -> int | None:
    return None if value is None else _count(value, below=n_vocab)


def _name(value: Any) -> str:
    if not isinstance(value, str) or value != Path(value).name or value in ("", "..") or "\0" in value:
        raise ValueError(f"{value!r} is not the name of a file")
    return value


def _corpus(value: dict[str, Any]) -> dict[str, Any]:
    lists = [value["exclude"], value["sources"], *(source["files"] for source in value["sources"])]
    strings = [value["field"], value["errors"], *value["exclude"]]
    strings += [
        name for name in (value["separator"], *(each["source"] for each in value["sources"])) if name is not None
    ]
    for source in value["sources"]:
        strings += [file["path"] for file in source["files"]]
        _count(source["documents"]), _count(source["bytes"]), _count(source["crc32"], below=1 << 32)
    if not all(isinstance(each, list) for each in lists) or not all(isinstance(each, str) for each in strings):
        raise ValueError("it does not say where the documents came from")
    return dict(value)


def _fingerprint(index: dict[str, Any]) -> str:
    content = {key: value for key, value in index.items() if key != "corpus"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

"""Token shards: the documents of a corpus as ids on disk, ready to train on.

A shard directory holds

    index.json              what is there; written last, so a directory without it is unfinished
    train-00000.bin ...     ids, little-endian uint16 (uint32 for more than 65,536 tokens), document after document
    train-00000.docs ...    where each document of that shard begins, and where the last one ends: little-endian int64
    held_out-00000.bin ...  the same for the documents kept from training
    token_bytes.bin         how many bytes of text each id stands for, little-endian uint32; 0 for special tokens
    a copy of the tokenizer's file
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bpe.corpus import in_batches
from bpe.errors import InputError
from bpe.files import write_atomically

FORMAT = "bpe-llama token shards"
VERSION = 1
INDEX = "index.json"
TOKEN_BYTES = "token_bytes.bin"
TRAIN, HELD_OUT = "train", "held_out"
BOS_TOKEN, EOS_TOKEN = "<|begin_of_text|>", "<|end_of_text|>"

_BATCH_BYTES = 4 << 20  # of text encoded at once: enough to keep all threads busy, little enough to hold in memory

Ids = npt.NDArray[np.unsignedinteger[Any]]
StrPath = str | os.PathLike[str]


class ShardTokenizer(Protocol):
    """What writing shards needs of a tokenizer."""

    @property
    def n_vocab(self) -> int: ...
    @property
    def special_tokens_set(self) -> set[str]: ...
    def encode_single_token(self, text_or_bytes: str | bytes, /) -> int: ...
    def decode_single_token_bytes(self, token: int, /) -> bytes: ...
    def encode_flat(self, texts: list[bytes | str], /) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]: ...


def write_shards(
    documents: Iterable[bytes | str],
    tokenizer: ShardTokenizer,
    directory: StrPath,
    *,
    tokenizer_file: StrPath,
    shard_tokens: int = 1 << 26,
    held_out: float = 0.05,
    bos: bool = True,
    eos: bool = True,
    seed: int = 0,
) -> Shards:
    """Encode documents and write them as shards; returns the directory, opened.

    Each document becomes <|begin_of_text|>, its ids as ordinary text, <|end_of_text|>, where the tokenizer has these
    tokens and `bos` and `eos` want them. Empty documents are passed over.

    shard_tokens: a shard holds whole documents and at most so many tokens; a longer document has one of its own.
    held_out: the share of documents kept from training. A hash of its bytes and of `seed` decides for each document
        alone, so it stays on its side when others come and go. If that leaves a side empty, the document whose hash
        is nearest to it changes sides; a single document is cut near its end instead.
    tokenizer_file: the file `tokenizer` was read from; copied, so that the shards say how to decode them.

    An existing shard directory is replaced; if that is interrupted, it counts as unfinished. Raises InputError for
    arguments out of range and when there is no document.
    """
    if shard_tokens <= 0:
        raise InputError(f"shard_tokens is {shard_tokens}; it must be positive")
    if not 0 <= held_out < 1:
        raise InputError(f"held_out is {held_out}; it must be at least 0 and below 1")
    if not 0 <= seed < 1 << 64:
        raise InputError(f"seed is {seed}; it must be between 0 and 2**64 - 1")
    tokenizer_file, directory = Path(tokenizer_file), Path(directory)
    if not tokenizer_file.is_file():
        raise InputError(f"{tokenizer_file}: there is no such tokenizer file")

    # 1. Declare what is there unfinished.
    directory.mkdir(parents=True, exist_ok=True)
    (directory / INDEX).unlink(missing_ok=True)

    # 2. Encode the documents and write each to its side.
    dtype = np.dtype("<u2" if tokenizer.n_vocab <= 1 << 16 else "<u4")
    specials = {text: tokenizer.encode_single_token(text) for text in tokenizer.special_tokens_set}
    bos_id = specials.get(BOS_TOKEN) if bos else None
    eos_id = specials.get(EOS_TOKEN) if eos else None
    sides = {name: _Side(directory, name, dtype, shard_tokens) for name in (TRAIN, HELD_OUT)}
    token_bytes = _token_bytes(tokenizer, set(specials.values()))
    _split(_encoded(documents, tokenizer, bos_id, eos_id, seed), sides, held_out, token_bytes)
    for side in sides.values():
        side.flush()

    # 3. Clear away shards of an earlier, longer corpus.
    written = {
        name for side in sides.values() for shard in side.shards for name in (shard["file"], shard["documents_file"])
    }
    for name in (TRAIN, HELD_OUT):
        for path in directory.glob(f"{name}-[0-9]*"):
            if path.name not in written:
                path.unlink()

    # 4. Copy the tokenizer, and declare it all finished.
    _write(directory / TOKEN_BYTES, token_bytes.astype("<u4").tobytes())
    _write(directory / tokenizer_file.name, tokenizer_file.read_bytes())
    index = {
        "format": FORMAT,
        "version": VERSION,
        "dtype": dtype.name,
        "n_vocab": tokenizer.n_vocab,
        "bos_id": bos_id,
        "eos_id": eos_id,
        "tokenizer_file": tokenizer_file.name,
        "tokenizer_sha256": _sha256(directory / tokenizer_file.name),
        "held_out": held_out,
        "seed": seed,
        "splits": {name: side.summary() for name, side in sides.items()},
    }
    _write(directory / INDEX, (json.dumps(index, indent=2) + "\n").encode())
    return Shards(directory)


@dataclass
class _Document:
    ids: npt.NDArray[np.uint32]
    bytes: int
    place: float  # the hash, as a number in [0, 1): below the held-out share, the document is held out


def _encoded(
    documents: Iterable[bytes | str], tokenizer: ShardTokenizer, bos_id: int | None, eos_id: int | None, seed: int
) -> Iterator[_Document]:
    before = np.array([] if bos_id is None else [bos_id], np.uint32)
    after = np.array([] if eos_id is None else [eos_id], np.uint32)
    salt = seed.to_bytes(8, "little")
    for batch in in_batches((each for each in documents if each), _BATCH_BYTES):
        ids, offsets = tokenizer.encode_flat(batch)
        for document, start, end in zip(batch, offsets[:-1], offsets[1:], strict=True):
            data = _as_bytes(document)
            digest = hashlib.blake2b(data, digest_size=8, salt=salt).digest()
            place = int.from_bytes(digest, "little") / 2**64
            yield _Document(np.concatenate((before, ids[start:end], after)), len(data), place)


def _as_bytes(document: bytes | str) -> bytes:
    return document.encode("utf-8", "surrogatepass") if isinstance(document, str) else document


def _split(
    documents: Iterator[_Document], sides: dict[str, _Side], held_out: float, token_bytes: npt.NDArray[np.uint32]
) -> None:
    """Give each document to its side; see `write_shards` for the rule."""
    other = {TRAIN: HELD_OUT, HELD_OUT: TRAIN}
    count = 0
    # As long as one side has nothing, the document nearest to it waits here, for it may have to go there.
    waiting: _Document | None = None
    only_side: str | None = None
    for document in documents:
        count += 1
        side = HELD_OUT if document.place < held_out else TRAIN
        if held_out == 0 or (only_side is None and count > 1):  # both sides have something already, or one suffices
            sides[side].add(document)
        elif only_side is None:
            waiting, only_side = document, side
        elif waiting is not None and side == only_side:
            nearer = document.place < waiting.place if side == TRAIN else document.place > waiting.place
            if nearer:
                waiting, document = document, waiting
            sides[side].add(document)
        elif waiting is not None:
            sides[only_side].add(waiting)
            sides[side].add(document)
            waiting, only_side = None, None
    if count == 0:
        raise InputError("there is no document to write; the sources are empty")
    if waiting is not None and only_side is not None:
        if count > 1:
            sides[other[only_side]].add(waiting)
        else:
            _cut(waiting, sides, held_out, token_bytes)


def _cut(document: _Document, sides: dict[str, _Side], held_out: float, token_bytes: npt.NDArray[np.uint32]) -> None:
    kept = len(document.ids) - max(2, round(held_out * len(document.ids)))  # two tokens make one prediction
    if kept < 2:
        raise InputError(f"the only document has {len(document.ids)} tokens; that is too little to train on")
    held_out_bytes = int(token_bytes[document.ids[kept:]].sum())
    sides[TRAIN].add(_Document(document.ids[:kept], document.bytes - held_out_bytes, document.place))
    sides[HELD_OUT].add(_Document(document.ids[kept:], held_out_bytes, document.place))


def _token_bytes(tokenizer: ShardTokenizer, special_ids: set[int]) -> npt.NDArray[np.uint32]:
    lengths = np.zeros(tokenizer.n_vocab, np.uint32)
    for token in range(tokenizer.n_vocab):
        if token not in special_ids:
            try:
                lengths[token] = len(tokenizer.decode_single_token_bytes(token))
            except KeyError:  # a vocabulary may have gaps
                continue
    return lengths


@dataclass
class _Side:
    """The documents of one split on their way to disk."""

    directory: Path
    name: str
    dtype: np.dtype[Any]
    shard_tokens: int
    shards: list[dict[str, Any]] = field(default_factory=list)
    _documents: list[_Document] = field(default_factory=list)
    _tokens: int = 0

    def add(self, document: _Document) -> None:
        if self._tokens + len(document.ids) > self.shard_tokens:
            self.flush()
        self._documents.append(document)
        self._tokens += len(document.ids)

    def flush(self) -> None:
        if not self._documents:
            return
        stem = f"{self.name}-{len(self.shards):05}"
        shard = {
            "file": f"{stem}.bin",
            "documents_file": f"{stem}.docs",
            "tokens": self._tokens,
            "documents": len(self._documents),
            "bytes": sum(document.bytes for document in self._documents),
        }
        ids = np.concatenate([document.ids for document in self._documents]).astype(self.dtype)
        offsets = np.cumsum([0, *(len(document.ids) for document in self._documents)], dtype="<i8")
        _write(self.directory / f"{stem}.bin", ids.tobytes())
        _write(self.directory / f"{stem}.docs", offsets.tobytes())
        self.shards.append(shard)
        self._documents, self._tokens = [], 0

    def summary(self) -> dict[str, Any]:
        return {key: sum(shard[key] for shard in self.shards) for key in ("tokens", "documents", "bytes")} | {
            "shards": self.shards
        }


class Shards:
    """A shard directory, memory-mapped: opening it reads little, whatever its size.

    directory, tokenizer_path: where it lies, and where its copy of the tokenizer lies.
    n_vocab, bos_id, eos_id, dtype: what the ids are.
    token_bytes: uint32 [n_vocab], how many bytes of text each id stands for; 0 for special tokens.
    fingerprint: a hash of the index; other documents, another split or another tokenizer give another one.

    Raises InputError where a file is missing, or does not fit the index. `check` reads all ids as well.
    """

    def __init__(self, directory: StrPath) -> None:
        self.directory = Path(directory)
        path = self.directory / INDEX
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); write the shards anew") from None
        try:
            index = json.loads(raw)
            if index["format"] != FORMAT or index["version"] != VERSION:
                raise InputError(
                    f"{path}: {index['format']!r} version {index['version']!r}; expected {FORMAT!r} version {VERSION}"
                )
            self.n_vocab = int(index["n_vocab"])
            self.bos_id: int | None = index["bos_id"]
            self.eos_id: int | None = index["eos_id"]
            self.dtype = np.dtype({"uint16": "<u2", "uint32": "<u4"}[index["dtype"]])
            # Only names, so that an index cannot point outside of its directory.
            self.tokenizer_path = self.directory / Path(index["tokenizer_file"]).name
            self._splits: dict[str, dict[str, Any]] = {
                name: {key: int(index["splits"][name][key]) for key in ("tokens", "documents", "bytes")}
                for name in (TRAIN, HELD_OUT)
            }
            files = {
                name: [
                    (Path(s["file"]).name, int(s["tokens"]), Path(s["documents_file"]).name, int(s["documents"]))
                    for s in index["splits"][name]["shards"]
                ]
                for name in (TRAIN, HELD_OUT)
            }
            tokenizer_sha256 = index["tokenizer_sha256"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: not an index of token shards ({error!r}); write the shards anew") from None
        self.fingerprint = hashlib.sha256(raw).hexdigest()
        self.token_bytes = self._map(TOKEN_BYTES, np.dtype("<u4"), self.n_vocab)
        self._tokens = {s: [self._map(f, self.dtype, n) for f, n, _, _ in files[s]] for s in files}
        self._offsets = {s: [self._map(f, np.dtype("<i8"), n + 1) for _, _, f, n in files[s]] for s in files}
        self._names = {s: [f for f, _, _, _ in files[s]] for s in files}
        if not self.tokenizer_path.is_file():
            raise InputError(f"{self.tokenizer_path}: missing; the shards cannot be decoded without their tokenizer")
        if _sha256(self.tokenizer_path) != tokenizer_sha256:
            raise InputError(
                f"{self.tokenizer_path}: not the tokenizer that these shards were written with; write them anew"
            )

    def _map(self, name: str, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        path = self.directory / name
        expected = count * dtype.itemsize
        try:
            size = path.stat().st_size
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); write the shards anew") from None
        if size != expected:
            raise InputError(
                f"{path}: {size:,} bytes, where the index says {expected:,}; it is truncated or was replaced, "
                "write the shards anew"
            )
        return np.memmap(path, dtype, "r") if count else np.empty(0, dtype)

    def tokens(self, split: str = TRAIN) -> list[Ids]:
        """The ids of each shard of "train" or "held_out", as read-only views of the files."""
        self._known(split)
        return list(self._tokens[split])

    def documents(self, split: str = TRAIN) -> Iterator[Ids]:
        """The ids of each document of a split, with the tokens that begin and end it."""
        self._known(split)
        for ids, offsets in zip(self._tokens[split], self._offsets[split], strict=True):
            for start, end in itertools.pairwise(offsets):
                yield ids[start:end]

    def token_count(self, split: str = TRAIN) -> int:
        """How many tokens a split has."""
        return int(self._known(split)["tokens"])

    def document_count(self, split: str = TRAIN) -> int:
        """How many documents a split has."""
        return int(self._known(split)["documents"])

    def byte_count(self, split: str = TRAIN) -> int:
        """How many bytes of text a split was made from."""
        return int(self._known(split)["bytes"])

    def check(self) -> None:
        """Read everything once; raises InputError for an id beyond the vocabulary and for documents out of order."""
        for split in self._tokens:
            for name, ids, offsets in zip(self._names[split], self._tokens[split], self._offsets[split], strict=True):
                if len(ids) and int(ids.max()) >= self.n_vocab:
                    position = int(np.argmax(ids >= self.n_vocab))
                    raise InputError(
                        f"{self.directory / name}: token {position} is {ids[position]}, beyond the vocabulary of "
                        f"{self.n_vocab}; write the shards anew"
                    )
                if offsets[0] != 0 or offsets[-1] != len(ids) or bool((np.diff(offsets) < 0).any()):
                    raise InputError(f"{self.directory / name}: its documents are out of order; write the shards anew")

    def _known(self, split: str) -> dict[str, Any]:
        if split not in self._splits:
            raise InputError(f"there is no split {split!r}; the splits are {', '.join(self._splits)}")
        return self._splits[split]


def _write(path: Path, data: bytes) -> None:
    with write_atomically(path) as file:
        file.write(data)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

"""A short implementation of shards: the reference for tests of the fast one."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

DOCUMENTS: list[bytes | str] = [f"document {number} of many".encode() for number in range(300)]
TEXTS = [f"document {number}: ünïcödé" for number in range(100)]


class ByteTokenizer:
    """A tokenizer of single bytes and two special tokens; all other ids up to `n_vocab` are unused."""

    unknown_bytes = b""
    special_tokens_set = frozenset(("<|begin_of_text|>", "<|end_of_text|>"))

    def __init__(self, n_vocab: int = 258) -> None:
        self.n_vocab = n_vocab
        self.batches = 0

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        return {"<|begin_of_text|>": self.n_vocab - 2, "<|end_of_text|>": self.n_vocab - 1}[str(text_or_bytes)]

    def token_sizes(self) -> npt.NDArray[np.uint32]:
        return (np.arange(self.n_vocab) < 256).astype(np.uint32)

    def decode_bytes(self, tokens: npt.NDArray[np.uint32]) -> bytes:
        return b"".join(bytes([id]) if id < 256 else b"<special>" for id in tokens.tolist())

    def encode_flat(
        self, documents: list[bytes | str], *, num_threads: int | None = None
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        self.batches += 1
        encoded = [document.encode() if isinstance(document, str) else document for document in documents]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return np.frombuffer(b"".join(encoded), np.uint8).astype(np.uint32), offsets


def place_of(document: bytes, seed: int) -> float:
    """Return the place of a document in [0, 1): the finalizer of SplitMix64 applied to its CRC-32 and the seed."""
    state = zlib.crc32(document) + seed * 0x9E3779B97F4A7C15
    state = (state ^ (state % 2**64 >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return ((state ^ (state >> 31)) >> 11) / 2**53


def plain_split(documents: Iterable[bytes], held_out: float, seed: int) -> tuple[list[bytes], list[bytes]]:
    """Return the training documents and the held-out documents. There must be at least two documents."""
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    waiting: bytes | None = None
    for document in filter(None, documents):
        is_held = place_of(document, seed) < held_out
        if held_out and not (sides[0] and sides[1]) and (waiting is not None or not (sides[0] or sides[1])):
            if waiting is None:
                waiting = document
                continue
            waits_at, place = place_of(waiting, seed), place_of(document, seed)
            if is_held != (waits_at < held_out):
                sides[not is_held].append(waiting)
                waiting = None
            elif (place > waits_at) if is_held else (place < waits_at):
                waiting, document = document, waiting
        sides[is_held].append(document)
    if waiting is not None:
        sides[not place_of(waiting, seed) < held_out].append(waiting)
    return sides


def plain_shards(
    documents: Iterable[bytes], *, shard_tokens: int, held_out: float, bos: bool, eos: bool, seed: int
) -> dict[str, bytes]:
    """Return the .bin and .docs files by name, as a ByteTokenizer with 258 tokens gives them."""
    files: dict[str, bytes] = {}
    for split, side in zip(("train", "held_out"), plain_split(documents, held_out, seed), strict=True):
        shards: list[list[list[int]]] = []
        for document in side:
            ids = [*([256] if bos else []), *document, *([257] if eos else [])]
            if not shards or sum(map(len, shards[-1])) + len(ids) > shard_tokens:
                shards.append([])
            shards[-1].append(ids)
        for number, shard in enumerate(shards):
            ends = [sum(map(len, shard[:count])) for count in range(len(shard) + 1)]
            files[f"{split}-{number:05}.bin"] = b"".join(id.to_bytes(2, "little") for ids in shard for id in ids)
            files[f"{split}-{number:05}.docs"] = b"".join(end.to_bytes(8, "little") for end in ends)
    return files

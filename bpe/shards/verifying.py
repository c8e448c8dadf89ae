"""Verification of shards against their hashes and against the documents that they were made from."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bpe.corpus import CorpusSource, TextBytes
from bpe.errors import InputError
from bpe.progress import Progress, phase, shown
from bpe.shards.layout import SPLITS, crc32_of, sha256_of
from bpe.shards.origin import ShardSources, SourceTally, checksums_of, sizes_of
from bpe.shards.reading import Shard, Shards
from bpe.shards.split import Split, places
from bpe.text import counted
from bpe.tokenizer import Tokenizer


class Decoder(Protocol):
    """The part of a tokenizer that comparing ids with text uses."""

    @property
    def unknown_bytes(self) -> bytes: ...
    def decode_bytes(self, tokens: npt.NDArray[np.uint32], /) -> bytes: ...


class VerifiedShards(NamedTuple):
    """How much `verify_shards` found to be correct."""

    files: int
    """Files whose hashes match the index."""
    documents: int
    """Documents that match the sources; 0 if only hashes were checked."""
    bytes: int
    """Bytes of text of these documents."""


def verify_shards(
    directory: str | os.PathLike[str],
    tokenizer: Decoder | None = None,
    *,
    sources: Sequence[CorpusSource] | None = None,
    hashes_only: bool = False,
    tokenizer_file: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | Progress = None,
) -> VerifiedShards:
    """Check all hashes, ids and offsets of shards, then read the sources again and compare each document with its ids.

    Args:
        directory: The shards.
        tokenizer: Decodes the ids. Default: the tokenizer that was copied into the directory.
        sources: The documents, in place of the sources that the index names. They are read with the options that the
            index records.
        hashes_only: Whether to skip the comparison with the sources.
        tokenizer_file: A tokenizer file that must be the one that the shards were written with.
        progress: True shows the progress on a terminal or in a notebook, and a stream there. A callback is called with
            the number of compared documents and their size in bytes.

    Raises:
        InputError: When anything differs, for the first difference: its shard, document and place. Also when sources
            cannot be read again.
    """
    shards = Shards(directory)
    if tokenizer_file is not None and sha256_of(Path(tokenizer_file)) != shards.tokenizer_sha256:
        raise InputError(
            f"{shards.directory}: written with another tokenizer than {tokenizer_file}; use the directory's own copy,"
            f" {shards.tokenizer_path.name}"
        )
    with shown(progress):
        files = _check_hashes(shards)
        shards.check()
        if hashes_only:
            return VerifiedShards(files, 0, 0)
        if tokenizer is None:
            tokenizer = Tokenizer.from_file(shards.tokenizer_path)
        called = progress if callable(progress) else None
        return VerifiedShards(files, *_compare(shards, tokenizer, _corpus_of(shards, sources), called))


def _check_hashes(shards: Shards) -> int:
    """Compare the hashes of all files with the index; return how many files there are."""
    listed = [shard for split in SPLITS for shard in shards.shards(split)]
    with phase("checking the hashes", 2 * len(listed), "files") as checking:
        for number, shard in enumerate(listed):
            checking.update(2 * number)
            for name, expected in ((shard.name, shard.crc32), (shard.documents_name, shard.documents_crc32)):
                if crc32_of(shards.directory / name) != expected:
                    raise InputError(
                        f"{shards.directory / name}: its CRC-32 differs from that in the index; the file is damaged or"
                        " was replaced, write the shards again"
                    )
    return 2 * len(listed)


def _corpus_of(shards: Shards, sources: Sequence[CorpusSource] | None) -> ShardSources:
    """Return the sources that the index names, or the given ones, with the options that the index records."""
    about = shards.corpus
    names = [each["source"] for each in about["sources"]] if sources is None else sources
    if None in names:
        raise InputError(
            f"{shards.directory}: its documents came from stdin or from a program; give the sources, or check only the"
            " hashes (--hashes-only)"
        )
    return ShardSources(names, about["field"], about["separator"], about["errors"], about["exclude"])


def _compare(
    shards: Shards, tokenizer: Decoder, corpus: ShardSources, progress: Callable[[int, int], None] | None
) -> tuple[int, int]:
    """Compare all documents; return how many there are, and their size in bytes."""
    written = {split: _Written(shards, split, tokenizer) for split in SPLITS}
    split = Split(shards.held_out)
    waiting: list[TextBytes] = []
    tallies: dict[int, SourceTally] = {}
    sources = corpus.listed()
    try:
        reader = corpus.reader(sources)
    except (InputError, OSError) as error:
        raise InputError(
            f"{error}; name the sources where they are now (bpe shards SOURCES --verify {shards.directory}), or check"
            " only the hashes (--hashes-only)"
        ) from None
    count = size = 0
    with phase("comparing", reader.total, "bytes") as comparing:
        for batch in reader:
            texts = [text for text in batch.texts if len(text)]
            checksums = checksums_of(texts)
            tallies.setdefault(batch.source, SourceTally()).add(checksums, int(sizes_of(texts).sum()))
            sides = split.add(places(checksums, shards.seed))
            texts = waiting + texts
            waiting = [] if sides.waiting is None else [texts[sides.waiting]]
            for name, rows in sides.rows.items():
                written[name].compare([texts[row] for row in rows.tolist()])
            count, size = (sum(getattr(tally, key) for tally in tallies.values()) for key in ("documents", "size"))
            comparing.update(batch.read if reader.total else size, counted(count, "document"))
            if progress is not None:
                progress(count, size)
    if waiting and count == 1:
        _compare_cut(shards, _known(waiting[0], tokenizer), tokenizer)
    else:
        if waiting:
            written[split.side_of_last()].compare(waiting)
        for each in written.values():
            each.finish()
    _compare_hashes(shards, [tallies.get(number, SourceTally()).summary() for number in range(len(sources))])
    return count, size


def _compare_cut(shards: Shards, text: bytes, tokenizer: Decoder) -> None:
    """Compare a single document, whose end is held out."""
    parts = [ids for split in SPLITS for ids in shards.documents(split)]
    ids = np.concatenate(parts)[shards.bos_id is not None : None if shards.eos_id is None else -1]
    if len(parts) != 2 or tokenizer.decode_bytes(ids.astype(np.uint32)) != text:
        raise InputError(f"{shards.directory}: its only document differs from that of the source")


def _compare_hashes(shards: Shards, found: Sequence[dict[str, Any]]) -> None:
    """Compare the hashes of the sources. All documents match, so a difference is one of order, or in the index."""
    said = [{key: each.get(key) for key in ("documents", "bytes", "crc32")} for each in shards.corpus["sources"]]
    if len(said) != len(found):  # named in another way, such as one directory in place of several files
        return
    for number, (before, now) in enumerate(zip(said, found, strict=True), 1):
        if before != now:
            raise InputError(
                f"{shards.directory}: source {number} has {now['documents']:,} documents with the CRC-32"
                f" {now['crc32']:08x}, but the index says {before['documents']:,} with {before['crc32']:08x}"
            )


def _known(text: TextBytes, tokenizer: Decoder) -> bytes:
    """Return the text that decoding yields: some vocabularies have no token for some bytes, which are lost."""
    return bytes(text).translate(None, tokenizer.unknown_bytes)


class _Written:
    """The documents of a split, in order, which are compared with texts."""

    def __init__(self, shards: Shards, split: str, tokenizer: Decoder) -> None:
        self._shards, self._split, self._tokenizer = shards, split, tokenizer
        self._left = shards.shards(split)
        self._done = 0  # documents of the first of these that have been compared

    def compare(self, texts: Sequence[TextBytes]) -> None:
        """Compare the next documents with texts."""
        start = 0
        while start < len(texts):
            shard = self._next_shard()
            if shard is None:
                raise InputError(
                    f"{self._shards.directory}: the sources have more documents than {self._split}; the first missing"
                    f" document begins with {_shown(texts[start])}"
                )
            count = min(len(texts) - start, len(shard.offsets) - 1 - self._done)
            self._compare(shard, [_known(text, self._tokenizer) for text in texts[start : start + count]])
            self._done += count
            start += count

    def finish(self) -> None:
        """Raise InputError if documents are left after all texts."""
        if (shard := self._next_shard()) is not None:
            raise InputError(
                f"{self._shards.directory / shard.name}: document {self._done} and those after it are not in the"
                " sources"
            )

    def _next_shard(self) -> Shard | None:
        while self._left and self._done == len(self._left[0].offsets) - 1:
            del self._left[0]
            self._done = 0
        return self._left[0] if self._left else None

    def _compare(self, shard: Shard, texts: list[bytes]) -> None:
        """Compare texts with documents of one shard: all at once, and one by one only if they differ."""
        if not self._all_equal(shard, texts):
            for document, text in enumerate(texts, self._done):
                self._compare_one(shard, document, text)

    def _all_equal(self, shard: Shard, texts: list[bytes]) -> bool:
        offsets = shard.offsets[self._done : self._done + len(texts) + 1]
        ids = shard.ids[offsets[0] : offsets[-1]].astype(np.uint32)
        offsets = offsets - offsets[0]
        is_text = np.ones(len(ids), bool)
        begin, end = self._shards.bos_id is not None, self._shards.eos_id is not None
        lengths = np.diff(offsets) - begin - end
        if (lengths < 0).any():
            return False
        if begin:
            is_text[offsets[:-1]] = ids[offsets[:-1]] != self._shards.bos_id
        if end:
            is_text[offsets[1:] - 1] = ids[offsets[1:] - 1] != self._shards.eos_id
        ids = ids[is_text]
        if len(ids) != lengths.sum() or self._tokenizer.decode_bytes(ids) != b"".join(texts):
            return False
        # The joined texts are equal; their boundaries must be, too.
        ends = np.concatenate(([0], np.cumsum(self._shards.token_bytes[ids], dtype=np.int64)))
        sizes = ends[np.cumsum(lengths)] - ends[np.cumsum(lengths) - lengths]
        return np.array_equal(sizes, sizes_of(texts))

    def _compare_one(self, shard: Shard, document: int, text: bytes) -> None:
        start, end = (int(offset) for offset in shard.offsets[document : document + 2])
        ids = shard.ids[start:end].astype(np.uint32)
        where = f"{self._shards.directory / shard.name}: document {document}"
        for id, at, does in ((self._shards.bos_id, 0, "begin"), (self._shards.eos_id, -1, "end")):
            if id is not None:
                if not len(ids) or ids[at] != id:
                    raise InputError(f"{where} does not {does} with {id}, as it should")
                ids = ids[1:] if at == 0 else ids[:-1]
        found = self._tokenizer.decode_bytes(ids)
        if found != text:
            byte = len(os.path.commonprefix([found, text]))
            ends = np.cumsum(self._shards.token_bytes[ids], dtype=np.int64)
            token = start + (self._shards.bos_id is not None) + int(np.searchsorted(ends, byte, side="right"))
            raise InputError(
                f"{where}, byte {byte} (token {token} of the shard): {_shown(found[byte:])} here,"
                f" {_shown(text[byte:])} in the source"
            )


def _shown(text: TextBytes) -> str:
    return repr(bytes(text[:24]).decode("utf-8", "replace")) if len(text) else "nothing more"

"""Documents -> shards."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from bpe.corpus import CorpusReader, CorpusSource, Position, TextBatch, TextBytes
from bpe.errors import InputError
from bpe.files import write_bytes
from bpe.shards.encoded import EncodedDocuments
from bpe.shards.growing import GrowingShards
from bpe.shards.layout import (
    BOS_TOKEN,
    EOS_TOKEN,
    HELD_OUT,
    INDEX,
    INDEX_FORMAT,
    INDEX_VERSION,
    SHARD_FILE,
    SPLITS,
    TOKEN_BYTES,
    TRAIN,
    WORK,
    sha256_of,
)
from bpe.shards.locking import locked
from bpe.shards.origin import ShardSources, SourceTally, checksums_of, sizes_of
from bpe.shards.reading import Shards
from bpe.shards.split import Split, places
from bpe.shards.unfinished import STATE, UnfinishedShards

SAVE_EVERY = 5.0  # seconds: what an interruption may cost

# Of text that a thread encodes at once. Half as much took a tenth longer, for threads wait for each other more often;
# four times as much took longer, too: what is copied no longer fits into the processor's cache.
_BATCH_BYTES = 1 << 21

_FIRST = np.zeros(1, np.int64)  # the row of the only document of a block

StrPath = str | os.PathLike[str]


class ShardTokenizer(Protocol):
    """What writing shards needs of a tokenizer. Several threads encode at once."""

    @property
    def n_vocab(self) -> int: ...
    @property
    def special_tokens_set(self) -> set[str]: ...
    def encode_single_token(self, text_or_bytes: str | bytes, /) -> int: ...
    def token_sizes(self) -> npt.NDArray[np.uint32]: ...
    def encode_flat(
        self, texts: list[bytes | str], /, *, num_threads: int | None = None
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]: ...


class ShardsProgress(NamedTuple):
    """How far writing is."""

    documents: int
    bytes: int
    """Of text."""
    read: int
    """Bytes of the files, as they are on disk."""
    total: int | None
    """How many there are; None if that is not known."""


def write_shards(
    documents: Iterable[bytes | str] | ShardSources,
    tokenizer: ShardTokenizer,
    directory: StrPath,
    *,
    tokenizer_file: StrPath,
    shard_tokens: int = 64_000_000,
    held_out: float = 0.05,
    bos: bool = True,
    eos: bool = True,
    seed: int = 0,
    threads: int | None = None,
    batch_bytes: int | None = None,
    progress: Callable[[ShardsProgress], None] | None = None,
) -> Shards:
    """Encode documents and write them as shards; returns the directory, opened.

    Each document becomes <|begin_of_text|>, its ids as ordinary text, <|end_of_text|>, where the tokenizer has these
    tokens and `bos` and `eos` want them. Empty documents are passed over.

    What an interrupted call has begun, the same call goes on with, from the last batch that was saved, a few seconds
    before at most, to the same files. Until all is written, it stands in `directory` / "work", and shards that are
    there already stay as they are; then they are replaced.

    The files depend on the documents, the tokenizer and the options before `threads`, and on nothing else. A document
    is in memory as a whole, with its ids; beside that, a few batches are.

    Args:
        documents: str or bytes each; or a ShardSources, which names files and how to read them.
        tokenizer_file: the file `tokenizer` was read from; copied, so that the shards say how to decode them.
        shard_tokens: a shard holds whole documents and at most so many tokens; a longer document has one of its own.
        held_out: the share of documents kept from training. A hash of its bytes and of `seed` decides for each document
            alone, so it stays on its side when others come and go. If that leaves a side empty, the document whose hash
            is nearest to it changes sides; a single document is cut near its end instead.
        threads: that encode. By default as many as there are processors.
        batch_bytes: how much text a thread encodes at once, about.
        progress: called after each batch.

    Raises:
        InputError: an argument out of range; no documents; a corpus that cannot be read, or is not the one that was
            begun with, or other options than those; something else in the directory, or somebody else who writes there.
        OSError: a file that cannot be read; no space left. What was saved is still there to go on from.
    """
    tokenizer_file, directory = Path(tokenizer_file), Path(directory)
    _check_arguments(tokenizer_file, shard_tokens, held_out, seed, threads, batch_bytes)
    if isinstance(documents, (str, os.PathLike)):
        documents = ShardSources(documents)
    corpus = documents if isinstance(documents, ShardSources) else ShardSources([cast(CorpusSource, documents)])

    with locked(directory):
        # 1. See what there is: nothing, work to go on with, or complete shards.
        specials = {text: tokenizer.encode_single_token(text) for text in tokenizer.special_tokens_set}
        settings = _Settings(
            tokenizer.n_vocab,
            specials.get(BOS_TOKEN) if bos else None,
            specials.get(EOS_TOKEN) if eos else None,
            tokenizer_file.name,
            sha256_of(tokenizer_file),
            shard_tokens,
            held_out,
            seed,
        )
        work = UnfinishedShards(directory, settings._asdict())
        if work.is_done:
            return Shards(directory)
        sources = corpus.listed()
        state = work.state
        threads = threads or os.cpu_count() or 1
        batch_bytes = batch_bytes or _BATCH_BYTES
        try:
            reader = corpus.reader(sources, state["position"] if state else None, batch_bytes)
        except InputError as error:
            raise InputError(f"{error} ({work.path} holds what was begun)") if state else error from None
        token_bytes = tokenizer.token_sizes()
        token_bytes[list(specials.values())] = 0
        writer = _Writer(work, settings, [_describe(source) for source in sources], token_bytes)

        # 2. Encode and write batch after batch.
        try:
            if not writer.is_complete:
                with closing(_encoded(reader, tokenizer, threads, batch_bytes)) as encoded:
                    _write_all(encoded, reader.total, writer, progress)
                writer.finish()
        except KeyboardInterrupt:
            writer.save_whole()
            raise
        finally:
            writer.close()

        # 3. Tell what there is, and put it in its place.
        write_bytes(work.path / TOKEN_BYTES, token_bytes.astype("<u4").tobytes())
        write_bytes(work.path / tokenizer_file.name, tokenizer_file.read_bytes())
        write_bytes(work.path / INDEX, (json.dumps(writer.index(corpus, reader), indent=2) + "\n").encode())
        work.publish()
        return Shards(directory)


def _check_arguments(
    tokenizer_file: Path,
    shard_tokens: int,
    held_out: float,
    seed: int,
    threads: int | None,
    batch_bytes: int | None,
) -> None:
    for name, value, is_right, right in (
        ("shard_tokens", shard_tokens, shard_tokens > 0, "positive"),
        ("held_out", held_out, 0 <= held_out < 1, "at least 0 and below 1"),
        ("seed", seed, 0 <= seed < 1 << 64, "between 0 and 2**64 - 1"),
        ("threads", threads, threads is None or threads > 0, "positive"),
        ("batch_bytes", batch_bytes, batch_bytes is None or batch_bytes > 0, "positive"),
    ):
        if not is_right:
            raise InputError(f"{name} is {value}; it must be {right}")
    if not tokenizer_file.is_file():
        raise InputError(f"{tokenizer_file}: there is no such tokenizer file")
    if tokenizer_file.name in (INDEX, TOKEN_BYTES, WORK, STATE) or SHARD_FILE.fullmatch(tokenizer_file.name):
        raise InputError(f"{tokenizer_file}: shards have a file of this name themselves; rename it")


def _write_all(
    encoded: Iterable[tuple[TextBatch, list[TextBytes], _Encoded]],
    total: int | None,
    writer: _Writer,
    progress: Callable[[ShardsProgress], None] | None,
) -> None:
    """Write batch after batch in another thread, while the next ones are encoded."""
    documents, size = writer.documents, writer.size
    with ThreadPoolExecutor(1) as other_thread:
        written: Future[None] | None = None
        for batch, texts, (ids, offsets) in encoded:
            if written is not None:
                written.result()
            written = other_thread.submit(writer.add, batch, texts, ids, offsets)
            documents, size = documents + len(texts), size + batch.size
            if progress is not None:
                progress(ShardsProgress(documents, size, batch.read, total))
            del batch, texts, ids, offsets  # so that no more than is needed is in memory
        if written is not None:
            written.result()


_Encoded = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]


def _encoded(
    reader: CorpusReader, tokenizer: ShardTokenizer, threads: int, batch_bytes: int
) -> Generator[tuple[TextBatch, list[TextBytes], _Encoded], None, None]:
    """Each batch with its ids, in order.

    Each of the threads encodes a batch of its own: if all shared one, at its end some would wait for the last. Only
    what is much longer than a batch should be is shared, and then less is under way, for it is in memory meanwhile.
    """
    most = 2 * batch_bytes * (threads + 1)
    under_way: deque[tuple[TextBatch, list[TextBytes], Future[_Encoded]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for batch in reader:
            texts = [text for text in batch.texts if len(text)]
            shared_by = 1 if batch.size <= 2 * batch_bytes else threads
            future = pool.submit(tokenizer.encode_flat, cast("list[bytes | str]", texts), num_threads=shared_by)
            under_way.append((batch, texts, future))
            del batch, texts, future
            # One more than there are threads, so that each finds the next one ready.
            while len(under_way) > threads or sum(each.size for each, _, _ in under_way) > most:
                yield _finished(under_way)
        while under_way:
            yield _finished(under_way)
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(
    under_way: deque[tuple[TextBatch, list[TextBytes], Future[_Encoded]]],
) -> tuple[TextBatch, list[TextBytes], _Encoded]:
    batch, texts, future = under_way.popleft()
    return batch, texts, future.result()


class _Settings(NamedTuple):
    """What must be equal for work to be the same work; and the index has it."""

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
        return np.dtype("<u2" if self.n_vocab <= 1 << 16 else "<u4")


class _Writer:
    """Batches of ids, on their way into shards."""

    def __init__(
        self,
        work: UnfinishedShards,
        settings: _Settings,
        sources: list[str | None],
        token_bytes: npt.NDArray[np.uint32],
    ) -> None:
        self._work, self._settings, self._sources = work, settings, sources
        self._token_bytes = token_bytes
        self._saved = time.monotonic()
        self._position: Position | None = None
        self._split = Split(settings.held_out)
        self._waiting: EncodedDocuments | None = None
        self._tallies: dict[int, SourceTally] = {}
        self.is_complete = False
        """Whether all documents were added, by this writer or the one that it goes on from."""
        self._is_whole = False  # whether all of the last batch was added, and nothing of another one
        self._waiting_file = ""
        state = work.state or {}
        work.path.mkdir(parents=True, exist_ok=True)
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{work.path}: is damaged ({error!r}); remove it to begin anew") from None
        work.clear(but=self._files)

    def _restore(self, state: dict[str, Any]) -> None:
        splits = state.get("splits", {})
        self._shards = {
            split: GrowingShards(
                self._work.path, split, self._settings.dtype, self._settings.shard_tokens, splits.get(split)
            )
            for split in SPLITS
        }
        if not state:
            return
        self.is_complete, self._position = state["complete"], state["position"]
        self._tallies = {int(source): SourceTally(*tally) for source, tally in state["sources"].items()}
        self._split = Split(self._settings.held_out, state["empty"], state["waiting"])
        if state["waiting"] is not None:
            self._waiting_file = Path(state["waiting_file"]).name
            ids = np.fromfile(self._work.path / self._waiting_file, self._settings.dtype).astype(np.uint32)
            ids = ids[self._settings.bos_id is not None : len(ids) - (self._settings.eos_id is not None)]
            size = np.array([state["waiting_bytes"]], np.int64)
            self._waiting = EncodedDocuments(ids, np.array([0, len(ids)], np.int64), size)

    @property
    def documents(self) -> int:
        return sum(tally.documents for tally in self._tallies.values())

    @property
    def size(self) -> int:
        return sum(tally.size for tally in self._tallies.values())

    @property
    def _files(self) -> list[str]:
        names = [name for shards in self._shards.values() for name in shards.files]
        return [*names, self._waiting_file]

    def add(
        self, batch: TextBatch, texts: list[TextBytes], ids: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64]
    ) -> None:
        """Write a batch; every few seconds, make sure that it can be gone on from there."""
        self._is_whole = False
        checksums, sizes = checksums_of(texts), sizes_of(texts)
        block = EncodedDocuments(ids, offsets, sizes)
        sides = self._split.add(places(checksums, self._settings.seed))
        if self._waiting is not None:
            block = EncodedDocuments.joined([self._waiting, block])
        for split, rows in sides.rows.items():
            self._shards[split].add(self._framed(block, rows))
        self._waiting = None if sides.waiting is None else block.take(np.array([sides.waiting]))
        self._tallies.setdefault(batch.source, SourceTally()).add(checksums, int(sizes.sum()))
        self._position = batch.position
        self._is_whole = True
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self.save()

    def _framed(self, block: EncodedDocuments, rows: npt.NDArray[np.int64]) -> EncodedDocuments:
        """Documents as they are written."""
        settings = self._settings
        return block.take(rows, settings.dtype, settings.bos_id, settings.eos_id)

    def save(self) -> None:
        """Put all on disk, with the place in the corpus that it reaches to."""
        self._store()
        splits = {split: shards.save() for split, shards in self._shards.items()}
        before, self._waiting_file = self._waiting_file, ""
        if self._waiting is not None:
            self._waiting_file = f"waiting-{self.documents}.bin"  # not that of the state before, which is still needed
            write_bytes(self._work.path / self._waiting_file, self._framed(self._waiting, _FIRST).ids.tobytes())
        self._work.save(
            complete=self.is_complete,
            position=self._position,
            splits=splits,
            sources={str(source): astuple(tally) for source, tally in self._tallies.items()},
            empty=self._split.empty,
            waiting=None if self._waiting is None else self._split.waiting,
            waiting_file=self._waiting_file,
            waiting_bytes=0 if self._waiting is None else int(self._waiting.bytes[0]),
        )
        if before and before != self._waiting_file:
            (self._work.path / before).unlink(missing_ok=True)
        self._saved = time.monotonic()

    def _store(self) -> None:
        """Begin to put all files on disk: one after the other, each would be waited for."""
        for shards in self._shards.values():
            shards.store()

    def save_whole(self) -> None:
        """The same, unless a batch was begun and not finished."""
        if self._is_whole:
            self.save()

    def finish(self) -> None:
        """The last batch was added."""
        self._is_whole = False
        if self._split.empty:
            raise InputError("there is no document to write; the sources are empty")
        if self._waiting is not None:
            last = self._framed(self._waiting, _FIRST)
            if self.documents > 1:
                self._shards[self._split.side_of_last()].add(last)
            else:
                self._add_cut(last)
            self._waiting = None
        self._store()
        for shards in self._shards.values():
            shards.finish()
        self.is_complete = True
        self.save()

    def _add_cut(self, block: EncodedDocuments) -> None:
        """Of a single document, the end is held out."""
        count = len(block.ids)
        kept = count - max(2, round(self._settings.held_out * count))  # two tokens make one prediction
        if kept < 2:
            raise InputError(f"the only document has {count} tokens; that is too little to train on")
        held_out_bytes = self._token_bytes[block.ids[kept:]].sum(keepdims=True, dtype=np.int64)
        for split, ids, size in (
            (TRAIN, block.ids[:kept], block.bytes - held_out_bytes),
            (HELD_OUT, block.ids[kept:], held_out_bytes),
        ):
            self._shards[split].add(EncodedDocuments(ids, np.array([0, len(ids)], np.int64), size))

    def close(self) -> None:
        """Let go of the files; where nothing was saved, nothing is left."""
        for shards in self._shards.values():
            shards.abandon()
        if not (self._work.path / STATE).exists():
            self._work.remove()

    def index(self, corpus: ShardSources, reader: CorpusReader) -> dict[str, Any]:
        """What is there."""
        files: dict[int, list[dict[str, Any]]] = {}
        for feed in reader.fingerprint["sources"]:
            if "path" in feed:
                files.setdefault(feed["source"], []).append({"path": feed["path"], "size": feed["size"]})
        return {
            "format": INDEX_FORMAT,
            "version": INDEX_VERSION,
            "dtype": self._settings.dtype.name,
            **self._settings._asdict(),
            "splits": {split: shards.summary() for split, shards in self._shards.items()},
            "corpus": {
                "field": corpus.field,
                "separator": corpus.separator,
                "errors": corpus.errors,
                "exclude": list(corpus.exclude),
                "sources": [
                    {
                        "source": name,
                        **self._tallies.get(number, SourceTally()).summary(),
                        "files": files.get(number, []),
                    }
                    for number, name in enumerate(self._sources)
                ],
            },
        }


def _describe(source: CorpusSource) -> str | None:
    """The path of a source that can be read again by it."""
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    return None if name == "-" else name

"""The builder of shards: splits encoded documents, writes both splits, and saves a state to resume from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bpe.corpus import CorpusReader, Position
from bpe.errors import InputError
from bpe.files import write_bytes
from bpe.shards.encoded import EncodedDocuments
from bpe.shards.encoding import EncodedBatch
from bpe.shards.growing import GrowingShards
from bpe.shards.layout import HELD_OUT, INDEX_FORMAT, INDEX_VERSION, SPLITS, TRAIN
from bpe.shards.origin import ShardSources, SourceTally, checksums_of, sizes_of
from bpe.shards.shards_settings import ShardsSettings
from bpe.shards.split import Split, places
from bpe.shards.unfinished import STATE, UnfinishedShards

SAVE_EVERY = 5.0  # seconds: the most work that an interruption may lose

_FIRST = np.zeros(1, np.int64)  # the row of the only document


class ShardsBuilder:
    """Writes batches of ids into the shards of both splits, from the saved state on.

    Args:
        work: The directory of unfinished shards, and the state of earlier work in it.
        settings: The settings that the shards are written with.
        sources: The path of each source, or None for a source that cannot be read again.
        token_bytes: How many bytes of text each id stands for. uint32 [n_vocab]

    Attributes:
        is_complete: Whether all documents have been added, by this builder or by the one that it continues.

    Raises:
        InputError: When the saved state is damaged, or does not match the files.
    """

    def __init__(
        self,
        work: UnfinishedShards,
        settings: ShardsSettings,
        sources: Sequence[str | None],
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
        self._is_whole = False  # whether the last batch was added completely, and no other batch was begun
        self._waiting_file = ""
        state = work.state or {}
        work.path.mkdir(parents=True, exist_ok=True)
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{work.path}: the saved state is damaged ({error!r}); remove the directory to start over"
            ) from None
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
        """How many documents have been added."""
        return sum(tally.documents for tally in self._tallies.values())

    @property
    def size(self) -> int:
        """How many bytes of text have been added."""
        return sum(tally.size for tally in self._tallies.values())

    @property
    def _files(self) -> list[str]:
        names = [name for shards in self._shards.values() for name in shards.files]
        return [*names, self._waiting_file]

    def add(self, encoded: EncodedBatch) -> None:
        """Write a batch, and save the state every few seconds."""
        self._is_whole = False
        batch, texts, ids, offsets = encoded
        checksums, sizes = checksums_of(texts), sizes_of(texts)
        documents = EncodedDocuments(ids, offsets, sizes)
        sides = self._split.add(places(checksums, self._settings.seed))
        if self._waiting is not None:
            documents = EncodedDocuments.joined([self._waiting, documents])
        for split, rows in sides.rows.items():
            self._shards[split].add(self._framed(documents, rows))
        self._waiting = None if sides.waiting is None else documents.take(np.array([sides.waiting]))
        self._tallies.setdefault(batch.source, SourceTally()).add(checksums, int(sizes.sum()))
        self._position = batch.position
        self._is_whole = True
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self.save()

    def _framed(self, documents: EncodedDocuments, rows: npt.NDArray[np.int64]) -> EncodedDocuments:
        """Return some documents as they are written: in the type on disk, with the tokens that begin and end them."""
        settings = self._settings
        return documents.take(rows, settings.dtype, settings.bos_id, settings.eos_id)

    def save(self) -> None:
        """Flush all files to disk, then save the position in the corpus up to which they reach."""
        self._store()
        splits = {split: shards.save() for split, shards in self._shards.items()}
        before, self._waiting_file = self._waiting_file, ""
        if self._waiting is not None:
            # Another name than that of the saved state, whose file is needed until the new state is saved.
            self._waiting_file = f"waiting-{self.documents}.bin"
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
        """Start to flush all files, so that they are flushed together and not one after another."""
        for shards in self._shards.values():
            shards.store()

    def save_whole(self) -> None:
        """Save, unless a batch has been added in part."""
        if self._is_whole:
            self.save()

    def finish(self) -> None:
        """Complete the shards after the last batch.

        Raises:
            InputError: When there is no document, or too little text to split.
        """
        self._is_whole = False
        if self._split.empty:
            raise InputError("no document to write; the sources are empty")
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

    def _add_cut(self, document: EncodedDocuments) -> None:
        """Write the only document, and hold out its end."""
        count = len(document.ids)
        kept = count - max(2, round(self._settings.held_out * count))  # two tokens make one prediction
        if kept < 2:
            raise InputError(f"the only document has {count} tokens, which is too little to train on; add more text")
        held_out_bytes = self._token_bytes[document.ids[kept:]].sum(keepdims=True, dtype=np.int64)
        for split, ids, size in (
            (TRAIN, document.ids[:kept], document.bytes - held_out_bytes),
            (HELD_OUT, document.ids[kept:], held_out_bytes),
        ):
            self._shards[split].add(EncodedDocuments(ids, np.array([0, len(ids)], np.int64), size))

    def close(self) -> None:
        """Close the files, and remove the directory of unfinished shards if no state was saved."""
        for shards in self._shards.values():
            shards.abandon()
        if not (self._work.path / STATE).exists():
            self._work.remove()

    def index(self, corpus: ShardSources, reader: CorpusReader) -> dict[str, Any]:
        """Return the content of the index."""
        files: dict[int, list[dict[str, Any]]] = {}
        for feed in reader.fingerprint["sources"]:
            if "path" in feed:
                files.setdefault(feed["source"], []).append({"path": feed["path"], "size": feed["size"]})
        return {
            "format": INDEX_FORMAT,
            "version": INDEX_VERSION,
            "dtype": self._settings.dtype.name,
            **self._settings.as_dict(),
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

"""`write_shards`: encodes the documents of a corpus and writes them as shards."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from bpe.arguments import checked
from bpe.boundaries import known_boundaries
from bpe.corpus import CorpusReader, CorpusSource, left_out_line
from bpe.errors import InputError
from bpe.files import write_bytes
from bpe.progress import Progress, phase, say, shown
from bpe.shards.builder import ShardsBuilder
from bpe.shards.encoding import EncodedBatch, ShardTokenizer, encode_batches
from bpe.shards.layout import INDEX, TOKEN_BYTES, sha256_of
from bpe.shards.locking import locked
from bpe.shards.origin import ShardSources
from bpe.shards.reading import Shards
from bpe.shards.shards_settings import ShardsSettings, WriteOptions, check_tokenizer_file
from bpe.shards.unfinished import UnfinishedShards
from bpe.text import counted
from bpe.tokenizer import Tokenizer

# Bytes of text that a thread encodes at once. Half as many took a tenth longer, because threads wait for each other
# more often. Four times as many took longer, too, because what is copied no longer fits in the processor's cache.
_BATCH_BYTES = 1 << 21

StrPath = str | os.PathLike[str]


class ShardsProgress(NamedTuple):
    """How far `write_shards` has come."""

    documents: int
    bytes: int
    """Bytes of text that have been encoded."""
    read: int
    """Bytes of the files that have been read, as stored on disk."""
    total: int | None
    """Bytes of all files; None if unknown."""


@checked
def write_shards(
    documents: Iterable[bytes | str] | ShardSources,
    tokenizer: ShardTokenizer,
    directory: StrPath,
    *,
    tokenizer_file: StrPath,
    shard_tokens: int = 64_000_000,
    held_out: float = 0.05,
    bos: bool | None = None,
    eos: bool | None = None,
    seed: int = 0,
    threads: int | None = None,
    batch_bytes: int | None = None,
    progress: Callable[[ShardsProgress], None] | Progress = None,
) -> Shards:
    """Encode documents and write them as shards.

    Each document becomes the token that begins a text, if the tokenizer puts one in front, then its ids as ordinary
    text, and the token that ends a text, if there is one. Empty documents are skipped.

    If a call is interrupted, the same call resumes from the last saved state, which is a few seconds old at most, and
    writes the same files. Until all shards are written, they are in `directory` / "work", and existing shards remain
    unchanged; then the new shards replace them.

    The files depend only on the documents, the tokenizer and the options before `threads`. A whole document is in
    memory with its ids, besides a few batches.

    Args:
        documents: Documents as str or bytes; or `ShardSources`, which names files and how to read them.
        tokenizer: Encodes the documents.
        directory: Where to write; a new or empty directory, or one that holds shards.
        tokenizer_file: The file that `tokenizer` was read from. It is copied, so that the shards can be decoded.
        shard_tokens: The most tokens of a shard. A shard holds whole documents; a longer document gets a shard of its
            own.
        held_out: The share of documents to hold out from training, in [0, 1). A document is held out depending on a
            hash of its text and `seed`, so adding or removing other documents does not move it. If this leaves a split
            empty, the document whose hash is nearest to it changes over; a single document is cut near its end.
        bos: Whether documents begin with the token that begins a text. Default: if the tokenizer puts one in front.
        eos: Whether documents end with the first of the tokens that end a text. Default: if there is one.
        seed: Selects other held-out documents. 0 to 2**64 - 1.
        threads: How many threads encode. Default: one per processor.
        batch_bytes: Approximate bytes of text that a thread encodes at once.
        progress: True shows the progress on a terminal or in a notebook, and a stream there. A callback is called after
            each batch.

    Returns:
        The shards, opened.

    Raises:
        InputError: When an option is out of range, the tokenizer lacks the token that `bos` or `eos` asks for, or puts
            several tokens in front of a text, there are no documents, the corpus cannot be read, the corpus or an
            option differs from that of the interrupted call, the directory holds other files, or another process is
            writing there.
        OSError: When a file cannot be read or the disk is full. The saved state remains to resume from.
    """
    tokenizer_file, directory = Path(tokenizer_file), Path(directory)
    options = WriteOptions(shard_tokens, held_out, seed, threads, batch_bytes)
    options.check()
    check_tokenizer_file(tokenizer_file)
    if isinstance(documents, (str, os.PathLike)):
        documents = ShardSources(documents)
    corpus = documents if isinstance(documents, ShardSources) else ShardSources([cast(CorpusSource, documents)])
    with shown(progress), locked(directory):
        settings = _settings_of(tokenizer, tokenizer_file, options, bos, eos)
        work = UnfinishedShards(directory, settings.as_dict())
        if not work.is_done:
            index = _write(corpus, tokenizer, work, settings, options, progress if callable(progress) else None)
            write_bytes(work.path / tokenizer_file.name, tokenizer_file.read_bytes())
            # The index comes last: where it exists, the shards are complete.
            write_bytes(work.path / INDEX, (json.dumps(index, indent=2) + "\n").encode())
            work.publish()
        return Shards(directory)


def document_boundaries(tokenizer: ShardTokenizer, bos: bool | None, eos: bool | None) -> tuple[int | None, int | None]:
    """Return the tokens that begin and end each document; None for no token. See `write_shards`."""
    if isinstance(tokenizer, Tokenizer):
        said, name = tokenizer.vocabulary.boundaries, tokenizer.name
    else:
        tokens = {text: tokenizer.encode_single_token(text) for text in tokenizer.special_tokens_set}
        said, name = known_boundaries(tokens), "the tokenizer"
    begin = None if bos is False else _only(said.prefix_ids, name, "in front of", "bos")
    if bos and begin is None:
        if said.bos_id is None:
            raise _no_token(name, "begins", "bos")
        begin = said.bos_id
    end = None if eos is False else _only(said.suffix_ids, name, "behind", "eos")
    if eos is not False and end is None:
        end = next((id for id in said.eos_ids if id < tokenizer.n_vocab), None)
        if eos and end is None:
            raise _no_token(name, "ends", "eos")
    return begin, end


def _only(ids: Sequence[int], name: str, place: str, option: str) -> int | None:
    if len(ids) > 1:
        raise InputError(
            f"{name} puts {len(ids)} tokens {place} each text, but shards hold at most one; give {option}=False (on the"
            f" command line --no-{option})"
        )
    return ids[0] if ids else None


def _no_token(name: str, verb: str, option: str) -> InputError:
    return InputError(
        f"{name}: no token {verb} a text, so {option}=True (--{option}) cannot be followed; leave it out, name"
        f' the token as "{option}_token" in a tokenizer_config.json beside the tokenizer.json, or train the'
        f" tokenizer with --special {'<|begin_of_text|>' if option == 'bos' else '<|end_of_text|>'}"
    )


def _settings_of(
    tokenizer: ShardTokenizer, tokenizer_file: Path, options: WriteOptions, bos: bool | None, eos: bool | None
) -> ShardsSettings:
    begin, end = document_boundaries(tokenizer, bos, eos)
    return ShardsSettings(
        n_vocab=tokenizer.n_vocab,
        bos_id=begin,
        eos_id=end,
        tokenizer_file=tokenizer_file.name,
        tokenizer_sha256=sha256_of(tokenizer_file),
        shard_tokens=options.shard_tokens,
        held_out=options.held_out,
        seed=options.seed,
    )


def _write(
    corpus: ShardSources,
    tokenizer: ShardTokenizer,
    work: UnfinishedShards,
    settings: ShardsSettings,
    options: WriteOptions,
    progress: Callable[[ShardsProgress], None] | None,
) -> dict[str, Any]:
    """Write the shards into the directory of unfinished ones, and return the content of their index."""
    # 1. Open the corpus where earlier work stopped.
    sources = corpus.listed()
    batch_bytes = options.batch_bytes or _BATCH_BYTES
    reader = _open_reader(corpus, sources, work, batch_bytes)
    token_bytes = _token_bytes(tokenizer)
    builder = ShardsBuilder(work, settings, [_path_of(source) for source in sources], token_bytes)

    # 2. Encode and write batch after batch.
    try:
        if not builder.is_complete:
            threads = options.threads or os.cpu_count() or 1
            with closing(encode_batches(reader, tokenizer, threads, batch_bytes)) as encoded:
                _write_batches(encoded, reader.total, builder, progress)
            with phase("writing the shards"):
                builder.finish()
    except KeyboardInterrupt:
        builder.save_whole()
        raise
    finally:
        builder.close()

    # 3. Describe the shards.
    if reader.left_out:
        say(left_out_line(reader.left_out))
    write_bytes(work.path / TOKEN_BYTES, token_bytes.astype("<u4").tobytes())
    return builder.index(corpus, reader)


def _open_reader(
    corpus: ShardSources, sources: list[CorpusSource], work: UnfinishedShards, batch_bytes: int
) -> CorpusReader:
    state = work.state
    try:
        return corpus.reader(sources, state["position"] if state else None, batch_bytes)
    except InputError as error:
        raise InputError(f"{error} (the unfinished shards are in {work.path})") if state else error from None


def _token_bytes(tokenizer: ShardTokenizer) -> npt.NDArray[np.uint32]:
    """Return how many bytes of text each id stands for, 0 for special tokens. uint32 [n_vocab]"""
    token_bytes = tokenizer.token_sizes()
    token_bytes[[tokenizer.encode_single_token(text) for text in tokenizer.special_tokens_set]] = 0
    return token_bytes


def _write_batches(
    encoded: Iterable[EncodedBatch],
    total: int | None,
    builder: ShardsBuilder,
    progress: Callable[[ShardsProgress], None] | None,
) -> None:
    """Write each batch in another thread, while the next ones are encoded."""
    documents, size = builder.documents, builder.size
    with phase("encoding", total, "bytes") as encoding, ThreadPoolExecutor(1) as other_thread:
        written: Future[None] | None = None
        for each in encoded:
            if written is not None:
                written.result()
            written = other_thread.submit(builder.add, each)
            documents, size = documents + len(each.texts), size + each.batch.size
            encoding.update(each.batch.read if total else size, counted(documents, "document"))
            if progress is not None:
                progress(ShardsProgress(documents, size, each.batch.read, total))
            del each  # so that no more batches than needed are in memory
        if written is not None:
            written.result()


def _path_of(source: CorpusSource) -> str | None:
    """Return the path of a source that can be read again by it, or None."""
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    return None if name == "-" else name

"""Encoding of text batches on several threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from bpe.corpus import CorpusReader, TextBatch, TextBytes

FlatIds = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]


class ShardTokenizer(Protocol):
    """The part of a tokenizer that writing shards uses. Several threads encode at the same time."""

    @property
    def n_vocab(self) -> int: ...
    @property  # Any, since tiktoken's is a cached_property, which pyright does not accept as a property
    def special_tokens_set(self) -> Any: ...
    def encode_single_token(self, text_or_bytes: str | bytes, /) -> int: ...
    def token_sizes(self) -> npt.NDArray[np.uint32]: ...
    def encode_flat(self, texts: list[bytes | str], /, *, num_threads: int | None = None) -> FlatIds: ...


class EncodedBatch(NamedTuple):
    """A batch with the ids of its texts."""

    batch: TextBatch
    texts: list[TextBytes]
    """The texts of the batch that are not empty."""
    ids: npt.NDArray[np.uint32]
    """The ids of all texts, one after another."""
    offsets: npt.NDArray[np.int64]
    """Where each text begins in `ids`, and where the last one ends. [texts + 1]"""


class _Pending(NamedTuple):
    """A batch that is being encoded."""

    batch: TextBatch
    texts: list[TextBytes]
    encoded: Future[FlatIds]

    def result(self) -> EncodedBatch:
        return EncodedBatch(self.batch, self.texts, *self.encoded.result())


def encode_batches(
    reader: CorpusReader, tokenizer: ShardTokenizer, threads: int, batch_bytes: int
) -> Generator[EncodedBatch, None, None]:
    """Yield each batch of the reader with its ids, in order.

    Each thread encodes a batch of its own: if all threads shared one batch, some would wait at its end for the last.
    Only a batch that is much longer than `batch_bytes` is shared. Fewer batches are pending then, because they are
    all in memory.

    Args:
        reader: Yields the batches.
        tokenizer: Encodes them.
        threads: How many threads encode.
        batch_bytes: The size that a batch should have, in bytes.
    """
    most = 2 * batch_bytes * (threads + 1)
    pending: deque[_Pending] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for batch in reader:
            texts = [text for text in batch.texts if len(text)]
            shared_by = 1 if batch.size <= 2 * batch_bytes else threads
            future = pool.submit(tokenizer.encode_flat, cast("list[bytes | str]", texts), num_threads=shared_by)
            pending.append(_Pending(batch, texts, future))
            del batch, texts, future
            # One batch more than there are threads, so that each thread finds the next one ready.
            while len(pending) > threads or sum(each.batch.size for each in pending) > most:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

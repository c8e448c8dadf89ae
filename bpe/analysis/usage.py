"""How a text uses a vocabulary: how often each token occurs, and which tokens its words are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bpe.analysis.bootstrap import BLOCK_BYTES
from bpe.analysis.token_arrays import Counts, TokenArrays
from bpe.analysis.words import word_spans
from bpe.corpus import in_batches
from bpe.errors import InputError
from bpe.tokenizer import Tokenizer

BATCH_BYTES = 4 << 20  # bytes of documents to encode together, and of text in which to find words at once


@dataclass(frozen=True)
class WordUsage:
    """The words of a text (see `word_spans`), and the tokens that they are made of.

    Tokens per word are the fertility of Ács, "Exploring BERT's vocabulary" (2019). Words of several tokens are the
    continued words of Rust et al., "How Good is Your Tokenizer?" (ACL 2021), section 3. A token belongs to a word if it
    contains a byte of the word, so a token of only the space before or the punctuation after a word does not count.

    Attributes:
        count: How many words there are.
        tokens: How many tokens belong to them.
        whole: How often each token contains a word from beginning to end. int64 [ids]
    """

    count: int
    tokens: int
    whole: Counts


@dataclass(frozen=True)
class Usage:
    """How often a text uses each token of a vocabulary.

    Attributes:
        name: The name of the text.
        counts: How often each token is used, for each id up to the highest of a token that is not special. int64 [ids]
        documents: How many documents the text has; None if unknown.
        words: The words of the text; None if unknown, because only counts of tokens are known.
        size: The size of the text in bytes, and its number of characters; None if the tokens say it, because their
            bytes are those of the text.
        blocks: The text in blocks of `BLOCK_BYTES`, of which the last of a document is shorter. For each block: its
            document, its size in bytes, and how many tokens begin in it. int64 [3, blocks]
    """

    name: str
    counts: Counts
    documents: int | None = None
    words: WordUsage | None = None
    blocks: Counts | None = None
    size: tuple[int, int] | None = None


def usage_of(tokenizer: Tokenizer, documents: Iterable[bytes], name: str) -> Usage:
    """Encode documents, with special tokens as ordinary text, and count the tokens.

    Args:
        tokenizer: Encodes the documents.
        documents: The documents.
        name: The name of the text.

    Raises:
        InputError: When the documents hold no text.

    >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
    >>> tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
    >>> usage = usage_of(tokenizer, [b"ab ab abc"], "text")
    >>> usage.counts[[ord(" "), ord("c"), 256]].tolist(), usage.words.count, usage.words.tokens
    ([2, 1, 3], 3, 4)
    """
    return usages_of([tokenizer], documents, name)[0]


def usages_of(tokenizers: Sequence[Tokenizer], documents: Iterable[bytes], name: str) -> list[Usage]:
    """Return what `usage_of` returns for each of several tokenizers, but read the documents once.

    Raises:
        InputError: When the documents hold no text.
    """
    counters = [_UsageCounter(tokenizer) for tokenizer in tokenizers]
    count = 0
    for batch in in_batches(documents, BATCH_BYTES):
        text = _JoinedDocuments(batch, count)
        count += len(batch)
        encoded = [counter.add(text) for counter in counters]
        for begin, end in text.pieces():
            begins, ends = word_spans(text.content[begin:end])
            for counter, (ids, starts) in zip(counters, encoded, strict=True):
                counter.add_words(begins, ends, ids, starts, begin, end)
    usages = [counter.usage(name, count) for counter in counters]
    if not any(usage.counts.any() for usage in usages):
        raise InputError(f"{name}: no text to measure: {count:,} documents hold 0 bytes")
    return usages


def without_special_tokens(tokenizer: Tokenizer, documents: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the documents, cut at special tokens, which are boundaries and not text, as in training."""
    for document in documents:
        begin = 0
        for start, end, _ in [*tokenizer.vocabulary.special_matcher.all_in(document), (len(document), 0, 0)]:
            if start > begin:
                yield document[begin:start]
            begin = end


def total(usages: Sequence[Usage], name: str) -> Usage:
    """Return the sum of several usages of one vocabulary, without blocks."""
    documents = [usage.documents for usage in usages if usage.documents is not None]
    words = [usage.words for usage in usages if usage.words is not None]
    sizes = [usage.size for usage in usages if usage.size is not None]
    return Usage(
        name,
        np.sum([usage.counts for usage in usages], axis=0),
        sum(documents) if len(documents) == len(usages) else None,
        _sum_of_words(words) if len(words) == len(usages) else None,
        size=(sum(size[0] for size in sizes), sum(size[1] for size in sizes)) if len(sizes) == len(usages) else None,
    )


def _sum_of_words(words: Sequence[WordUsage]) -> WordUsage:
    return WordUsage(
        sum(each.count for each in words),
        sum(each.tokens for each in words),
        np.sum([each.whole for each in words], axis=0),
    )


def character_count(content: bytes) -> int:
    """Return how many characters begin in UTF-8."""
    return int(np.count_nonzero(np.frombuffer(content, np.uint8) & 0xC0 != 0x80))


class _JoinedDocuments:
    """A batch of documents as one text, with a line break between documents."""

    def __init__(self, documents: Sequence[bytes], first: int) -> None:
        self.documents = documents
        self.content = b"\n".join(documents)
        sizes = np.fromiter(map(len, documents), np.int64, len(documents))
        ends = np.cumsum(sizes + 1) - 1
        blocks = -(-sizes // BLOCK_BYTES)
        owner = np.repeat(np.arange(len(documents)), blocks)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
        self.block_documents = first + owner
        self.block_begins = (ends - sizes)[owner] + BLOCK_BYTES * place
        self.block_ends = np.minimum(self.block_begins + BLOCK_BYTES, ends[owner])

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of whole lines of about `BATCH_BYTES`, which cut no word."""
        begin = 0
        while begin < len(self.content):
            end = self.content.find(b"\n", begin + BATCH_BYTES) + 1 or len(self.content)
            yield begin, end
            begin = end


class _UsageCounter:
    """Counts how text uses one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._sizes = TokenArrays(tokenizer).sizes
        self._counts = np.zeros_like(self._sizes)
        self._whole = np.zeros_like(self._sizes)
        self._words = self._word_tokens = 0
        self._blocks = [np.zeros((3, 0), np.int64)]
        self._size = None if tokenizer.vocabulary.keeps_text else (0, 0)

    def add(self, text: _JoinedDocuments) -> tuple[npt.NDArray[np.uint32], Counts]:
        """Count the tokens of a text; return the ids of all its documents, and where in the text each token begins."""
        vocabulary = self._tokenizer.vocabulary
        if vocabulary.keeps_text:
            ids, offsets = self._tokenizer.encode_flat(text.documents)
            sizes = self._sizes[ids]
            starts = np.cumsum(sizes) - sizes + np.repeat(np.arange(len(text.documents)), np.diff(offsets))
        else:
            ids, starts = self._placed(text.documents)
        self._counts += np.bincount(ids, minlength=len(self._counts))
        if self._size is not None:
            breaks = len(text.documents) - 1  # between the documents
            size, characters = self._size
            self._size = size + len(text.content) - breaks, characters + character_count(text.content) - breaks
        tokens = np.searchsorted(starts, text.block_ends) - np.searchsorted(starts, text.block_begins)
        self._blocks.append(np.stack([text.block_documents, text.block_ends - text.block_begins, tokens]))
        return ids, starts

    def _placed(self, documents: Sequence[bytes]) -> tuple[npt.NDArray[np.uint32], Counts]:
        """Return the ids of documents that the ids do not decode to, and where each begins in the joined documents."""
        vocabulary = self._tokenizer.vocabulary
        ids: list[int] = []
        starts: list[int] = []
        begin = 0
        for document in documents:
            more, places = vocabulary.encoder.encode_with_places(document, vocabulary.always_added, False)
            ids += more
            starts += (begin + place[0] for place in places)
            begin += len(document) + 1
        return np.array(ids, np.uint32), np.maximum.accumulate(np.array(starts, np.int64))

    def add_words(
        self,
        begins: Counts,
        ends: Counts,
        ids: npt.NDArray[np.uint32],
        starts: Counts,
        begin: int,
        end: int,
    ) -> None:
        """Count words, given where they begin and end in the range [begin, end) of the text."""
        first, last = np.searchsorted(starts, (begin, end))
        begun = np.cumsum(np.bincount(starts[first:last] - begin, minlength=end - begin))  # up to each byte
        tokens = begun[ends - 1] - begun[begins] + 1
        whole = ids[first + begun[begins[tokens == 1]] - 1]
        self._words += len(begins)
        self._word_tokens += int(tokens.sum())
        self._whole += np.bincount(whole, minlength=len(self._whole))

    def usage(self, name: str, documents: int) -> Usage:
        """Return the usage of all texts so far."""
        words = WordUsage(self._words, self._word_tokens, self._whole)
        return Usage(name, self._counts, documents, words, np.concatenate(self._blocks, axis=1), self._size)

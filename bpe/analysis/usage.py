"""How a vocabulary is used on a text: how often each token, what words are made of, how much each merge saves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import regex

from bpe.analysis.bootstrap import BLOCK_BYTES
from bpe.corpus import in_batches
from bpe.errors import InputError
from bpe.tokenizer import Tokenizer

Counts = npt.NDArray[np.int64]

BATCH_BYTES = 4 << 20  # of documents that are encoded together, and of text whose words are looked for at once

# The scripts that Unicode recommends for identifiers (UAX #31, table 5), which are those in wide everyday use. Each
# takes a bit of a mask, and so do the classes of characters that belong to no script.
SCRIPTS = (
    *("Latin", "Han", "Cyrillic", "Arabic", "Devanagari", "Hangul", "Hiragana", "Katakana", "Greek", "Hebrew", "Thai"),
    *("Armenian", "Bengali", "Bopomofo", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi", "Kannada", "Khmer", "Lao"),
    *("Malayalam", "Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu", "Thaana", "Tibetan"),
)
CLASSES = (
    *SCRIPTS,
    "other scripts",
    "several scripts",
    "numbers",
    "punctuation, symbols",
    "white space",
    "parts of characters",
)
_OTHER, _SEVERAL, _NUMBERS, _SYMBOLS, _SPACE, _PARTS = range(len(SCRIPTS), len(CLASSES))

_LETTER, _MARK = 2, 1


class Vocabulary:
    """The tokens of a tokenizer as arrays by id. Special tokens and unused ids stand for no bytes here."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.tokens = [b""] * tokenizer._core.id_limit
        """The bytes of each token [ids]; the ids go up to the highest of a token that is not special."""
        for token, id in tokenizer._mergeable_ranks.items():
            self.tokens[id] = token
        self.sizes: Counts = np.fromiter(map(len, self.tokens), np.int64, len(self.tokens))
        """Bytes of each token [ids]."""
        self.is_token: npt.NDArray[np.bool_] = self.sizes > 0

    @cached_property
    def characters(self) -> Counts:
        """How many characters begin in each token [ids]."""
        begins = np.frombuffer(b"".join(self.tokens), np.uint8) & 0xC0 != 0x80
        sums = np.concatenate(([0], np.cumsum(begins)))
        ends = np.cumsum(self.sizes)
        counts: Counts = sums[ends] - sums[ends - self.sizes]
        return counts

    @cached_property
    def classes(self) -> npt.NDArray[np.int64]:
        """The class of each token [ids], as an index into `CLASSES`; meaningless for unused ids.

        A token with characters of one script belongs to that script, whatever else is in it; without any it is numbers,
        white space, or else punctuation and symbols. Tokens that are not UTF-8 by themselves are parts of characters.
        """
        classes = np.full(len(self.tokens), _PARTS)
        texts, ids = [], []
        for id, token in enumerate(self.tokens):
            try:
                text = token.decode()
            except UnicodeDecodeError:
                continue
            if text:
                texts.append(text)
                ids.append(id)
        points = _code_points("".join(texts))
        begins = np.cumsum([0, *map(len, texts)])[:-1]
        masks = np.bitwise_or.reduceat(_class_bits(points), begins)
        scripts = masks & ((1 << _SEVERAL) - 1)
        kinds = np.full(len(texts), _SYMBOLS)
        kinds[masks & ~np.int64(1 << _SPACE | 1 << _NUMBERS) == 0] = _NUMBERS
        kinds[masks == 1 << _SPACE] = _SPACE
        one = scripts > 0
        kinds[one] = np.log2(scripts[one]).astype(np.int64)
        kinds[scripts & (scripts - 1) > 0] = _SEVERAL
        classes[ids] = kinds
        return classes

    @cached_property
    def _merges(self) -> list[tuple[int, Sequence[int]]]:
        """Of each token of several bytes, by rank, the id and what its bytes are by the ranks below its own alone.

        These are the two halves of its last merge; more than two where merging does not lead to the token, so that it
        is found only as a whole pretoken, or leads there through a token of higher rank.
        """
        pairs = self.tokenizer._core.pairs().reshape(-1, 3).astype(np.int64)
        halves: dict[int, Sequence[int]] = dict(zip(pairs[:, 2].tolist(), pairs[:, :2].tolist(), strict=True))
        ids = np.flatnonzero(self.sizes > 1)
        plain = pairs[pairs[:, :2].max(axis=1) < pairs[:, 2], 2]
        parts_of = dict(halves)
        for id in np.setdiff1d(ids, plain, assume_unique=True).tolist():
            parts = halves.get(id) or self.tokenizer._core.merge(self.tokens[id])
            while any(part >= id and part in halves for part in parts):
                parts = [p for part in parts for p in (halves[part] if part >= id and part in halves else [part])]
            parts_of[id] = parts
        merges = [(id, parts_of[id]) for id in ids.tolist()]
        return merges

    def growth(self, counts: Counts) -> Counts:
        """How many tokens a text would have with the lowest ranks alone: with 256, 257, ... tokens [merges + 1].

        Encoding merges whatever pair has the lowest rank. Where both halves of every pair have lower ranks than the
        whole, a merge makes possible none of a lower rank than its own, so that the merges of a text come in the order
        of their ranks. A vocabulary cut off at rank v then does the same until a rank of v or more is next, and stops.
        So its tokens are the bytes less the merges of ranks below v, and those stand in the derivation trees of the
        tokens of the full vocabulary: no text need be encoded again. A pretoken that is a token is taken whole, without
        merging: there the parts of its tree are what the lower ranks give, which is the same reckoning.

        This is exact for all vocabularies that training by merges makes. In others, such as Llama 3's, few tokens have
        a half of higher rank (81 of 128,000 there); texts in which merging leads to these are off by those places.

        Args:
            counts: how often each token is used [ids].
        """
        occurrences = counts.tolist()
        for id, parts in reversed(self._merges):
            count = occurrences[id]
            if count:
                for part in parts:
                    occurrences[part] += count
        saved = [occurrences[id] * (len(parts) - 1) for id, parts in self._merges]
        tokens: Counts = int(counts @ self.sizes) - np.cumsum([0, *saved])
        return tokens


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _class_bits(points: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """The bit of each character's class; what no script has for itself, marks too, is symbols unless it is more."""
    table = np.zeros(0x110000, np.int64)
    known = np.flatnonzero(np.bincount(points, minlength=len(table))).astype(np.uint32)
    text = known.tobytes().decode("utf-32-le")
    bits = np.full(len(known), 1 << _OTHER)
    classes = [(rf"\p{{Script={script}}}+", 1 << bit) for bit, script in enumerate(SCRIPTS)]
    classes += [(r"[\p{Script=Common}\p{Script=Inherited}\p{Script=Unknown}]+", 1 << _SYMBOLS)]
    classes += [(r"[\p{N}&&\p{Script=Common}]+", 1 << _NUMBERS), (r"\s+", 1 << _SPACE)]
    for pattern, bit in classes:
        for match in regex.finditer(pattern, text, regex.VERSION1):
            bits[match.start() : match.end()] = bit
    table[known] = bits
    return table[points]


@lru_cache(maxsize=1)
def _word_characters() -> npt.NDArray[np.uint8]:
    """Of each code point, whether it is a letter of a script that sets words apart, a mark, or neither (0)."""
    table = np.zeros(0x110000, np.uint8)
    everything = np.arange(len(table), dtype=np.uint32).tobytes().decode("utf-32-le", "surrogatepass")
    letters = r"[\p{L}&&[\p{Word_Break=ALetter}\p{Word_Break=Hebrew_Letter}]]+"
    for pattern, kind in ((r"\p{M}+", _MARK), (letters, _LETTER)):
        for match in regex.finditer(pattern, everything, regex.VERSION1):
            table[match.start() : match.end()] = kind
    return table


def word_spans(text: bytes) -> tuple[Counts, Counts]:
    """Where the words of a text begin and end, in bytes: int64 [words] each.

    A word is the longest run of letters with their marks, so that punctuation and digits belong to none. Letters are
    those for which Unicode has rules that find words (UAX #29: ALetter and Hebrew_Letter). Others, as of Chinese,
    Japanese, Thai, Lao, Khmer and Burmese, are written without spaces between words; these are not counted.

    >>> begins, ends = word_spans("don't naïve 日本 x2".encode())
    >>> begins.tolist(), ends.tolist()
    ([0, 4, 6, 20], [3, 5, 12, 21])
    """
    points: npt.NDArray[Any]
    if text.isascii():
        points, offsets = np.frombuffer(text, np.uint8), None
    else:
        points = _code_points(text.decode("utf-8", "surrogateescape"))
        sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
        sizes[(points >= 0xDC80) & (points < 0xDD00)] = 1  # a byte that is not UTF-8
        offsets = np.concatenate(([0], np.cumsum(sizes)))
    kinds = _word_characters()[points]
    inside = np.concatenate(([False], kinds > 0, [False]))
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    begins, ends = edges[::2], edges[1::2]
    whole = kinds[begins] == _LETTER  # a mark alone is no word
    begins, ends = begins[whole], ends[whole]
    return (begins, ends) if offsets is None else (offsets[begins], offsets[ends])


@dataclass(frozen=True)
class Words:
    """The words of a text (see `word_spans`), and the tokens that they are made of.

    Tokens per word are the fertility of Ács, "Exploring BERT's vocabulary" (2019), and words of several tokens the
    continued words of Rust et al., "How Good is Your Tokenizer?" (ACL 2021), section 3. A token belongs to a word if it
    holds a byte of it, so that the space before and the punctuation after a word do not count.
    """

    count: int
    tokens: int
    whole: Counts
    """How often each token holds a word from beginning to end [ids]."""


@dataclass(frozen=True)
class Usage:
    """How often a text uses each token of a vocabulary."""

    name: str
    counts: Counts
    """How often each token is used [ids]: one number for each id up to the highest of a token that is not special."""
    documents: int | None = None
    words: Words | None = None
    """None where it is not known, since the text itself was not seen."""
    blocks: Counts | None = None
    """The text in blocks of `BLOCK_BYTES`, the last of a document being shorter: for each its document, its bytes, and
    the tokens that begin in it [3, blocks]."""


def usage_of(tokenizer: Tokenizer, documents: Iterable[bytes], name: str) -> Usage:
    """Encode documents, with special tokens as ordinary text, and count what is used.

    >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
    >>> tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
    >>> usage = usage_of(tokenizer, [b"ab ab abc"], "text")
    >>> usage.counts[[ord(" "), ord("c"), 256]].tolist(), usage.words.count, usage.words.tokens
    ([2, 1, 3], 3, 4)
    """
    return usages_of([tokenizer], documents, name)[0]


def usages_of(tokenizers: Sequence[Tokenizer], documents: Iterable[bytes], name: str) -> list[Usage]:
    """`usage_of` for several tokenizers, of documents that are read once.

    Raises:
        InputError: the documents hold no text.
    """
    tallies = [_Tally(tokenizer) for tokenizer in tokenizers]
    count = 0
    for batch in in_batches(documents, BATCH_BYTES):
        text = _Text(batch, count)
        count += len(batch)
        encoded = [tally.add(text) for tally in tallies]
        for begin, end in text.pieces():
            begins, ends = word_spans(text.content[begin:end])
            for tally, (ids, starts) in zip(tallies, encoded, strict=True):
                tally.add_words(begins, ends, ids, starts, begin, end)
    usages = [tally.usage(name, count) for tally in tallies]
    if not any(usage.counts.any() for usage in usages):
        raise InputError(f"{name}: no text to measure: {count:,} documents hold 0 bytes")
    return usages


def without_special_tokens(tokenizer: Tokenizer, documents: Iterable[bytes]) -> Iterator[bytes]:
    """The documents, cut where special tokens stand, as in training: these are boundaries and not text."""
    for document in documents:
        begin = 0
        for start, end, _ in [*tokenizer._all_special.all_in(document), (len(document), 0, 0)]:
            if start > begin:
                yield document[begin:start]
            begin = end


def total(usages: Sequence[Usage], name: str) -> Usage:
    """The sum of several usages of one vocabulary; without blocks."""
    documents = [usage.documents for usage in usages if usage.documents is not None]
    words = [usage.words for usage in usages if usage.words is not None]
    complete = len(words) == len(usages)
    return Usage(
        name,
        np.sum([usage.counts for usage in usages], axis=0),
        sum(documents) if len(documents) == len(usages) else None,
        Words(sum(w.count for w in words), sum(w.tokens for w in words), np.sum([w.whole for w in words], axis=0))
        if complete
        else None,
    )


class _Text:
    """A batch of documents as one text, with a line break between them."""

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
        """The text in whole lines, and in as many together as hold `BATCH_BYTES`: no word is cut."""
        begin = 0
        while begin < len(self.content):
            end = self.content.find(b"\n", begin + BATCH_BYTES) + 1 or len(self.content)
            yield begin, end
            begin = end


class _Tally:
    """What is known so far of one tokenizer's use."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._sizes = Vocabulary(tokenizer).sizes
        self._counts = np.zeros_like(self._sizes)
        self._whole = np.zeros_like(self._sizes)
        self._words = self._word_tokens = 0
        self._blocks = [np.zeros((3, 0), np.int64)]

    def add(self, text: _Text) -> tuple[npt.NDArray[np.uint32], Counts]:
        """Count a text. Returns the ids of all its documents, and where in the text each token begins."""
        ids, offsets = self._tokenizer.encode_flat(text.documents)
        sizes = self._sizes[ids]
        starts = np.cumsum(sizes) - sizes + np.repeat(np.arange(len(text.documents)), np.diff(offsets))
        self._counts += np.bincount(ids, minlength=len(self._counts))
        tokens = np.searchsorted(starts, text.block_ends) - np.searchsorted(starts, text.block_begins)
        self._blocks.append(np.stack([text.block_documents, text.block_ends - text.block_begins, tokens]))
        return ids, starts

    def add_words(
        self,
        begins: Counts,
        ends: Counts,
        ids: npt.NDArray[np.uint32],
        starts: Counts,
        begin: int,
        end: int,
    ) -> None:
        """Count words, given from where to where in the piece [begin, end) of the text."""
        first, last = np.searchsorted(starts, (begin, end))
        begun = np.cumsum(np.bincount(starts[first:last] - begin, minlength=end - begin))  # up to each byte
        tokens = begun[ends - 1] - begun[begins] + 1
        whole = ids[first + begun[begins[tokens == 1]] - 1]
        self._words += len(begins)
        self._word_tokens += int(tokens.sum())
        self._whole += np.bincount(whole, minlength=len(self._whole))

    def usage(self, name: str, documents: int) -> Usage:
        words = Words(self._words, self._word_tokens, self._whole)
        return Usage(name, self._counts, documents, words, np.concatenate(self._blocks, axis=1))

"""corpus -> counts -> merges -> Tokenizer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bpe import _core
from bpe.corpus import CorpusSource, Invalid, read_corpus
from bpe.errors import InputError
from bpe.tokenizer import Tokenizer
from bpe.training.counting import Count
from bpe.training.required import _required, _with_required
from bpe.training.start import _pattern, _Start
from bpe.training.work import Merges, WorkDirectory
from bpe.vocabulary import Vocabulary, as_added_tokens

BATCH_BYTES = 2 << 20


class Progress(NamedTuple):
    """How far training has come."""

    phase: Literal["count", "merge"]
    documents: int
    """That were counted."""
    size: int
    """Of their text, in bytes."""
    read: int
    """Of the files, in bytes as they are on disk."""
    total: int | None
    """All there is to read; None if that is not known."""
    merges: int
    """That were learned, of `wanted`."""
    wanted: int


class Step(NamedTuple):
    """One merge, and a word that it shortens."""

    rank: int
    """The id of the new token."""
    left: bytes
    right: bytes
    times: float
    """How often the two stand side by side in the text, with the weights of its sources."""
    word: list[bytes]
    """The tokens of the most frequent word with the pair, before the merge."""
    place: int
    """Where in `word` the pair stands."""


@dataclass(frozen=True)
class Trained:
    """A vocabulary, and what training tells of it."""

    tokenizer: Tokenizer
    pairs: npt.NDArray[np.uint32]
    """[n, 2] the ids that were merged, in order."""
    counts: npt.NDArray[np.float64]
    """[n] how often they stood side by side in the text at that time, with the weights of its sources."""
    uses: npt.NDArray[np.float64]
    """[highest rank + 1] how often each token stands in the text when it is encoded."""
    documents: int
    size: int
    """Of the text, in bytes, every source as often as it is: without weights."""
    invalid: list[Invalid]
    """Where the text was not UTF-8."""
    seconds: dict[str, float]
    """How long reading and counting took ("count"), and learning merges ("merge"), in this process."""


def train(
    sources: CorpusSource | Iterable[CorpusSource],
    vocab_size: int,
    pattern: str | None = None,
    special_tokens: Sequence[str] | None = None,
    *,
    base: Tokenizer | None = None,
    required_tokens: Sequence[str | bytes] = (),
    tie_break: Literal["bytes", "huggingface"] = "bytes",
    min_frequency: int = 1,
    max_token_length: int | None = None,
    allow_smaller: bool = False,
    name: str = "trained",
    weights: Sequence[float] | None = None,
    field: str = "text",
    errors: Literal["replace", "ignore", "strict"] = "replace",
    exclude: Sequence[str] = (),
    threads: int | None = None,
    max_memory: int | None = None,
    work: str | os.PathLike[str] | None = None,
    note: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    trace: int = 0,
    traced: Callable[[Step], None] | None = None,
    trained: Callable[[Trained], None] | None = None,
) -> Tokenizer:
    """Learn a byte-level BPE vocabulary: the pair with the highest count is merged first, again and again.

    Args:
        sources: paths of files or directories, globs, "-" for stdin, iterables of str or bytes, data sets: see
            ``bpe.corpus``.
        vocab_size: how many tokens in all: 256 bytes, the merges, and the special tokens, which come last.
        pattern: how text is split before: a name ("llama3", "o200k", "gpt2") or a regular expression. By default that
            of the base, or "llama3".
        special_tokens: strings with ids of their own; by default those of the base, with their ids, or of the named
            pattern. Where one stands in the text it is a boundary and is not counted.
        base: a tokenizer to start from: all its ids stay, and new tokens take those that come after, as if training
            had gone on.
        required_tokens: are in the vocabulary however rare they are: those that were not learned come at the end, with
            the tokens that lead to them.
        tie_break: of pairs with the same count, the one with the lowest pair of ids comes first, where the ids of the
            single bytes are the byte values ("bytes"), or Hugging Face's order ("huggingface"), or the base's.
        min_frequency: pairs rarer than this are not merged.
        max_token_length: no token is longer than this many bytes.
        allow_smaller: accept a smaller vocabulary where the text has no more pairs, instead of raising.
        name: of the tokenizer.
        weights: one for each source: as if its text stood there so many times. Fractions are exact.
        field: the key of the text in .jsonl files, or the column in .parquet files and data sets.
        errors: what becomes of bytes that are not UTF-8: "replace" (by U+FFFD), "ignore", "strict".
        exclude: names or patterns of files and directories to leave out.
        threads: how many count; all processors by default. The result does not depend on it.
        max_memory: of this process, in bytes. What does not fit is put on disk, in `work` or in a temporary directory.
        work: a directory for work that takes longer than half a minute, made when there is something to keep. If this
            is interrupted, the same call goes on from there. It is removed at the end.
        note: plain values that are kept in the work directory, for whoever takes the work up; see
            ``bpe.training.work.read_state``.
        progress: called now and then.
        trace: so many of the first merges are told to `traced`.
        trained: called at the end with what else there is to know, before the work directory is removed.

    Raises:
        InputError: no text; a vocabulary size that is too small, or larger than the text can give; a base with another
            pattern; a work directory of other work; not enough memory.
        OSError: a file that cannot be read; no space left in the work directory.

    >>> tokenizer = train([["ab bc bcd cde"]], vocab_size=259, pattern="gpt2", special_tokens=())
    >>> [tokenizer.decode([id]) for id in (256, 257, 258)]
    [' b', 'cd', ' cd']
    """
    # 1. What there is before, and what is wanted.
    chosen = _pattern(pattern, base)
    start = _Start.of_base(base, special_tokens) if base else _Start.of_bytes(chosen, special_tokens, tie_break)
    required = _required(required_tokens, chosen)
    merges = vocab_size - len(start.ranks) - len(start.special_tokens)
    listed: list[Any] = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    whole_weights, scale = _whole(weights, len(listed))
    if merges < 0:
        raise InputError(
            f"a vocabulary of {vocab_size} is too small: {start.what} and {len(start.special_tokens)} special tokens"
            f" need at least {vocab_size - merges}"
        )
    for option, value, least in (
        ("threads", threads, 1),
        ("min_frequency", min_frequency, 1),
        ("max_token_length", max_token_length, 2),
        ("trace", trace, 0),
    ):
        if value is not None and not least <= value < 1 << 32:
            raise InputError(f"{option} is {value}; it must be at least {least}, and less than {1 << 32:,}")

    # 2. Count pretokens.
    began = time.monotonic()
    settings = {
        "pattern": chosen.text,
        "special tokens": list(start.special_tokens),
        "base": start.fingerprint(),
        "weights": None if weights is None else list(map(str, weights)),
        "min_frequency": min_frequency,
        "max_token_length": max_token_length,
    }
    directory = WorkDirectory(work, settings, note)
    threads = threads or os.cpu_count() or 1
    counting = Count(chosen, list(start.special_tokens), threads, max_memory, directory)
    reader = read_corpus(
        listed,
        field=field,
        errors=errors,
        exclude=exclude,
        cut=None if chosen.scanner is None else counting.counter.certain_part,
        weights=whole_weights,
        start=directory.position,
        batch_bytes=BATCH_BYTES,
    )
    read = 0

    def tell(phase: Literal["count", "merge"], done: int) -> None:
        if progress is not None:
            progress(Progress(phase, counting.documents, counting.size, read, reader.total, done, merges))

    if not directory.counted:
        for batch in reader:
            counting.add(batch)
            read = batch.read
            tell("count", 0)
    counts = directory.counts() if directory.counted else counting.finish()
    if isinstance(counts, _core.Counter) and not len(counts):
        raise InputError(f"no text to train on: {counting.documents} documents hold {counting.size} bytes")
    counted = time.monotonic()

    # 3. Learn merges. Those that an earlier run has learned are a part of what it starts from.
    earlier = directory.merges[:merges]
    shown = start.tokens_after(earlier) if trace else []
    shown_ids = start.new_ids(min(merges, trace))
    before = start.arrays_after(earlier)

    def learn(done: int) -> bool:
        if directory.is_due and isinstance(counts, str):
            return True
        tell("merge", len(earlier) + done)
        return False

    def save(fresh: Merges) -> None:
        directory.save_merges(np.concatenate((earlier, fresh)))
        tell("merge", len(earlier) + len(fresh))

    def show(left: int, right: int, times: int, word: list[int], place: int) -> None:
        assert traced is not None
        id = int(shown_ids[len(shown) - len(start.tokens)])
        traced(Step(id, shown[left], shown[right], times / scale, [shown[part] for part in word], place))
        shown.append(shown[left] + shown[right])

    fresh, uses, joined, offsets = _core.train_merges(
        counts,
        *before,
        min(merges - len(earlier), 1 << 32),
        min(min_frequency * scale, 2**64 - 1),
        max_token_length or 0,
        threads,
        learn,
        save,
        0 if traced is None else max(0, trace - len(earlier)),
        show,
        keep=bool(required),
        memory=counting.memory_left(),
    )
    learned = np.concatenate((earlier, fresh))
    tell("merge", len(learned))
    if len(learned) < merges and not required and not allow_smaller:
        raise InputError(
            f"the text gives {vocab_size - merges + len(learned)} tokens, not {vocab_size}: no pair is left to merge"
            " (use a smaller vocabulary or more text, or accept fewer with allow_smaller / --allow-smaller)"
        )

    # 4. Name the tokens: what there was, the merges, required tokens, special tokens.
    kept, added = _with_required(start, learned, required, merges)
    new_ids = start.new_ids(len(learned) + len(added))
    ends = np.concatenate((before[1], before[1][-1] + offsets[1:]))[: 1 + len(start.ranks) + kept]
    text = (before[0] + joined)[: int(ends[-1])] + b"".join(added)
    ends = np.concatenate((ends, ends[-1] + np.cumsum([len(token) for token in added], dtype=np.uint64)))
    ids = np.concatenate((before[2][: len(start.ranks)], new_ids[: kept + len(added)]))
    specials = start.special_ids(int(ids.max()))
    vocabulary = Vocabulary(name, chosen, text, ends.data, ids.data, as_added_tokens(specials))
    tokenizer = Tokenizer.from_vocabulary(vocabulary)
    if trained is not None:
        final_id = np.concatenate((np.arange(len(start.tokens), dtype=np.uint32), new_ids))
        if required:  # they have changed how the text is encoded, and so have merges that made room for them
            never, nothing = (lambda _: False), (lambda _: None)
            _, final_uses, _, _ = _core.train_merges(counts, text, ends, ids, 0, 1, 0, threads, never, nothing)
        else:
            final_uses = np.zeros(int(ids.max()) + 1, np.uint64)
            final_uses[final_id[: len(uses)]] = uses
        trained(
            Trained(
                tokenizer,
                final_id[learned[:kept, :2]],
                learned[:kept, 2] / scale,
                final_uses / scale,
                counting.documents,
                counting.size,
                reader.invalid,
                {"count": counted - began, "merge": time.monotonic() - counted},
            )
        )
    directory.remove()
    return tokenizer


def _whole(weights: Sequence[float] | None, sources: int) -> tuple[list[int] | None, int]:
    """The weights as whole numbers, and how many times they are larger."""
    if weights is None:
        return None, 1
    if len(weights) != sources:
        raise InputError(f"there are {len(weights)} weights for {sources} sources; give one for each")
    try:
        fractions = [Fraction(str(weight)) for weight in weights]
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"a weight is no number: {error}") from error
    for weight, fraction in zip(weights, fractions, strict=True):
        if fraction <= 0:
            raise InputError(f"a weight is {weight}; it must be greater than 0, or leave the source out")
    scale = lcm(*(fraction.denominator for fraction in fractions))
    whole = [int(fraction * scale) for fraction in fractions]
    if max([scale, *whole]) >= 1 << 32:
        raise InputError(f"the weights {', '.join(map(str, weights))} have too many digits; give them fewer")
    return whole, scale

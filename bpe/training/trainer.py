"""Train a vocabulary: corpus -> counts of pretokens -> merges -> Tokenizer.

`train` reads files, `train_from_iterator` takes documents, and `train_from_counts` takes pretokens that are counted
already. All three end in the same two steps: `_learn_merges` and `_finish`.
"""

from __future__ import annotations

import glob
import os
import time
import warnings
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from bpe import _core
from bpe.arguments import checked
from bpe.boundaries import extended
from bpe.corpus import read_corpus
from bpe.errors import ArgumentError, InputError
from bpe.patterns import Pattern
from bpe.progress import phase, shown
from bpe.splitting.excerpts import excerpt
from bpe.text import counted
from bpe.tokenizer import Tokenizer
from bpe.training.counting import CorpusCounter, CountedPretokens
from bpe.training.counts import counted_pretokens
from bpe.training.initial import InitialVocabulary, split_pattern
from bpe.training.required import required_bytes, with_required
from bpe.training.settings import (
    IteratorOptions,
    LearnedArrays,
    MergeOptions,
    MergeStep,
    Trained,
    TrainingProgress,
    TrainOptions,
    TrainSettings,
)
from bpe.training.weights import whole_weights
from bpe.training.work import MERGE_BYTES, Merges, WorkDirectory
from bpe.vocabulary import Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from bpe.corpus import CorpusSource
    from bpe.corpus.arrow import Dataset
    from bpe.training.counts import Counts

BATCH_BYTES = 1 << 20
_MOST_UINT64 = (1 << 64) - 1


@checked(options=TrainOptions, settings=TrainSettings)
def train(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    vocab_size: int,
    pattern: str | None = None,
    special_tokens: Sequence[str] | None = None,
    **options: Unpack[TrainOptions],
) -> Tokenizer:
    """Train a byte-level BPE vocabulary on files: repeatedly merge the pair of tokens with the highest count.

    Args:
        paths: Files, directories, globs, addresses such as s3://..., or "-" for stdin; see ``bpe.corpus``. For texts
            in memory, see `train_from_iterator`.
        vocab_size: Number of tokens in all: 256 bytes, the merges, and the special tokens, which come last.
        pattern: Split pattern: a name ("llama3", "o200k", "gpt2", ...) or a regular expression. Default: the pattern of
            `base`, or "llama3".
        special_tokens: Strings with ids of their own. A special token in the text is a boundary and is not counted.
            Default: those of `base` with their ids, or those of the named pattern.
        **options: The other fields of `TrainSettings` by name.

    Returns:
        The tokenizer with the trained vocabulary.

    Raises:
        InputError: There is no text; a path does not exist; the vocabulary size is too small, or larger than the text
            allows; the base has another pattern; the work directory belongs to another run; an option is out of range.
        OSError: A file cannot be read, or the disk of the work directory is full.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory) / "corpus.txt"
    ...     _ = path.write_text("ab bc bcd cde")
    ...     tokenizer = train(path, vocab_size=259, pattern="gpt2", special_tokens=())
    >>> [tokenizer.decode([id]) for id in (256, 257, 258)]
    [' b', 'cd', ' cd']
    """
    if not isinstance(paths, (str, os.PathLike)) and not hasattr(paths, "__iter__"):
        raise ArgumentError(f"paths is {paths!r}; expected a path, or a list of paths")
    listed = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    for path in listed:
        _refuse_text(path)
    return train_sources(listed, _settings(vocab_size, pattern, special_tokens, options))


@checked(options=IteratorOptions, settings=TrainSettings)
def train_from_iterator(
    texts: Iterable[str | bytes] | Dataset,
    vocab_size: int,
    pattern: str | None = None,
    special_tokens: Sequence[str] | None = None,
    **options: Unpack[IteratorOptions],
) -> Tokenizer:
    """Train a byte-level BPE vocabulary on documents in memory, or as an iterator yields them.

    Args:
        texts: The documents, or a data set of Hugging Face's `datasets`.
        vocab_size: See `train`.
        pattern: See `train`.
        special_tokens: See `train`.
        **options: The other fields of `TrainSettings` by name, except those about files (`weights`, `exclude`).

    Returns:
        The tokenizer with the trained vocabulary.

    Raises:
        InputError: See `train`.

    >>> tokenizer = train_from_iterator(["ab bc", "bcd cde"], vocab_size=258, pattern="gpt2", special_tokens=())
    >>> [tokenizer.decode([id]) for id in (256, 257)]
    ['bc', ' c']
    """
    if isinstance(texts, (str, bytes, os.PathLike)):
        raise InputError(
            f"texts is one {type(texts).__name__}; give an iterable of documents, or a path to train() instead"
        )
    return train_sources([texts], _settings(vocab_size, pattern, special_tokens, options))


@checked(options=MergeOptions, settings=TrainSettings)
def train_from_counts(
    counts: Counts,
    vocab_size: int,
    pattern: str | None = None,
    special_tokens: Sequence[str] | None = None,
    **options: Unpack[MergeOptions],
) -> Tokenizer:
    """Train a byte-level BPE vocabulary on pretokens that were counted elsewhere, for example on a cluster.

    The result is that of `train` on the text that was counted with the same pattern and special tokens.

    Args:
        counts: Pretokens with the number of their occurrences: a mapping, an iterable of pairs, or a file. A .parquet
            file has the columns ``pretoken`` (string or binary) and ``count`` (integer); any other file is JSONL with
            ``{"pretoken": ..., "count": ...}`` on each line and may be compressed. A pretoken may occur repeatedly.
        vocab_size: See `train`.
        pattern: The split pattern that the pretokens were cut by; see `train`.
        special_tokens: See `train`.
        **options: The other fields of `TrainSettings` by name, except those about reading a corpus.

    Returns:
        The tokenizer with the trained vocabulary.

    Raises:
        InputError: See `train`; also where a pretoken or a count is invalid, with its place.

    >>> counts = {"ab": 1, " bc": 1, " bcd": 1, " cde": 1}
    >>> tokenizer = train_from_counts(counts, vocab_size=259, pattern="gpt2", special_tokens=())
    >>> [tokenizer.decode([id]) for id in (256, 257, 258)]
    [' b', 'cd', ' cd']
    """
    plan = _Plan.of(_settings(vocab_size, pattern, special_tokens, options))
    started = time.monotonic()
    with shown(plan.settings.progress):
        with phase("reading the counts"):
            counted = counted_pretokens(counts, plan.pattern, plan.initial.special_tokens)
        return _merge_and_finish(plan, counted, WorkDirectory(None, dict), time.monotonic() - started)


def train_sources(sources: Sequence[CorpusSource], settings: TrainSettings) -> Tokenizer:
    """Train on any sources that ``bpe.corpus`` reads, paths and iterables of documents alike; see `train`."""
    plan = _Plan.of(settings, len(sources))
    work = WorkDirectory(settings.work, plan.decisive_settings, settings.note)
    started = time.monotonic()
    with shown(settings.progress):
        counted = _count(sources, plan, work)
        return _merge_and_finish(plan, counted, work, time.monotonic() - started)


@dataclass(frozen=True)
class _Plan:
    """The settings after they are checked against each other."""

    settings: TrainSettings
    pattern: Pattern
    initial: InitialVocabulary
    required: list[bytes]
    merges: int
    """Tokens to make, by merging or because they are required."""
    weights: list[int] | None
    scale: int
    """Counts are `scale` times as large as the weights say, so that they are whole numbers."""
    threads: int

    @classmethod
    def of(cls, settings: TrainSettings, sources: int = 0) -> _Plan:
        pattern = split_pattern(settings.pattern, settings.base)
        if settings.base is not None:
            initial = InitialVocabulary.of_base(settings.base, settings.special_tokens)
        else:
            initial = InitialVocabulary.of_bytes(pattern, settings.special_tokens, settings.tie_break)
        required = required_bytes(settings.required_tokens, pattern)
        merges = settings.vocab_size - len(initial.ranks) - initial.special_count
        weights, scale = whole_weights(settings.weights, sources)
        if merges < 0:
            raise InputError(
                f"a vocabulary of {settings.vocab_size} is too small: {initial.description} and"
                f" {initial.special_count} special tokens need at least {settings.vocab_size - merges}"
            )
        threads = settings.threads or os.cpu_count() or 1
        return cls(settings, pattern, initial, required, merges, weights, scale, threads)

    def decisive_settings(self) -> dict[str, Any]:
        """Return the settings that decide the merges, as plain values: a run resumes only under the same ones."""
        weights = self.settings.weights
        return {
            "pattern": self.pattern.text,
            "special tokens": list(self.initial.special_tokens),
            "base": self.initial.fingerprint(),
            "weights": None if weights is None else list(map(str, weights)),
            "min_frequency": self.settings.min_frequency,
            "max_token_length": self.settings.max_token_length,
        }

    def report(self, counted: CountedPretokens, done: int) -> None:
        """Call the progress callback while merges are learned."""
        if callable(self.settings.progress):
            self.settings.progress(
                TrainingProgress(
                    "merge", counted.documents, counted.size, counted.read, counted.total, done, self.merges
                )
            )


@dataclass(frozen=True)
class _Merged:
    """The merges, and the tokens that they make."""

    merges: Merges
    """All merges, those of an earlier, interrupted run included."""
    before: tuple[bytes, array[int], array[int]]
    """The tokens before the merges of this process, as `token_arrays` lays them out."""
    joined: bytes
    """The bytes of the tokens of `before` and of the new tokens, joined."""
    ends: bytes
    """Where each new token ends in `joined`. [new], uint64"""
    uses: bytes
    """How often each token occurs in the encoded text, by the id that merges refer to. uint64"""

    @property
    def count(self) -> int:
        """The number of merges."""
        return len(self.merges) // MERGE_BYTES


def _count(sources: Sequence[CorpusSource], plan: _Plan, work: WorkDirectory) -> CountedPretokens:
    """Count the pretokens of the sources, or take the counts of an earlier, interrupted run."""
    settings = plan.settings
    counter = CorpusCounter(plan.pattern, list(plan.initial.special_tokens), plan.threads, settings.max_memory, work)
    reader = read_corpus(
        sources,
        field=settings.field,
        errors=settings.errors,
        exclude=settings.exclude,
        cut=counter.counter.certain_part,
        weights=plan.weights,
        start=work.position,
        batch_bytes=BATCH_BYTES,
    )
    read = 0
    if not work.counted:
        with phase("counting", reader.total, "bytes") as counting:
            for batch in reader:
                counter.add(batch)
                read = batch.read
                done = read if reader.total else counter.size
                counting.update(done, counted(counter.documents, "document"), total=reader.total)
                if callable(settings.progress):
                    settings.progress(
                        TrainingProgress("count", counter.documents, counter.size, read, reader.total, 0, plan.merges)
                    )
            counter.finish()
    on_disk = bool(work.runs)
    return CountedPretokens(
        work.counts() if on_disk else counter.counter,
        on_disk,
        None if on_disk else len(counter.counter),
        counter.documents,
        counter.size,
        counter.memory_left(),
        reader.invalid,
        reader.left_out,
        read,
        reader.total,
        counter.counter.left_out(),
    )


def _merge_and_finish(
    plan: _Plan, counted: CountedPretokens, work: WorkDirectory, counting_seconds: float
) -> Tokenizer:
    """Learn the merges, build the tokenizer, and call the `trained` callback."""
    if counted.is_empty:
        unmatched = f" that the split pattern '{excerpt(plan.pattern.text)}' leaves out" if counted.unmatched else ""
        documents = "1 document holds" if counted.documents == 1 else f"{counted.documents:,} documents hold"
        raise InputError(f"no text to train on: {documents} {counted.size:,} bytes{unmatched}")
    if counted.unmatched:
        remedy = "; to keep it, add an alternative at the end: |(?s:.)" if plan.pattern.steps is None else ""
        warnings.warn(
            f"the split pattern '{excerpt(plan.pattern.text)}' leaves out {counted.unmatched:,} bytes of the text, and"
            f" the tokenizer drops such text{remedy}",
            stacklevel=2,
        )
    started = time.monotonic()
    merged = _learn_merges(plan, counted, work)
    seconds = {"count": counting_seconds, "merge": time.monotonic() - started}
    tokenizer = _finish(plan, counted, merged, seconds)
    work.remove()
    return tokenizer


def _learn_merges(plan: _Plan, counted: CountedPretokens, work: WorkDirectory) -> _Merged:
    """Merge pairs until the vocabulary is full or no pair is left, from where an interrupted run stopped."""
    settings, initial = plan.settings, plan.initial
    earlier = work.merges[: plan.merges * MERGE_BYTES]
    resumed = len(earlier) // MERGE_BYTES
    before = initial.arrays_after(earlier)

    def learn(done: int) -> bool:
        """Report progress; return True to be given the merges to save."""
        if work.is_due and counted.on_disk:
            return True
        report(resumed + done)
        return False

    def save(fresh: Merges) -> None:
        work.save_merges(earlier + fresh)
        report(resumed + len(fresh) // MERGE_BYTES)

    def report(done: int) -> None:
        merging.update(done)
        plan.report(counted, done)

    with phase("merging", plan.merges, "merges", resumed) as merging:
        fresh, uses, joined, ends = _core.train_merges(
            counted.counts,
            *before,
            min(plan.merges - resumed, 1 << 32),
            min(settings.min_frequency * plan.scale, _MOST_UINT64),
            settings.max_token_length or 0,
            plan.threads,
            learn,
            save,
            0 if settings.traced is None else max(0, settings.trace - resumed),
            _tracer(plan, earlier),
            keep=bool(plan.required),
            memory=counted.memory,
        )
        merged = _Merged(earlier + fresh, before, joined, ends, uses)
        report(merged.count)
    if merged.count < plan.merges and not plan.required and not settings.allow_smaller:
        possible = settings.vocab_size - plan.merges + merged.count
        raise InputError(
            f"the text gives {possible} tokens, not {settings.vocab_size}: no pair is left to merge"
            " (use a smaller vocabulary or more text, or accept fewer tokens with allow_smaller / --allow-smaller)"
        )
    return merged


def _tracer(plan: _Plan, earlier: Merges) -> Any:
    """Return the core's callback for traced merges, which passes each to `traced` as a `MergeStep`."""
    settings, initial = plan.settings, plan.initial
    tokens = initial.tokens_after(earlier) if settings.trace else []
    ids = initial.new_ids(min(plan.merges, settings.trace))

    def trace(left: int, right: int, times: int, word: list[int], place: int) -> None:
        assert settings.traced is not None
        id = int(ids[len(tokens) - len(initial.tokens)])
        parts = [tokens[part] for part in word]
        settings.traced(MergeStep(id, tokens[left], tokens[right], times / plan.scale, parts, place))
        tokens.append(tokens[left] + tokens[right])

    return trace


def _finish(plan: _Plan, counted: CountedPretokens, merged: _Merged, seconds: dict[str, float]) -> Tokenizer:
    """Give ids to all tokens: the initial ones, the merges, the required ones, the special ones."""
    settings, initial, before = plan.settings, plan.initial, merged.before
    kept, added = min(merged.count, plan.merges), list[bytes]()
    if plan.required:
        kept, added = with_required(initial, merged.merges, plan.required, plan.merges)
    new_ids = initial.new_ids(merged.count + len(added))
    ends = before[1] + array("Q", merged.ends)
    del ends[1 + len(initial.ranks) + kept :]
    text = (
        merged.joined if len(merged.joined) == ends[-1] and not added else merged.joined[: ends[-1]] + b"".join(added)
    )
    ends.extend(accumulate(map(len, added), initial=ends.pop()))
    ids = before[2][: len(initial.ranks)] + new_ids[: kept + len(added)]
    added_tokens = initial.added_tokens(max(ids))
    boundaries = initial.boundaries
    if boundaries is not None:
        boundaries = extended(boundaries, {token.content: token.id for token in added_tokens})
    arrays = (text, memoryview(ends), memoryview(ids))
    vocabulary = Vocabulary(settings.name, plan.pattern, *arrays, added_tokens, boundaries=boundaries)
    tokenizer = Tokenizer.from_vocabulary(vocabulary)
    if settings.trained is not None:
        final_ids = array("I", range(len(initial.tokens))) + new_ids
        uses, used_ids = merged.uses, final_ids
        if plan.required:  # they change how the text is encoded, and so do merges that made room for them
            uses = _count_uses(counted, *arrays, plan.threads)
            used_ids = array("I", range(len(uses) // 8))
        settings.trained(
            Trained(
                tokenizer,
                LearnedArrays(merged.merges[: kept * MERGE_BYTES], final_ids, uses, used_ids, plan.scale),
                counted.documents,
                counted.size,
                list(counted.invalid),
                list(counted.left_out),
                seconds,
            )
        )
    return tokenizer


def _count_uses(counted: CountedPretokens, text: bytes, ends: memoryview, ids: memoryview, threads: int) -> bytes:
    """Count how often each token of a finished vocabulary occurs in the encoded text: learn no merges on top of it."""
    return _core.train_merges(counted.counts, text, ends, ids, 0, 1, 0, threads, lambda _: False, lambda _: None)[1]


def _settings(
    vocab_size: int, pattern: str | None, special_tokens: Sequence[str] | None, options: Any
) -> TrainSettings:
    return TrainSettings(vocab_size=vocab_size, pattern=pattern, special_tokens=special_tokens, **options)


def _refuse_text(path: object) -> None:
    """Refuse a source of `train` that is not a path.

    Raises:
        InputError: The source is an iterable or a str that looks like a text.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(
            f"train() takes paths, not {type(path).__name__}; for documents in memory use train_from_iterator(texts)"
        )
    if isinstance(path, os.PathLike) or not _looks_like_text(path):
        return
    shown = path if len(path) <= 60 else path[:57] + "..."
    raise InputError(
        f"{shown!r}: no such file, and it looks like a text; to train on texts use train_from_iterator(texts)"
        " (on the command line, pipe the text into bpe train -)"
    )


def _looks_like_text(path: str) -> bool:
    if "\n" in path or "\0" in path:
        return True
    if " " not in path or "://" in path or os.path.exists(path):
        return False
    return not (glob.has_magic(path) and glob.glob(path, recursive=True))

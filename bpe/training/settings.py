"""The settings of training a vocabulary, and the values that its callbacks receive."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from bpe.arguments import checked
from bpe.errors import InputError
from bpe.progress import Progress

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from bpe.corpus import Invalid, LeftOut
    from bpe.tokenizer import Tokenizer


class TrainingProgress(NamedTuple):
    """The state of a training run, as the `progress` callback receives it."""

    phase: Literal["count", "merge"]
    documents: int
    """Documents counted so far."""
    size: int
    """Bytes of text counted so far."""
    read: int
    """Bytes of the files read so far, as they are on disk."""
    total: int | None
    """Bytes of all files as they are on disk; None if unknown."""
    merges: int
    """Merges learned so far."""
    wanted: int
    """Merges to learn in all."""


class MergeStep(NamedTuple):
    """One merge and a word that it shortens, as the `traced` callback receives it."""

    rank: int
    """The id of the new token."""
    left: bytes
    right: bytes
    times: float
    """How often the pair occurs in the text, multiplied by the weights of its sources."""
    word: list[bytes]
    """The tokens of the most frequent word that holds the pair, before the merge."""
    place: int
    """The index of the pair's left token in `word`."""


@dataclass(frozen=True, eq=False, repr=False)
class LearnedArrays:
    """What a training run learned, as the core returns it; numbers are uint64."""

    merges: bytes
    """For each merge the two internal ids that become a token, and how often the pair occurred, times `scale`."""
    ids: array[int]
    """The final id of each internal id."""
    uses: bytes
    """How often each token of `used_ids` occurs in the encoded text, times `scale`."""
    used_ids: array[int]
    scale: int


@dataclass(frozen=True, eq=False, repr=False)
class Trained:
    """The result of a training run, as the `trained` callback receives it.

    The arrays are made when they are first used.
    """

    tokenizer: Tokenizer
    learned: LearnedArrays
    """What the arrays are made from."""
    documents: int
    size: int
    """Bytes of text, without weights."""
    invalid: list[Invalid]
    """The files with bytes that are not UTF-8."""
    left_out: list[LeftOut]
    """The binary files of directories, which were not read."""
    seconds: dict[str, float]
    """Seconds that this process spent on reading and counting ("count") and on learning merges ("merge")."""

    @cached_property
    def pairs(self) -> npt.NDArray[np.uint32]:
        """The merged pairs of ids in the order in which they were learned. [merges, 2], uint32"""
        import numpy as np

        ids = np.array(self.learned.ids, np.uint32)
        return ids[np.frombuffer(self.learned.merges, np.uint64).reshape(-1, 3)[:, :2]]

    @cached_property
    def counts(self) -> npt.NDArray[np.float64]:
        """How often each pair occurred in the text when it was merged, multiplied by the weights. [merges], float64"""
        import numpy as np

        return np.frombuffer(self.learned.merges, np.uint64)[2::3] / self.learned.scale

    @cached_property
    def uses(self) -> npt.NDArray[np.float64]:
        """How often each token occurs in the encoded text, multiplied by the weights. [highest rank + 1], float64"""
        import numpy as np

        ids = np.array(self.learned.used_ids, np.uint32)
        uses = np.zeros(int(ids.max()) + 1, np.uint64)
        uses[ids] = np.frombuffer(self.learned.uses, np.uint64)
        return uses / self.learned.scale

    def __repr__(self) -> str:
        text = f"{self.documents:,} documents, {self.size:,} bytes"
        return f"<Trained: {len(self.pairs):,} merges from {text}; {self.tokenizer!r}>"


class MergeOptions(TypedDict, total=False):
    """The keyword arguments that `train`, `train_from_iterator` and `train_from_counts` share; see `TrainSettings`."""

    base: Tokenizer | None
    required_tokens: Sequence[str | bytes]
    tie_break: Literal["bytes", "huggingface"]
    min_frequency: int
    max_token_length: int | None
    allow_smaller: bool
    name: str
    threads: int | None
    progress: Callable[[TrainingProgress], None] | Progress
    trace: int
    traced: Callable[[MergeStep], None] | None
    trained: Callable[[Trained], None] | None


class IteratorOptions(MergeOptions, total=False):
    """The keyword arguments of `train_from_iterator`; see `TrainSettings`."""

    field: str
    errors: Literal["replace", "ignore", "strict"]
    max_memory: int | None
    work: str | os.PathLike[str] | None
    note: Mapping[str, Any] | None


class TrainOptions(IteratorOptions, total=False):
    """The keyword arguments of `train`; see `TrainSettings`."""

    weights: Sequence[float | str] | None
    exclude: Sequence[str]


@checked
@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """All settings of a training run.

    Args:
        vocab_size: Number of tokens in all: 256 bytes, the merges, and the special tokens.
        pattern: Split pattern: a name ("llama3", "o200k", "gpt2", ...) or a regular expression. Default: the pattern of
            `base`, or "llama3".
        special_tokens: Strings with ids of their own, which follow all other ids. A special token in the text is a
            boundary and is not counted. With `base`, they are added to its special tokens, which keep their ids; an
            empty sequence drops these. Default: those of `base`, or those of the named pattern.
        base: Tokenizer to extend. All its ids stay, and new tokens take the ids that follow, as if its training had
            continued on this text.
        required_tokens: Tokens that the vocabulary contains however rare they are. Those that merging does not produce
            are added after the merges, together with the tokens that lead to them.
        tie_break: Order of pairs with equal counts: the lowest pair of ids first, where the ids of single bytes are the
            byte values ("bytes"), or follow Hugging Face's order ("huggingface"). With `base`, its ids are used.
        min_frequency: Do not merge pairs that occur less often.
        max_token_length: Longest token to make, in bytes. Default: no limit.
        allow_smaller: Return a smaller vocabulary when the text has no pair left to merge, instead of raising.
        name: Name of the tokenizer.
        threads: Number of threads. Default: all processors. The result does not depend on it.
        progress: True shows the progress on a terminal or in a notebook, and a stream there. A callback is called now
            and then with a `TrainingProgress`.
        trace: Number of merges, from the first, to pass to `traced`.
        traced: Called with a `MergeStep` for each traced merge.
        trained: Called with a `Trained` at the end, before the work directory is removed.
        weights: One number for each source: every occurrence in the source counts this often. Fractions are exact.
        field: Key of the text in .jsonl files, or column in .parquet files and data sets.
        errors: Treatment of bytes that are not UTF-8: "replace" (U+FFFD), "ignore" or "strict" (raise).
        exclude: Names or glob patterns of files and directories to skip.
        max_memory: Most memory that this process may use, in bytes. Counts that do not fit go to disk, into `work` or a
            temporary directory. Default: no limit.
        work: Directory that keeps the state of a run that takes longer than half a minute. When a run is interrupted,
            the same call resumes from there. It is removed at the end.
        note: Plain values to keep in the work directory; see ``bpe.training.work.read_state``.

    Raises:
        InputError: A number is out of range.
    """

    vocab_size: int
    pattern: str | None = None
    special_tokens: Sequence[str] | None = None
    base: Tokenizer | None = None
    required_tokens: Sequence[str | bytes] = ()
    tie_break: Literal["bytes", "huggingface"] = "bytes"
    min_frequency: int = 1
    max_token_length: int | None = None
    allow_smaller: bool = False
    name: str = "trained"
    threads: int | None = None
    progress: Callable[[TrainingProgress], None] | Progress = None
    trace: int = 0
    traced: Callable[[MergeStep], None] | None = None
    trained: Callable[[Trained], None] | None = None
    weights: Sequence[float | str] | None = None
    field: str = "text"
    errors: Literal["replace", "ignore", "strict"] = "replace"
    exclude: Sequence[str] = ()
    max_memory: int | None = None
    work: str | os.PathLike[str] | None = None
    note: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for option, value, least in (
            ("threads", self.threads, 1),
            ("min_frequency", self.min_frequency, 1),
            ("max_token_length", self.max_token_length, 2),
            ("trace", self.trace, 0),
        ):
            if value is not None and not least <= value < 1 << 32:
                raise InputError(f"{option} is {value}; it must be at least {least} and less than {1 << 32:,}")

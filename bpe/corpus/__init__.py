"""Corpora: files, directories, globs, addresses, stdin and iterables, read as documents.

`documents` yields one document at a time. `read_corpus` feeds training and sharding: it reads ahead in bounded memory,
whatever the size of the files, and can resume where an earlier reader stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, Union, cast

from bpe.corpus.arrow import is_dataset
from bpe.corpus.binaries import LeftOut, left_out_line
from bpe.corpus.feed import Cleaner, Invalid, ReadOptions, TextBytes, as_bytes
from bpe.corpus.jsonl import NotJsonError as NotJsonError
from bpe.corpus.jsonl import json_records
from bpe.corpus.reader import CorpusReader, Position, TextBatch
from bpe.corpus.sources import CorpusSource, FileFeed, IterableFeed, feeds_of
from bpe.errors import InputError
from bpe.progress import say

__all__ = [
    "CorpusReader",
    "CorpusSource",
    "Invalid",
    "LeftOut",
    "Position",
    "TextBatch",
    "TextBytes",
    "documents",
    "in_batches",
    "left_out_line",
    "read_corpus",
    "records",
]


def documents(
    sources: CorpusSource | Iterable[CorpusSource],
    *,
    separator: str | None = None,
    field: str = "text",
    exclude: Sequence[str] = (),
) -> Iterator[bytes]:
    """Yield the documents of all sources, in order.

    A source is one of:

    - The path of a file.
    - The path of a directory. Its files are read in sorted order, at every depth. Hidden files are skipped, and so are
      binary files: those with a NUL byte near the beginning of their decompressed content, PDF documents, archives.
    - A glob, in which ``**`` matches any number of directories.
    - "-" for stdin.
    - An iterable of str or bytes, each of which is a document.

    A file is one document, but a .jsonl or .ndjson file has one document per line, under the key `field`. Files that
    end in .gz, .xz, .bz2 or .zst are decompressed. At the end, the current reporter says how many binary files were
    skipped.

    Args:
        sources: One source, or several. A single str is a path.
        separator: Text that separates the documents of a text file. White space around it is dropped.
        field: The key of the text in .jsonl files. "a.b" is the key "b" of the object under "a".
        exclude: Files and directories to skip: names, paths, or patterns for either.

    Raises:
        InputError: When a source matches no file, an archive is damaged, a line of a .jsonl file lacks the field, or
            the separator is empty.
        OSError: When a file cannot be read.
    """
    options = _options(separator, field)
    left_out: list[LeftOut] = []
    for source in _listed(sources):
        for feed in feeds_of(source, exclude, left_out):
            if isinstance(feed, IterableFeed):  # one at a time: the iterable may never end
                yield from (bytes(as_bytes(document)) for document in feed.documents(field))
            else:
                for part in feed.parts(options, Cleaner(feed.name, "keep")):
                    yield from map(bytes, part.texts)
    if left_out:
        say(left_out_line(left_out))


def read_corpus(
    sources: CorpusSource | Iterable[CorpusSource],
    *,
    field: str = "text",
    errors: str = "replace",
    exclude: Sequence[str] = (),
    separator: str | None = None,
    cut: Callable[[TextBytes], int] | None = None,
    weights: Sequence[int] | None = None,
    start: Position | None = None,
    batch_bytes: int = 8 << 20,
) -> CorpusReader:
    """Return a reader that yields the text of the sources in batches: ``for batch in read_corpus(...)``.

    The reader reads files in another thread, a few batches ahead, and iterables in the caller's thread. It raises an
    error in a file after it has yielded the text before that file. To stop early, drop the iterator.

    Args:
        sources: One source, or several; see `documents`.
        field: The key of the text in .jsonl files, and its column in Parquet files and datasets.
        errors: What to do with bytes that are not UTF-8: "replace" them by U+FFFD as Python's decoder does, "ignore"
            them, refuse them ("strict"), or "keep" them unchecked. The reader counts them in `invalid`.
        exclude: Files and directories to skip; see `documents`.
        separator: Text that separates the documents of a text file.
        cut: Returns how many bytes of a text can be counted on their own, whatever text follows, or 0 if none can.
            With `cut`, a long document is yielded in pieces. Without it, a document is yielded whole and must fit in
            memory.
        weights: One weight per source. Neighbouring sources of equal weight share batches, which matters when each
            source is a single file. Without weights, a batch holds text of only one source.
        start: The position of a batch of an earlier reader, which read the same sources with the same options. The new
            reader yields exactly the text after that batch. A source that can be read only once must be passed again;
            the reader skips the text that the earlier one used.
        batch_bytes: Approximate size of a batch, in bytes. A few batches are in memory at a time.

    Raises:
        InputError: Now or while reading, for the reasons that `documents` gives, or because the corpus differs from
            that of `start`.
        OSError: When a file cannot be read.
    """
    if errors not in ("replace", "ignore", "strict", "keep"):
        raise InputError(f"errors is {errors!r}; it must be 'replace', 'ignore', 'strict' or 'keep'")
    listed = list(_listed(sources))
    if weights is not None and len(weights) != len(listed):
        raise InputError(f"got {len(weights)} weights for {len(listed)} sources; give one weight per source")
    left_out: list[LeftOut] = []
    feeds = [(number, feed) for number, source in enumerate(listed) for feed in feeds_of(source, exclude, left_out)]
    options = _options(separator, field, cut, max(1, batch_bytes // 2))
    return CorpusReader(feeds, options, errors, weights, batch_bytes, start, left_out)


def records(source: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON objects in the lines of files, whatever their suffix, each with its place for messages.

    Files that end in .gz, .xz, .bz2 or .zst are decompressed. Blank lines are skipped.

    Args:
        source: A path, a glob, or "-" for stdin.

    Returns:
        Pairs of a place, such as "questions.jsonl: line 3", and an object.

    Raises:
        InputError: When the source matches no file, an archive is damaged, or a line is not a JSON object.
        OSError: When a file cannot be read.
    """
    left_out: list[LeftOut] = []
    for feed in feeds_of(source, (), left_out):
        assert isinstance(feed, FileFeed)  # a path leads to no other feed
        for place, record in json_records(feed.name, feed.content()):
            yield f"{feed.name}: {place}", record
    if left_out:
        say(left_out_line(left_out))


_Document = TypeVar("_Document", bytes, str, Union[bytes, str])


def in_batches(documents: Iterable[_Document], size: int) -> Iterator[list[_Document]]:
    """Yield the documents in lists whose total length is at least `size`; only the last list may be shorter."""
    batch: list[_Document] = []
    length = 0
    for document in documents:
        batch.append(document)
        length += len(document)
        if length >= size:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def _options(
    separator: str | None, field: str, cut: Callable[[TextBytes], int] | None = None, block: int = 4 << 20
) -> ReadOptions:
    if separator == "":
        raise InputError("the document separator is empty; give at least one character")
    return ReadOptions(field, None if separator is None else separator.encode(), cut, block)


def _listed(sources: CorpusSource | Iterable[CorpusSource]) -> Iterable[Any]:
    if isinstance(sources, (str, os.PathLike)) or is_dataset(sources):
        return [sources]
    if isinstance(sources, Mapping):
        raise InputError(f"sources must be paths or iterables of texts, not a {type(sources).__name__}")
    return cast("Iterable[Any]", sources)

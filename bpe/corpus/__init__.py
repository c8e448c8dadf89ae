"""Files, directories, globs, addresses, stdin, iterables -> text.

`documents` gives one document after the other. `read_corpus` feeds the trainer: it reads ahead, in memory that does not
grow with the files, and can go on where another one stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, Union

from bpe.corpus.arrow import is_dataset
from bpe.corpus.jsonl import json_records
from bpe.corpus.parts import Cleaner, Invalid, Options, Text, as_bytes
from bpe.corpus.reader import Batch, Position, Reader
from bpe.corpus.sources import File, Source, Texts, feeds_of
from bpe.errors import InputError

__all__ = [
    "Batch",
    "Invalid",
    "Position",
    "Reader",
    "Source",
    "Text",
    "documents",
    "in_batches",
    "read_corpus",
    "records",
]


def documents(
    sources: Source | Iterable[Source],
    *,
    separator: str | None = None,
    field: str = "text",
    exclude: Sequence[str] = (),
) -> Iterator[bytes]:
    """The documents of all sources, in order.

    A source is the path of a file, or of a directory, whose files are taken in sorted order, down to the last level,
    but for hidden ones and those with a NUL byte near their beginning; a glob, in which ``**`` stands for any depth;
    "-" for stdin; or an iterable of str or bytes, each a document. A file is one document; a .jsonl or .ndjson file has
    one in each line, under the key `field`. Files that end in .gz, .xz, .bz2 or .zst are decompressed.

    Args:
        sources: one source, or several. A single str is a path.
        separator: where this stands in a text file, a new document begins. White space around it is dropped.
        field: the key of the text in .jsonl files; "a.b" is the key b of what is under a.
        exclude: files and directories left out: names, paths, or patterns for either.

    Raises:
        InputError: a source that matches no file, a damaged archive, a line of .jsonl without the field, an empty
            separator.
        OSError: a file that cannot be read.
    """
    options = _options(separator, field)
    for source in _listed(sources):
        for feed in feeds_of(source, exclude):
            if isinstance(feed, Texts):  # each as it comes
                yield from (bytes(as_bytes(document)) for document in feed.documents(field))
            else:
                for part in feed.parts(options, Cleaner(feed.name, "keep")):
                    yield from map(bytes, part.texts)


def read_corpus(
    sources: Source | Iterable[Source],
    *,
    field: str = "text",
    errors: str = "replace",
    exclude: Sequence[str] = (),
    separator: str | None = None,
    cut: Callable[[Text], int] | None = None,
    weights: Sequence[int] | None = None,
    start: Position | None = None,
    batch_bytes: int = 8 << 20,
) -> Reader:
    """The same text for the trainer, in batches: ``for batch in read_corpus(...)``.

    Files are read in another thread, a few batches ahead, iterables in this one. An error in a file is raised when its
    turn comes. To stop early, drop the iterator.

    Args:
        errors: what becomes of bytes that are not UTF-8: "replace" (U+FFFD, as Python's decoder does), "ignore", or
            "strict", which refuses them. The reader's `invalid` tells what there was. "keep" does not look at them.
        cut: of a text, how much of it, in bytes, can be counted apart whatever follows, and 0 if nothing can. With it
            a long document is handed out in pieces; without, each is handed out whole, and has to fit in memory.
        weights: one for each source. Neighbouring sources of one weight share batches, which matters where each file
            is a source. Without them, each batch has texts of one source only.
        start: the position of a batch of an earlier reader of the same sources with the same options: this one gives
            exactly the text after that batch. Where a source can be read only once, it has to be there again, and
            what was used of it is read and dropped.
        batch_bytes: how large a batch is about. A few are in memory at a time.

    Raises:
        InputError: now or while reading, as `documents`; or the corpus is not that of `start`.
        OSError: a file that cannot be read.
    """
    if errors not in ("replace", "ignore", "strict", "keep"):
        raise InputError(f"errors is {errors!r}; it must be 'replace', 'ignore', 'strict' or 'keep'")
    listed = list(_listed(sources))
    if weights is not None and len(weights) != len(listed):
        raise InputError(f"there are {len(weights)} weights for {len(listed)} sources")
    feeds = [(number, feed) for number, source in enumerate(listed) for feed in feeds_of(source, exclude)]
    options = _options(separator, field, cut, max(1, batch_bytes // 2))
    return Reader(feeds, options, errors, weights, batch_bytes, start)


def records(source: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects in the lines of the files that a path, a glob or "-" stands for, whatever their suffix.

    Each comes with its place, such as "questions.jsonl: line 3", for messages. Files that end in .gz, .xz, .bz2 or .zst
    are decompressed.

    Raises:
        InputError: a source that matches no file, a damaged archive, a line that is no JSON object.
        OSError: a file that cannot be read.
    """
    for feed in feeds_of(source, ()):
        assert isinstance(feed, File)  # paths lead to nothing else
        for number, record in json_records(feed.name, feed.content()):
            yield f"{feed.name}: line {number}", record


_Document = TypeVar("_Document", bytes, str, Union[bytes, str])


def in_batches(documents: Iterable[_Document], size: int) -> Iterator[list[_Document]]:
    """The documents, as many together as have a length of `size` or more; the last ones are fewer."""
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
    separator: str | None, field: str, cut: Callable[[Text], int] | None = None, block: int = 4 << 20
) -> Options:
    if separator == "":
        raise InputError("the separator of documents is empty")
    return Options(field, None if separator is None else separator.encode(), cut, block)


def _listed(sources: Source | Iterable[Source]) -> Iterable[Any]:
    if isinstance(sources, (str, os.PathLike)) or is_dataset(sources):
        return [sources]
    if isinstance(sources, Mapping):
        raise InputError(f"sources are paths or iterables of texts, not a {type(sources).__name__}")
    return sources

"""Parquet files and Hugging Face datasets: each row of a column is a document, read from Arrow's memory uncopied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Protocol

from bpe.corpus.feed import Cleaner, FeedState, ReadOptions, TextBytes, TextPart
from bpe.errors import InputError
from bpe.optional import require

_ROWS = 1024  # rows of a Parquet file that are read at once, fewer if they are long
_DATASET_ROWS = 64


def parquet_parts(
    name: str, file: BinaryIO, size: int | None, options: ReadOptions, cleaner: Cleaner, state: FeedState | None
) -> Iterator[TextPart]:
    """Yield the documents of a Parquet file. A null row is no document.

    Args:
        name: The name of the file, for messages.
        file: The open file; it must be seekable.
        size: Bytes of the file; None if unknown.
        options: How to read; `field` names the column, or a field of a column of structs, such as "answer.text".
        cleaner: Makes the texts well-formed.
        state: Where to resume.

    Raises:
        InputError: When the file is damaged, or has no such column of text.
    """
    arrow = require(name, "pyarrow")
    parquet = require(name, "pyarrow.parquet")
    first_group, first_row = (state["row_group"], state["row"]) if state else (0, 0)
    try:
        # Buffered, so that a row group is never in memory as a whole.
        table = parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        path = _path(name, options.field, table.schema_arrow.names)
        _nested(name, path, arrow.array([], table.schema_arrow.field(path[0]).type))  # refuse a path to nowhere
        total = max(1, table.metadata.num_rows)
        before = sum(table.metadata.row_group(group).num_rows for group in range(first_group))
        for group in range(first_group, table.num_row_groups):
            end = 0
            for batch in _record_batches(table, group, options):
                array = _nested(name, path, batch.column(0)[max(0, first_row - end) :])
                end += len(batch)
                texts = _cleaned(name, options.field, array, cleaner, before + end - len(array))
                after = {"row_group": group, "row": end, **cleaner.state}
                yield TextPart(texts, len(texts), sum(map(len, texts)), after, (size or 0) * (before + end) // total)
            before += end
            first_row = 0
    except (arrow.ArrowException, OSError) as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise
        raise InputError(f"{name}: the file is damaged ({' '.join(str(error).split())})") from error


def _record_batches(table: Any, group: int, options: ReadOptions) -> Iterator[Any]:
    """Yield one row group in record batches of about a block."""
    about = table.metadata.row_group(group)
    rows = max(1, min(_ROWS, options.block * about.num_rows // max(1, about.total_byte_size)))
    return table.iter_batches(rows, row_groups=[group], columns=[options.field], use_threads=False)  # type: ignore[no-any-return]


def _cleaned(name: str, column: str, array: Any, cleaner: Cleaner, first: int) -> list[TextBytes]:
    """Return the cleaned texts of an array whose first row has the index `first` in the file."""
    return [cleaner.clean(text, place=f"row {first + row + 1}") for row, text in _texts(name, column, array)]


class Dataset(Protocol):
    """A data set of Hugging Face's ``datasets``, as a type checker sees it."""

    @property
    def column_names(self) -> Any: ...
    def select_columns(self, column_names: Any, /) -> Any: ...


def is_dataset(source: object) -> bool:
    """Return whether an object comes from Hugging Face's `datasets`, without importing that package.

    Raises:
        InputError: When the object holds several splits.
    """
    kind = type(source)
    if kind.__module__.split(".")[0] != "datasets":
        return False
    if isinstance(source, dict):
        splits = ", ".join(map(repr, source))
        raise InputError(
            f"a {kind.__name__} holds several datasets ({splits}); pass one of them, such as data['train']"
        )
    return True


def dataset_texts(dataset: Any, column: str) -> Iterator[memoryview]:
    """Yield the documents of a Dataset or an IterableDataset. A null row is no document.

    Raises:
        InputError: When there is no such column, or it holds no text.
    """
    name = type(dataset).__name__
    if dataset.column_names is not None:  # an IterableDataset may know its columns only from its rows
        dataset = dataset.select_columns([_path(name, column, dataset.column_names)[0]])
    for table in dataset.with_format("arrow").iter(batch_size=_DATASET_ROWS):
        path = _path(name, column, table.column_names)
        for array in table.column(path[0]).chunks:
            for _, text in _texts(name, column, _nested(name, path, array)):
                yield text


def _path(name: str, field: str, columns: Iterable[str]) -> list[str]:
    """Return the name of a column, and below it those of the fields of structs that lead to the text."""
    path = [field] if field in columns else field.split(".")
    if path[0] not in columns:
        raise InputError(f"{name}: no column {field!r}; set field (--field) to one of {', '.join(map(repr, columns))}")
    return path


def _nested(name: str, path: list[str], array: Any) -> Any:
    """Return the field of an array of structs to which a path leads; a field of a null struct is null."""
    types = require(name, "pyarrow").types
    for key in path[1:]:
        if types.is_null(array.type):
            break
        fields = [field.name for field in array.type] if types.is_struct(array.type) else []
        if key not in fields:
            raise InputError(f"{name}: no column {'.'.join(path)!r}; {path[0]!r} holds {array.type}")
        array = require(name, "pyarrow.compute").struct_field(array, key)
    return array


def _texts(name: str, column: str, array: Any) -> Iterator[tuple[int, memoryview]]:
    """Yield (row, text) for each row of an Arrow array that is not null."""
    types = require(name, "pyarrow").types
    kind = array.type
    if types.is_null(kind):
        return
    if types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if types.is_string_view(kind) or types.is_binary_view(kind):
        array = array.cast("large_string" if types.is_string_view(kind) else "large_binary")
        kind = array.type
    large = types.is_large_string(kind) or types.is_large_binary(kind)
    if not (large or types.is_string(kind) or types.is_binary(kind)):
        raise InputError(
            f"{name}: column {column!r} holds {kind}, not text; set field (--field) to a column that holds text"
        )
    if not len(array):
        return
    import numpy as np

    _, offsets, data = array.buffers()
    edges = np.frombuffer(offsets, np.int64 if large else np.int32)[array.offset :][: len(array) + 1].tolist()
    text = memoryview(data if data is not None else b"")
    rows = range(len(array))
    if array.null_count:
        rows = array.is_valid().to_numpy(zero_copy_only=False).nonzero()[0].tolist()
    for row in rows:
        yield row, text[edges[row] : edges[row + 1]]

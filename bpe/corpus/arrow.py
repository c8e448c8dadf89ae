"""Parquet files and Hugging Face datasets: a document in each row of a column, taken from Arrow's memory as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from bpe.corpus.parts import Cleaner, Options, Part, State
from bpe.errors import InputError
from bpe.optional import require

_ROWS = 1024  # of a Parquet file are read at once, or fewer if they are long
_DATASET_ROWS = 64


def parquet_parts(
    name: str, file: BinaryIO, size: int | None, options: Options, cleaner: Cleaner, state: State | None
) -> Iterator[Part]:
    """The documents of a Parquet file; a row that holds null is none."""
    arrow = require(name, "parquet", "pyarrow")
    parquet = require(name, "parquet", "pyarrow.parquet")
    first_group, first_row = (state["row_group"], state["row"]) if state else (0, 0)
    try:
        # Buffered, so that a group of rows is not in memory as a whole.
        table = parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        _check_column(name, options.field, table.schema_arrow.names)
        total = max(1, table.metadata.num_rows)
        before = sum(table.metadata.row_group(group).num_rows for group in range(first_group))
        for group in range(first_group, table.num_row_groups):
            about = table.metadata.row_group(group)
            at_once = max(1, min(_ROWS, options.block * about.num_rows // max(1, about.total_byte_size)))
            end = 0
            for batch in table.iter_batches(at_once, row_groups=[group], columns=[options.field], use_threads=False):
                array = batch.column(0)[max(0, first_row - end) :]
                end += len(batch)
                begin = before + end - len(array)
                texts = [
                    cleaner.clean(text, place=f"row {begin + row + 1}")
                    for row, text in _texts(name, options.field, array)
                ]
                after = {"row_group": group, "row": end, **cleaner.state}
                yield Part(texts, len(texts), sum(map(len, texts)), after, (size or 0) * (before + end) // total)
            before += end
            first_row = 0
    except (arrow.ArrowException, OSError) as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise
        raise InputError(f"{name}: the file is damaged ({' '.join(str(error).split())})") from error


def is_dataset(source: object) -> bool:
    """Whether it is of Hugging Face's `datasets`, without importing that.

    Raises:
        InputError: it holds several splits.
    """
    kind = type(source)
    if kind.__module__.split(".")[0] != "datasets":
        return False
    if isinstance(source, dict):
        splits = ", ".join(map(repr, source))
        raise InputError(f"a {kind.__name__} is several datasets ({splits}); give one of them, such as data['train']")
    return True


def dataset_texts(dataset: Any, column: str) -> Iterator[memoryview]:
    """The documents of a Dataset or an IterableDataset; a row that holds null is none."""
    name = type(dataset).__name__
    if dataset.column_names is not None:  # otherwise it is the rows that tell
        _check_column(name, column, dataset.column_names)
        dataset = dataset.select_columns([column])
    for table in dataset.with_format("arrow").iter(batch_size=_DATASET_ROWS):
        _check_column(name, column, table.column_names)
        for array in table.column(column).chunks:
            for _, text in _texts(name, column, array):
                yield text


def _check_column(name: str, column: str, columns: Iterable[str]) -> None:
    if column not in columns:
        raise InputError(
            f"{name}: there is no column {column!r}; name one with field / --field: {', '.join(map(repr, columns))}"
        )


def _texts(name: str, column: str, array: Any) -> Iterator[tuple[int, memoryview]]:
    """(row, text) of an Arrow array, without the rows that hold null."""
    types = require(name, "parquet", "pyarrow").types
    kind = array.type
    if types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if types.is_string_view(kind) or types.is_binary_view(kind):
        array = array.cast("large_string" if types.is_string_view(kind) else "large_binary")
        kind = array.type
    large = types.is_large_string(kind) or types.is_large_binary(kind)
    if not (large or types.is_string(kind) or types.is_binary(kind)):
        raise InputError(f"{name}: the column {column!r} holds {kind}, not text; name another one with field / --field")
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

"""Export of shards to other formats: NumPy arrays, Parquet, Arrow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bpe.errors import InputError
from bpe.files import replacing
from bpe.optional import require
from bpe.progress import phase
from bpe.shards.layout import SPLITS
from bpe.shards.reading import Shard, Shards

EXPORT_FORMATS = ("parquet", "arrow", "npy")
COLUMN = "input_ids"

_TOKENS = 1 << 20  # approximate tokens of a record batch, which is in memory at once and a row group in Parquet


def export_shards(directory: str | os.PathLike[str], output: str | os.PathLike[str], format: str) -> list[Path]:
    """Write each shard in another format into a new or empty directory.

    - parquet, arrow: ``train-00000.parquet`` has a column "input_ids", a list of uint16 or uint32 per document. "arrow"
      is the IPC file format, which can be memory-mapped. Both need pyarrow, and are written piece by piece.
    - npy: ``train-00000.npy`` has the ids. ``train-00000.docs.npy`` has the offset of each document, int64
      [documents + 1].

    Args:
        directory: The shards.
        output: Where to write.
        format: "parquet", "arrow" or "npy".

    Returns:
        The paths of the written files.

    Raises:
        InputError: When there are no shards, the format is unknown, pyarrow is not installed, or `output` is not empty.
        OSError: When the disk is full.
    """
    if format not in EXPORT_FORMATS:
        raise InputError(f"the format is {format!r}; it must be one of {', '.join(EXPORT_FORMATS)}")
    shards, output = Shards(directory), Path(output)
    shards.check()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: the directory is not empty; name a new or an empty directory")
    output.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        listed = [shard for split in SPLITS for shard in shards.shards(split)]
        with phase("exporting", len(listed), "shards") as exporting:
            for number, shard in enumerate(listed):
                exporting.update(number, shard.name)
                if format == "npy":
                    written += _write_arrays(output, shard)
                else:
                    written.append(_write_table(output / f"{Path(shard.name).stem}.{format}", shard))
    except BaseException:
        for path in written:  # an incomplete export would look like a complete one
            with suppress(OSError):
                path.unlink()
        raise
    return written


def _write_arrays(output: Path, shard: Shard) -> list[Path]:
    stem = Path(shard.name).stem
    paths = [output / f"{stem}.npy", output / f"{stem}.docs.npy"]
    for path, values in zip(paths, (shard.ids, shard.offsets), strict=True):
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, values, allow_pickle=False)
    return paths


def _write_table(path: Path, shard: Shard) -> Path:
    arrow: Any = require(str(path), "pyarrow")
    ids = arrow.uint16() if shard.ids.dtype.itemsize == 2 else arrow.uint32()
    schema = arrow.schema([arrow.field(COLUMN, arrow.list_(arrow.field("item", ids, nullable=False)), nullable=False)])
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            parquet: Any = require(str(path), "pyarrow.parquet")
            # Ids repeat too rarely for dictionaries.
            writer = parquet.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=False)
        else:
            writer = arrow.ipc.new_file(str(temporary), schema)
        with writer:
            for start, end in _pieces(shard):
                offsets = shard.offsets[start : end + 1]
                values = arrow.array(shard.ids[offsets[0] : offsets[-1]], ids)
                if len(values) >= 1 << 31:
                    raise InputError(
                        f"{path}: document {start} has {len(values):,} tokens, too many for a list; use npy"
                    )
                lists = arrow.ListArray.from_arrays(
                    arrow.array((offsets - offsets[0]).astype(np.int32)), values, type=schema.field(COLUMN).type
                )
                writer.write_batch(arrow.record_batch([lists], schema=schema))
    return path


def _pieces(shard: Shard) -> Iterator[tuple[int, int]]:
    """Yield ranges of documents that hold about as many tokens as are written at once."""
    start, count = 0, len(shard.offsets) - 1
    while start < count:
        end = int(np.searchsorted(shard.offsets, shard.offsets[start] + _TOKENS, side="right")) - 1
        end = min(max(end, start + 1), count)
        yield start, end
        start = end

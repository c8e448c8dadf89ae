"""Shards in other formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpe.errors import InputError
from bpe.shards import HELD_OUT, TRAIN, Shards, export_shards, verify_shards
from support.plain_shards import ByteTokenizer

Write = Callable[..., Shards]


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("at_once", [1, 100, 1 << 22])
def test_tables_have_a_list_of_ids_per_document(
    format: str, at_once: int, write_corpus: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setattr("bpe.shards.exporting._TOKENS", at_once)
    shards = write_corpus()
    files = export_shards(shards.directory, tmp_path / "out", format)
    for split in (TRAIN, HELD_OUT):
        rows = []
        for file in [file for file in files if file.name.startswith(split)]:
            if format == "parquet":
                table = pyarrow.parquet.read_table(file)
            else:
                table = pyarrow.ipc.open_file(pyarrow.memory_map(str(file))).read_all()
            assert table.column_names == ["input_ids"]
            assert table.schema.field(0).type.value_type == pyarrow.uint16()
            rows += table.column(0).to_pylist()
        assert rows == [ids.tolist() for ids in shards.documents(split)]


def test_arrays_hold_the_ids_and_the_offsets(write_corpus: Write, tmp_path: Path) -> None:
    shards = write_corpus()
    files = export_shards(shards.directory, tmp_path / "out", "npy")
    assert len(files) == 2 * sum(len(shards.shards(split)) for split in (TRAIN, HELD_OUT))
    for shard in shards.shards(TRAIN):
        stem = shard.name.removesuffix(".bin")
        assert np.array_equal(np.load(tmp_path / "out" / f"{stem}.npy", mmap_mode="r"), shard.ids)
        assert np.array_equal(np.load(tmp_path / "out" / f"{stem}.docs.npy"), shard.offsets)


def test_export_needs_an_empty_directory_and_a_known_format(write_corpus: Write, tmp_path: Path) -> None:
    shards = write_corpus()
    with pytest.raises(InputError, match="the format is 'csv'; it must be one of parquet, arrow, npy"):
        export_shards(shards.directory, tmp_path / "out", "csv")
    with pytest.raises(InputError, match="data: the directory is not empty"):
        export_shards(shards.directory, shards.directory, "npy")
    assert verify_shards(shards.directory, ByteTokenizer()).documents == 100


def test_failing_export_leaves_no_files(write_corpus: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bpe.shards.exporting as export

    shards = write_corpus()
    write_arrays = export._write_arrays

    def fails_at_last(output: Path, shard: Any) -> list[Path]:
        if shard.name.startswith(HELD_OUT):
            raise OSError(28, "No space left on device")
        return write_arrays(output, shard)

    monkeypatch.setattr(export, "_write_arrays", fails_at_last)
    with pytest.raises(OSError, match="No space left"):
        export_shards(shards.directory, tmp_path / "out", "npy")
    assert list((tmp_path / "out").iterdir()) == []

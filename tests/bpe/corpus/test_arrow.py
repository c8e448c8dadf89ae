"""Parquet files and Hugging Face datasets: a document in each row of a column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from bpe import InputError
from bpe.corpus import documents, read_corpus
from support.corpus_files import TEXTS, parquet, write_file


def test_missing_column_and_column_without_text_are_rejected(tmp_path: Path) -> None:
    rows = parquet(tmp_path / "a.parquet", ["text"])
    for source in (rows, datasets.Dataset.from_dict({"n": [1], "text": ["text"]})):
        with pytest.raises(InputError, match="no column 'content'; set field .* to one of 'n', 'text'"):
            list(read_corpus(source, field="content"))
        with pytest.raises(InputError, match="column 'n' holds int64, not text"):
            list(read_corpus(source, field="n"))


def test_columns_of_every_text_type_are_read_and_null_rows_skipped(tmp_path: Path) -> None:
    texts = ["a", None, "é" * 20, "", "a", None]
    for kind in ("string", "large_string", "string_view", "dictionary"):
        column = pyarrow.array(texts, "string")
        column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
        assert list(documents(tmp_path)) == [b"a", ("é" * 20).encode(), b"", b"a"]


@pytest.mark.parametrize("damage", [lambda c: c[:-5], lambda c: b"", lambda c: b"x" * 100, lambda c: c[:10] + c[60:]])
def test_damaged_parquet_file_is_rejected_by_name(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = parquet(tmp_path / "a.parquet", list(TEXTS))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="a.parquet: the file is damaged"):
        list(read_corpus(path))
    with pytest.raises(InputError, match="a.parquet.gz: decompress it first"):
        list(read_corpus(write_file(tmp_path / "a.parquet.gz", b"")))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("a.c", "no column 'a.c'; 'a' holds struct<b: string>"),
        ("a", "struct"),
        ("a.b.c", "no column 'a.b.c'"),
        ("b.a", "no column 'b.a'"),
    ],
)
def test_a_path_that_leads_to_no_text_is_refused(field: str, message: str, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"a": {"b": "x"}}]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=f"a.parquet: .*{message}"):
        list(documents(tmp_path / "a.parquet", field=field))

"""Malformed UTF-8 in every kind of feed."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from bpe import InputError
from bpe.corpus import Invalid, read_corpus
from support.corpus_files import text_of, write_file


def test_malformed_utf8_is_replaced_ignored_or_rejected(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.txt", b"fine \xff\xe2\x82 fine")
    reader = read_corpus(path)
    assert text_of(reader) == "fine \ufffd\ufffd fine".encode()
    assert reader.invalid == [Invalid(str(path), 2, "byte 5")]
    assert text_of(read_corpus(path, errors="ignore")) == b"fine  fine"
    with pytest.raises(InputError, match="a.txt: byte 5 is not UTF-8"):
        list(read_corpus(path, errors="strict"))
    with pytest.raises(InputError, match="errors is 'surrogateescape'"):
        read_corpus(path, errors="surrogateescape")


def test_malformed_utf8_is_named_by_document_line_or_row(tmp_path: Path) -> None:
    lines = write_file(tmp_path / "a.jsonl", b'{"text": "fine"}\n{"text": "a\xffb"}\n')
    rows = tmp_path / "a.parquet"
    column = pyarrow.array([b"fine", b"a\xffb", b"\xe2\x82", b"\xac"])
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), rows)
    for source, name, place, expected in [
        ([[b"fine", b"a\xffb"]], "list", "document 2", "finea\ufffdb"),
        (lines, str(lines), "line 2", "finea\ufffdb"),
        (rows, str(rows), "row 2", "finea\ufffdb\ufffd\ufffd"),
    ]:
        reader = read_corpus(source)
        assert text_of(reader) == expected.encode()
        assert [(found.name, found.first) for found in reader.invalid] == [(name, place)]
        with pytest.raises(InputError, match=f"{place} is not UTF-8"):
            list(read_corpus(source, errors="strict"))
    assert text_of(read_corpus([["a\ud83d\ude00\ud83d"]], errors="strict")) == "a😀\ufffd".encode()

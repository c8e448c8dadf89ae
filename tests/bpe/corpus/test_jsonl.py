"""JSON Lines files: a document in each line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe import InputError
from bpe.corpus import documents, read_corpus
from support.corpus_files import write_file


@given(texts=st.lists(st.text(max_size=10), max_size=5))
def test_each_line_of_a_jsonl_file_is_a_document(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "documents.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "id": 5}) for text in texts) + "\n \n", encoding="utf-8")
    assert list(documents(str(path))) == [text.encode() for text in texts]


def test_field_selects_the_key_of_a_jsonl_file(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_bytes(b'{"content": "a\\ud83d\\ude00\\ud83d", "text": 5}\r\n')
    assert list(documents(str(path), field="content")) == ["a😀\ufffd".encode()]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2 is not JSON"),
        (b"\xff", "line 2 is not JSON"),
        (b"[" * 100_000, "line 2 is not JSON"),
        (b'{"text": ' + b"9" * 5000 + b"}", "line 2"),
        (b"[]", "line 2 has no text under 'text'"),
        (b"5", "line 2 has no text"),
        (b"{}", "line 2 has no text"),
        (b"null", "line 2 has no text"),
        (b'{"text": 5}', "line 2 has no text"),
        (b'{"text": ["a"]}', "line 2 has no text"),
    ],
)
def test_line_without_text_is_rejected_with_its_number_after_the_documents_before_it(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    stream = documents(str(path))
    assert next(stream) == b"fine"
    with pytest.raises(InputError, match=message) as caught:
        next(stream)
    assert str(caught.value).startswith(str(path))


def test_lines_that_the_fast_parser_leaves_to_the_full_one_are_read(tmp_path: Path) -> None:
    lines = [
        b'{"text": "a\\ud83d\\ude00 \\ud83d", "n": NaN}',
        b'{"text": "\xed\xa0\x80", "text": "last"}',
        b'{"text": "big", "n": 123456789012345678901234567890}',
        b'{"text": "x", "text": "two \\u0000 \xe2\x82\xac"}',
        b'\xef\xbb\xbf{"text": "mark"}',
    ]
    path = write_file(tmp_path / "a.jsonl", b"\n".join(lines))
    texts = ["a😀 \ufffd".encode(), b"last", b"big", "two \0 €".encode(), b"mark"]
    assert list(documents(path)) == list(read_corpus(path))[0].texts == texts


@pytest.mark.parametrize(
    ("field", "rows"),
    [
        ("text", [{"text": "one"}, {"text": None}, {"text": ""}, {"text": None}, {"text": "two"}]),
        ("a.b", [{"a": {"b": "one"}}, {"a": None}, {"a": {"b": None}}, {"a": {"b": "two"}}]),
        ("text", [{"text": None}]),
    ],
)
def test_null_is_no_document_in_json_lines_as_in_parquet(field: str, rows: list[object], tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.jsonl", b"\n".join(json.dumps(row).encode() for row in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert list(documents(path, field=field)) == list(documents(tmp_path / "a.parquet", field=field))
    assert [part.documents for part in read_corpus(path, field=field)] == [
        part.documents for part in read_corpus(tmp_path / "a.parquet", field=field)
    ]


def test_dotted_field_selects_a_key_of_nested_objects(tmp_path: Path) -> None:
    write_file(tmp_path / "a.jsonl", b'{"a": {"b": {"c": "deep"}}}\n{"a.b.c": "flat", "a": 5}\n')
    assert list(documents(tmp_path, field="a.b.c")) == [b"deep", b"flat"]
    with pytest.raises(InputError, match="no text under 'a.b'"):
        list(documents(tmp_path, field="a.b"))

"""Text files: documents between separators, and documents that are read in pieces."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpe import InputError
from bpe.corpus import documents, read_corpus
from support.corpus_files import write_file


def test_separator_divides_a_file_and_white_space_around_it_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "tales.txt"
    path.write_bytes(b"one\n<|end|>\n\ntwo  three\n<|end|>\n\n<|end|>four <|end|>")
    assert list(documents(str(path), separator="<|end|>")) == [b"one", b"two  three", b"four"]
    assert len(list(documents(str(path)))) == 1
    with pytest.raises(InputError, match="separator"):
        list(documents(str(path), separator=""))


def test_sample_texts_hold_as_many_documents_as_their_readme_says(corpora: Path) -> None:
    rows = re.findall(r"^\| `(.+?)` .* (\d+) \|$", (corpora / "README.md").read_text(), re.MULTILINE)
    said = {name: int(count) for name, count in rows}
    found = {name: len(list(documents(str(corpora / name), separator="<|end_of_text|>"))) for name in said}
    assert len(said) == 7
    assert found == said


def test_document_that_cannot_be_cut_is_read_to_its_end_in_linear_time(tmp_path: Path) -> None:
    asked = []

    def cut(text: bytes | memoryview) -> int:
        asked.append(len(text))
        return 0

    write_file(tmp_path / "a.txt", b"a" * 100_000)
    assert [len(batch.texts[0]) for batch in read_corpus(tmp_path, cut=cut, batch_bytes=200)] == [100_000]
    assert len(asked) < 12  # each read doubles the text

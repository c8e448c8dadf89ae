"""Encoding files: the ids are those of the documents that bpe.corpus reads from them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe import InputError, Tokenizer, _core
from bpe.corpus import documents
from support.references import byte_tokenizer

END = "<|end|>"
TINY = byte_tokenizer("llama3", {END: 300, "<|x|>": 301}, ab=256)
SLOW = byte_tokenizer(r"\w+|\W+", {END: 300, "<|x|>": 301}, ab=256)


@pytest.fixture(params=["scanner", "regex"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """A tokenizer with a scanner in the core, and one without."""
    return TINY if request.param == "scanner" else SLOW


def rows(result: tuple[Any, Any]) -> list[list[int]]:
    ids, offsets = result
    assert (offsets.dtype, offsets[0], offsets[-1]) == (np.int64, 0, len(ids))
    return [ids[begin:end].tolist() for begin, end in zip(offsets, offsets[1:], strict=False)]


def written(directory: Path, *contents: bytes) -> list[Path]:
    paths = [directory / f"{number}.txt" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


CONTENTS = [
    b"",
    b"ab",
    b" ab<|end|>\n\ncd<|end|><|end|> \t\n<|end|>",
    b"<|end|>",
    b"\xff\xc3<|end|>a\0b",
    b"ab\n" * 30_000,
]


@pytest.mark.parametrize("separator", [None, END, "\n", "\n\n", "ab", "é"])
def test_documents_in_files_are_those_of_the_corpus(
    tokenizer: Tokenizer, tmp_path: Path, separator: str | None
) -> None:
    paths = written(tmp_path, *CONTENTS)
    expected = [tokenizer.encode_ordinary(each) for each in documents(paths, separator=separator)]
    for threads in (1, 3):
        assert rows(tokenizer.encode_files(paths, separator=separator, num_threads=threads)) == expected


@given(content=st.lists(st.sampled_from([*" \n\t\v\f\ra<", "<|", "end", END, "|>", "\u3000", "\x1c"])).map("".join))
def test_separators_are_found_as_in_bpe_corpus(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    path = tmp_path_factory.getbasetemp() / "separated.txt"
    path.write_bytes(content.encode())
    for separator in (END, "<", "a", " ", "\n"):
        expected = [TINY.encode_ordinary(each) for each in documents(path, separator=separator)]
        assert rows(TINY.encode_files([path], separator=separator)) == expected


def test_sample_files_get_the_ids_of_their_texts_in_memory(
    llama3: Tokenizer, corpora: Path, corpus_texts: dict[str, str]
) -> None:
    paths = [corpora / name for name in corpus_texts]
    expected = [llama3.encode_ordinary(text) for text in corpus_texts.values()]
    assert rows(llama3.encode_files(paths)) == expected
    assert rows(llama3.encode_files(str(paths[0]))) == expected[:1]
    joined = [llama3.encode_ordinary(each) for each in documents(paths, separator="<|end_of_text|>")]
    assert rows(llama3.encode_files(iter(paths), separator="<|end_of_text|>", num_threads=4)) == joined


def test_ids_can_be_uint16_and_be_written_to_an_array_of_the_caller(tokenizer: Tokenizer, tmp_path: Path) -> None:
    paths = written(tmp_path, *CONTENTS)
    wide, offsets = tokenizer.encode_files(paths, separator=END)
    out = np.full(len(wide) + 3, 9, dtype=np.uint16)
    narrow, same = tokenizer.encode_files(paths, separator=END, dtype=np.uint16, out=out)
    assert np.shares_memory(narrow, out)
    assert np.array_equal(wide, narrow) and np.array_equal(offsets, same) and out[-3:].tolist() == [9, 9, 9]
    with pytest.raises(ValueError, match="room for 5 ids"):
        tokenizer.encode_files(paths, separator=END, out=np.zeros(5, np.uint32))


def test_special_tokens_are_treated_as_in_encode(tokenizer: Tokenizer, tmp_path: Path) -> None:
    paths = written(tmp_path, b"a<|end|>b", b"c<|x|>d")
    assert rows(tokenizer.encode_files(paths, separator=END, allowed_special="all")) == [[97], [98], [99, 301, 100]]
    assert rows(tokenizer.encode_files(paths, allowed_special={END}))[0] == [97, 300, 98]
    with pytest.raises(ValueError, match=r"1\.txt: .*<\|x\|>"):  # the separators in the other file are none of the text
        tokenizer.encode_files(paths, separator=END, disallowed_special="all")
    with pytest.raises(ValueError, match=r"0\.txt: .*<\|end\|>"):
        tokenizer.encode_files(paths, disallowed_special="all")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    paths = written(tmp_path, b"a")
    with pytest.raises(FileNotFoundError, match="missing"):
        TINY.encode_files([*paths, tmp_path / "missing"])
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        TINY.encode_files([tmp_path])
    with pytest.raises(ValueError, match="null"):
        TINY.encode_files(["a\0b"])
    for wrong in (None, 5, [None], [5]):
        with pytest.raises(TypeError):
            TINY.encode_files(wrong)  # type: ignore[call-overload]


def test_an_empty_separator_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="separator"):
        tokenizer.encode_files(written(tmp_path, b"a"), separator="")
    with pytest.raises(ValueError, match="separator"):
        TINY.vocabulary.encoder.encode_all(["a"], None, 1, "")


def test_no_files_give_no_ids() -> None:
    assert rows(TINY.encode_files([])) == []


def test_more_files_than_may_be_open_at_once_are_encoded(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    paths = written(tmp_path, b"ab " * 20_000) * 300
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, limits[0]), limits[1]))
    try:
        _, offsets = TINY.encode_files(paths)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(offsets) == 301


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"ab " * 100_000,))
    writer.start()
    ids, _ = TINY.encode_files(pipe)
    writer.join()
    assert TINY.decode_bytes(ids) == b"ab " * 100_000


def test_content_of_a_file_is_read_only(tmp_path: Path) -> None:
    for path in written(tmp_path, b"small", b"large" * 20_000):
        content = memoryview(_core.file_content(path))
        assert content.readonly and content.tobytes() == path.read_bytes()

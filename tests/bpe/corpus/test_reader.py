"""The reader: batches, its thread, and its memory."""

from __future__ import annotations

import gzip
import json
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe import InputError
from bpe.corpus import read_corpus
from support.corpus_files import COMPRESSIONS, json_lines, last_space, text_of, write_file

PIECES = [b" ", b"\n", b"a", b"|", b"||", b"\xff", b"\xe2\x82", "é".encode(), "€".encode(), "😀".encode()]


@given(
    contents=st.lists(st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join), min_size=1, max_size=3),
    separator=st.sampled_from([None, "||"]),
    errors=st.sampled_from(["replace", "ignore"]),
    cut=st.sampled_from([None, last_space]),
    weights=st.booleans(),
    batch_bytes=st.integers(1, 30),
)
def test_batches_join_to_the_documents_and_reading_resumes_after_each(
    tmp_path_factory: pytest.TempPathFactory,
    contents: list[bytes],
    separator: str | None,
    errors: str,
    cut: Callable[[bytes | memoryview], int] | None,
    weights: bool,
    batch_bytes: int,
) -> None:
    paths = []
    for number, content in enumerate(contents):
        paths.append(tmp_path_factory.getbasetemp() / f"{number}.txt")
        paths[-1].write_bytes(content)
    options: dict[str, Any] = {"separator": separator, "errors": errors, "cut": cut, "batch_bytes": batch_bytes}
    if weights:
        options["weights"] = [1, 1, 2][: len(paths)]
    reader = read_corpus(paths, **options)
    batches = list(reader)

    texts = [content.decode("utf-8", errors).encode() for content in contents]
    if separator is not None:
        texts = [part.strip() for text in texts for part in text.split(separator.encode()) if part.strip()]
    assert text_of(batches) == b"".join(texts)
    assert sum(batch.documents for batch in batches) == len(texts)
    assert all(batch.size == sum(map(len, batch.texts)) for batch in batches)
    if cut is None:
        assert [text for batch in batches for text in batch.texts] == texts
    malformed = [c.decode("utf-8", "replace").count("\ufffd") for c in contents]
    assert [found.sequences for found in reader.invalid] == [count for count in malformed if count]

    for number, batch in enumerate(batches):
        resumed = read_corpus(paths, **options, start=json.loads(json.dumps(batch.position)))
        rest = list(resumed)
        assert text_of(rest) == text_of(batches[number + 1 :])
        assert sum(b.documents for b in rest) == sum(b.documents for b in batches[number + 1 :])
        assert resumed.invalid == reader.invalid


def test_batch_holds_texts_of_one_source_or_of_neighbours_of_equal_weight(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    sources: list[Any] = [tmp_path, tmp_path / "a", tmp_path / "b", ["c", "d"]]
    batches = list(read_corpus(sources))
    assert [(b.texts, b.source, b.weight) for b in batches] == [
        ([b"a", b"b"], 0, 1),
        ([b"a"], 1, 1),
        ([b"b"], 2, 1),
        ([b"c", b"d"], 3, 1),
    ]
    batches = list(read_corpus(sources, weights=[5, 5, 1, 1]))  # the iterable is read in this thread
    assert [(b.texts, b.source, b.weight) for b in batches] == [
        ([b"a", b"b", b"a"], 0, 5),
        ([b"b"], 2, 1),
        ([b"c", b"d"], 3, 1),
    ]
    with pytest.raises(InputError, match="3 weights for 4 sources"):
        read_corpus(sources, weights=[1, 2, 3])


def test_read_and_total_count_bytes_on_disk(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"word " * 100_000))
    (tmp_path / "b.txt").write_bytes(b"word " * 1000)
    reader = read_corpus(tmp_path, cut=last_space, batch_bytes=1 << 16)
    read = [batch.read for batch in reader]
    assert reader.total == sum(path.stat().st_size for path in tmp_path.iterdir()) == read[-1]
    assert all(before <= after for before, after in pairwise(read))
    assert 0 < read[0] < read[-1]
    assert read_corpus([tmp_path, ["text"]]).total is None


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bpe.corpus"]


def open_files(directory: Path) -> list[str]:
    links = [f"/proc/self/fd/{descriptor}" for descriptor in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.lexists(link) and str(directory) in os.readlink(link)]


def test_files_are_read_in_another_thread_and_iterables_in_the_callers(tmp_path: Path) -> None:
    def texts() -> Iterator[str]:
        assert threading.current_thread() is threading.main_thread()
        assert not readers()
        yield "text"

    write_file(tmp_path / "a.txt", b"word " * 1000)
    batches = iter(read_corpus([tmp_path, texts()], cut=last_space, batch_bytes=100))
    next(batches)
    assert len(readers()) == 1
    assert text_of(batches).endswith(b"text")
    assert not readers()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are looked up in /proc")
def test_dropping_the_iterator_ends_the_thread_and_closes_the_file(tmp_path: Path) -> None:
    write_file(tmp_path / "a.txt", b"word " * 100_000)
    reader = read_corpus(tmp_path, cut=last_space, batch_bytes=100)
    for leave in ("close", "raise", "break"):
        batches = iter(reader)
        next(batches)
        assert open_files(tmp_path)
        if leave == "close":
            batches.close()  # type: ignore[attr-defined]
        elif leave == "break":
            for _ in batches:
                break
            del batches
        else:
            with pytest.raises(KeyboardInterrupt):
                for _ in batches:
                    raise KeyboardInterrupt
            del batches
        assert not readers()
        assert not open_files(tmp_path)


def test_error_is_raised_after_the_text_before_it(tmp_path: Path) -> None:
    write_file(tmp_path / "a.txt", b"fine")
    write_file(tmp_path / "b.jsonl", b'{"text": "fine"}\n{\n')
    batches = iter(read_corpus(tmp_path, batch_bytes=1))
    assert [next(batches).texts, next(batches).texts] == [[b"fine"], [b"fine"]]
    with pytest.raises(InputError, match="line 2 is not JSON"):
        next(batches)
    assert not readers()
    gone = read_corpus(write_file(tmp_path / "c.txt", b"c"))
    (tmp_path / "c.txt").unlink()
    with pytest.raises(FileNotFoundError, match="c.txt"):
        list(gone)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz", "a.jsonl.zst", "a.parquet"])
def test_memory_does_not_grow_with_file_size(tmp_path: Path, name: str) -> None:
    document = "many words " * 1000
    count = 3000
    if name == "a.parquet":
        table = pyarrow.table({"text": [document] * count})
        pyarrow.parquet.write_table(table, tmp_path / name, use_dictionary=False, write_batch_size=64)
    else:
        content = json_lines([document] * count) if "jsonl" in name else document.encode() * count
        compress = dict(COMPRESSIONS).get(Path(name).suffix.replace("zst", "ZST"), bytes)
        write_file(tmp_path / name, compress(content))
        del content
    seen = 0
    tracemalloc.start()
    pyarrow_before = pyarrow.total_allocated_bytes()
    most = 0
    for batch in read_corpus(tmp_path, cut=last_space, batch_bytes=1 << 20):
        seen += batch.size
        most = max(most, pyarrow.total_allocated_bytes() - pyarrow_before)
    most += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == len(document) * count > 2 * most
    assert most < 16 << 20

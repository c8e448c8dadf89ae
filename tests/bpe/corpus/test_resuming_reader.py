"""Resuming: a reader continues after any batch of an earlier one, and refuses another corpus."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pytest

from bpe import InputError
from bpe.corpus import read_corpus
from support.corpus_files import TEXTS, json_lines, last_space, parquet, resume, text_of, write_file, zstd_compress


def in_memory(name: str, content: bytes) -> str:
    fsspec.filesystem("memory").pipe(name, content)
    return f"memory:/{name}"


SOURCES: dict[str, Callable[[Path], Any]] = {
    "list": lambda _: [TEXTS],
    "bytes": lambda _: [[text.encode() for text in TEXTS]],
    "generator": lambda _: [(text for text in TEXTS)],
    "dataset": lambda _: datasets.Dataset.from_dict({"text": TEXTS, "n": range(40)}),
    "shuffled dataset": lambda _: datasets.Dataset.from_dict({"text": TEXTS[::-1]}).select(range(39, -1, -1)),
    "iterable dataset": lambda _: datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(),
    "generated dataset": lambda _: datasets.IterableDataset.from_generator(lambda: ({"text": text} for text in TEXTS)),
    "parquet": lambda path: parquet(path / "a.parquet", list(TEXTS)),
    "jsonl": lambda path: write_file(path / "a.jsonl", json_lines(TEXTS)),
    "ndjson.zst": lambda path: write_file(path / "a.NDJSON.zst", zstd_compress(json_lines(TEXTS))),
    "jsonl.gz": lambda path: write_file(path / "a.jsonl.gz", gzip.compress(json_lines(TEXTS))),
    "remote jsonl": lambda _: in_memory("/resume/a.jsonl", json_lines(TEXTS)),
    "remote parquet": lambda path: in_memory(
        "/resume/a.parquet", parquet(path / "a.parquet", list(TEXTS)).read_bytes()
    ),
    "text": lambda path: write_file(path / "a.txt", "".join(TEXTS).encode()),
    "text.xz": lambda path: write_file(path / "a.txt.xz", lzma.compress("".join(TEXTS).encode())),
    "text.bz2": lambda path: write_file(path / "a.txt.bz2", bz2.compress("".join(TEXTS).encode())),
    "text.zst": lambda path: write_file(path / "a.txt.zst", zstd_compress("".join(TEXTS).encode())),
    "remote text": lambda _: in_memory("/resume/a.txt", "".join(TEXTS).encode()),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source_resumes_after_any_batch(kind: str, tmp_path: Path) -> None:
    source = SOURCES[kind](tmp_path)

    def again() -> Any:  # files stay as they are; sources that can be read only once are created again
        return source if isinstance(source, (str, Path)) else SOURCES[kind](tmp_path)

    options: dict[str, Any] = {"cut": last_space, "batch_bytes": 100}
    batches = list(read_corpus(source, **options))
    assert len(batches) > 3
    assert text_of(batches) == "".join(TEXTS).encode()
    assert sum(batch.documents for batch in batches) == (1 if "text" in kind else 40)
    for number, batch in enumerate(batches):
        assert text_of(resume(batch, again(), **options)) == text_of(batches[number + 1 :])


def test_stdin_resumes_if_its_beginning_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    content = b"word \xff \xe2\x82\xac " * 50
    options: dict[str, Any] = {"cut": last_space, "batch_bytes": 64}
    give(content)
    batches = list(read_corpus("-", **options))
    for number, batch in enumerate(batches):
        give(content)
        assert text_of(resume(batch, "-", **options)) == text_of(batches[number + 1 :])
    for other in (b"W" + content[1:], content[:200]):
        give(other)
        with pytest.raises(InputError, match="stdin: the beginning of this text differs from that of the"):
            resume(batches[10], "-", **options)


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize(
    ("disturb", "message"),
    [
        (lambda tree: change(tree / "m" / "d.py"), "m/d.py has changed"),
        (lambda tree: (tree / "m" / "d.py").unlink(), "m/d.py is missing"),
        (lambda tree: (tree / "c.txt").write_text("new"), "c.txt is new"),
    ],
)
def test_changed_corpus_is_rejected_naming_the_difference(
    tree: Path, disturb: Callable[[Path], None], message: str
) -> None:
    batch = next(iter(read_corpus(tree, batch_bytes=1)))
    assert text_of(resume(batch, tree)) == "b\ufffd\ufffddc".encode()
    disturb(tree)
    with pytest.raises(InputError, match=message):
        resume(batch, tree)


def test_missing_or_reordered_source_is_rejected_by_name(tree: Path) -> None:
    sources = [tree / "a.txt", tree / "b.txt"]
    batch = next(iter(read_corpus(sources)))
    with pytest.raises(InputError, match="different order"):
        resume(batch, sources[::-1])
    with pytest.raises(InputError, match="a.txt is missing"):
        resume(batch, sources[1:])
    (tree / "a.txt").unlink()
    with pytest.raises(InputError, match="a.txt: no such file"):
        resume(batch, sources)


def test_other_documents_and_options_are_rejected(tmp_path: Path) -> None:
    batches = list(read_corpus([TEXTS], batch_bytes=200))
    for other in (["other", *TEXTS[1:]], TEXTS[:3], []):
        with pytest.raises(InputError, match="not the documents of the interrupted run"):
            resume(batches[3], [other])
    with pytest.raises(InputError, match="begun with field 'text', not 'content'"):
        resume(batches[3], [TEXTS], field="content")


def test_fingerprint_changes_with_files_and_options(tree: Path) -> None:
    before = read_corpus(tree).fingerprint
    assert json.loads(json.dumps(before)) == before == read_corpus(tree).fingerprint
    assert read_corpus(tree, separator="x").fingerprint != before
    change(tree / "a.txt")
    assert read_corpus(tree).fingerprint != before

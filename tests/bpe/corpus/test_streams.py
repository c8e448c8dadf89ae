"""Compressed files."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bpe import InputError
from bpe.corpus import documents, read_corpus
from support.corpus_files import COMPRESSIONS, last_space, text_of, write_file


@pytest.mark.parametrize(("suffix", "compress"), COMPRESSIONS)
def test_compressed_files_are_read_in_the_format_that_they_contain(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    content = b'{"text": "one"}\n{"text": "two"}\n'
    (tmp_path / f"a.jsonl{suffix}").write_bytes(compress(content))
    (tmp_path / f"b.txt{suffix}").write_bytes(compress(b"text"))
    assert list(documents(str(tmp_path))) == [b"one", b"two", b"text"]
    assert list(documents(str(tmp_path / f"b.txt{suffix}"), separator="x")) == [b"te", b"t"]
    path = tmp_path / f"twice{suffix}"
    path.write_bytes(compress(b"one") + compress(b"two"))
    assert list(documents(str(path))) == [b"onetwo"]


@pytest.mark.parametrize(("suffix", "compress"), COMPRESSIONS)
@pytest.mark.parametrize("damage", [lambda c: c[:-5], lambda c: c[:20], lambda c: b"no archive"])
def test_damaged_archive_is_rejected_by_name(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes], damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(damage(compress(bytes(range(256)))))
    with pytest.raises(InputError, match="the archive is damaged") as caught:
        list(documents(str(path)))
    assert str(caught.value).startswith(str(path))


def test_gzip_files_are_read_the_same_with_and_without_isal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"".join(b"%d " % n for n in range(100_000))
    path = write_file(tmp_path / "a.txt.gz", gzip.compress(content[:300_000]) + gzip.compress(content[300_000:]))
    batches = list(read_corpus(path, cut=last_space, batch_bytes=1 << 16))
    assert text_of(batches) == content
    monkeypatch.setitem(sys.modules, "isal.igzip", None)
    again = list(read_corpus(path, cut=last_space, batch_bytes=1 << 16))
    assert [(batch.texts, batch.position) for batch in again] == [(batch.texts, batch.position) for batch in batches]
    for damage in (content[:1000], path.read_bytes()[:-5]):
        with pytest.raises(InputError, match="a.txt.gz: the archive is damaged"):
            list(documents(write_file(path, damage)))

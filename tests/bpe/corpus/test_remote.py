"""Files at addresses."""

from __future__ import annotations

import gzip
import re

import fsspec
import pytest

from bpe import InputError
from bpe.corpus import documents, read_corpus
from support.corpus_files import resume


def test_addresses_of_files_directories_and_globs_are_read() -> None:
    filesystem = fsspec.filesystem("memory")
    for name, content in {"b.txt": b"b", "a.txt": b"a", "z/c.txt.gz": gzip.compress(b"c"), "binary": b"\0"}.items():
        filesystem.pipe(f"/tree/{name}", content)
    filesystem.pipe("/tree/.hidden/d.txt", b"d")
    filesystem.pipe("/empty/binary", b"\0")
    for address, expected in [
        ("memory://tree", [b"a", b"b", b"c"]),
        ("memory://tree/a.txt", [b"a"]),
        ("memory://tree/[ab].txt", [b"a", b"b"]),
        ("memory://tree/**/*.gz", [b"c"]),
        ("memory://tree/binary", [b"\0"]),
    ]:
        assert list(documents(address)) == expected
    assert list(documents("memory://tree", exclude=["z", "b.*"])) == [b"a"]
    reader = read_corpus("memory://tree")
    batch = next(iter(reader))
    assert reader.total == batch.read
    filesystem.pipe("/tree/b.txt", b"longer")
    with pytest.raises(InputError, match="memory://.*tree/b.txt has changed"):
        resume(batch, "memory://tree")
    for address, message in [
        ("memory://nothing", "no such file"),
        ("memory://tree/*.c", "no text files"),
        ("memory://empty", "no text files"),
        ("nosuch://a.txt", "cannot be read .*nosuch"),
    ]:
        with pytest.raises(InputError, match=f"{re.escape(address)}: {message}"):
            list(documents(address))

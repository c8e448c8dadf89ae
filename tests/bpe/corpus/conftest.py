"""Fixtures of the corpus tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with files on several levels, some of which are not text files."""
    files = {
        "b.txt": b"b",
        "a.txt": b"a",
        "z/deep/er/c.txt": b"c",
        "m/d.py": b"d",
        "m/empty.txt": b"",
        ".hidden": b"hidden",
        ".git/config": b"hidden",
        "binary.bin": b"bin\0ary",
        "broken.txt": b"\xff\xfe",
    }
    for name, content in files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "tree"

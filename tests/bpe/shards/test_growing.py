"""Files that grow, and are flushed to disk while they are written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bpe.shards import growing


def test_file_is_flushed_to_disk_while_more_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    monkeypatch.setattr(growing, "_STORED", 100)
    file = growing._GrowingFile(tmp_path / "ids", 0, 0)
    for number in range(41):
        file.write(np.full(13, number, np.uint8))
        file._thread.submit(int).result()  # wait until the thread is idle
    file.flush()
    file.close()
    assert sizes == [104, 208, 312, 416, 520, 533]
    assert (tmp_path / "ids").read_bytes() == b"".join(bytes([number]) * 13 for number in range(41))


def test_failing_flush_raises_an_error_that_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(descriptor: int) -> None:
        monkeypatch.undo()  # the operating system reports an error once
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(growing, "_STORED", 1)
    file = growing._GrowingFile(tmp_path / "ids", 0, 0)
    file.write(np.zeros(1, np.uint8))
    with pytest.raises(OSError, match=r"Input/output error: '.*ids'"):
        file.flush()
    file.close()

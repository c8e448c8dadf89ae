"""What the core does for shards, held against plain Python; and how their files come to the disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe import Tokenizer, _core
from bpe.shards import growing
from support.references import BYTE_RANKS

ids = st.integers(0, 2**16 - 1)


@given(
    documents=st.lists(st.lists(ids, max_size=40), min_size=1, max_size=8),
    rows=st.lists(st.integers(0, 100), max_size=12),
    begin=st.none() | ids,
    end=st.none() | ids,
    short=st.booleans(),
)
def test_documents_are_taken_in_any_order_each_between_its_two_ids(
    documents: list[list[int]], rows: list[int], begin: int | None, end: int | None, short: bool
) -> None:
    flat = np.array([id for document in documents for id in document], np.uint32)
    offsets = np.cumsum([0, *map(len, documents)])
    rows = [row % len(documents) for row in rows]
    taken, ends = _core.take_documents(flat, offsets, np.array(rows, np.int64), begin, end, short)
    before, after = ([] if id is None else [id] for id in (begin, end))
    expected = [[*before, *documents[row], *after] for row in rows]
    assert taken.dtype == (np.uint16 if short else np.uint32)
    assert ends.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert taken.tolist() == [id for document in expected for id in document]


@pytest.mark.parametrize(
    ("offsets", "row"), [([0, 2], 1), ([0, 2], -1), ([0, 4], 0), ([2, 1], 0), ([-1, 1], 0), ([0], 0), ([], 0)]
)
def test_documents_that_cannot_be_are_refused(offsets: list[int], row: int) -> None:
    with pytest.raises(ValueError, match="no document has number|do not match the ids"):
        _core.take_documents(
            np.zeros(3, np.uint32), np.array(offsets, np.int64), np.array([row], np.int64), None, None, False
        )


def test_the_size_of_each_token_is_that_of_its_bytes() -> None:
    ranks = BYTE_RANKS | {b"he": 256, "é".encode(): 258}
    special = {"<|end|>": 300}
    tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens=special)
    expected = np.zeros(301, np.uint32)
    for token, id in ranks.items():
        expected[id] = len(token)
    assert tokenizer.token_sizes().tolist() == expected.tolist()


def test_what_is_written_comes_to_the_disk_while_more_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    monkeypatch.setattr(growing, "_STORED", 100)
    file = growing._GrowingFile(tmp_path / "ids", 0, 0)
    for number in range(41):
        file.write(np.full(13, number, np.uint8))
        file._thread.submit(int).result()  # so that the thread is at rest
    file.flush()
    file.close()
    assert sizes == [104, 208, 312, 416, 520, 533]
    assert (tmp_path / "ids").read_bytes() == b"".join(bytes([number]) * 13 for number in range(41))


def test_a_disk_that_fails_meanwhile_is_an_error_with_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(descriptor: int) -> None:
        monkeypatch.undo()  # the system tells of an error once
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(growing, "_STORED", 1)
    file = growing._GrowingFile(tmp_path / "ids", 0, 0)
    file.write(np.zeros(1, np.uint8))
    with pytest.raises(OSError, match=r"Input/output error: '.*ids'"):
        file.flush()
    file.close()

"""Encoded documents: documents taken from arrays of ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe import Tokenizer, _core
from support.references import BYTE_RANKS

ids = st.integers(0, 2**16 - 1)


@given(
    documents=st.lists(st.lists(ids, max_size=40), min_size=1, max_size=8),
    rows=st.lists(st.integers(0, 100), max_size=12),
    begin=st.none() | ids,
    end=st.none() | ids,
    short=st.booleans(),
)
def test_documents_are_taken_in_any_order_with_the_ids_around_them(
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
def test_invalid_offsets_and_rows_are_rejected(offsets: list[int], row: int) -> None:
    with pytest.raises(ValueError, match="no document has number|do not match the ids"):
        _core.take_documents(
            np.zeros(3, np.uint32), np.array(offsets, np.int64), np.array([row], np.int64), None, None, False
        )


def test_token_sizes_are_the_lengths_of_the_tokens_in_bytes() -> None:
    ranks = BYTE_RANKS | {b"he": 256, "é".encode(): 258}
    special = {"<|end|>": 300}
    tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens=special)
    expected = np.zeros(301, np.uint32)
    for token, id in ranks.items():
        expected[id] = len(token)
    assert tokenizer.token_sizes().tolist() == expected.tolist()

"""The words of a text."""

from __future__ import annotations

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from bpe.analysis.words import word_spans
from support.references import broken_bytes


@given(st.binary(max_size=40) | broken_bytes())
def test_word_spans_of_any_bytes_are_in_order_and_within_the_text(content: bytes) -> None:
    begins, ends = word_spans(content)
    edges = np.stack([begins, ends], axis=1).ravel()
    assert np.all(np.diff(edges) > 0)
    assert len(edges) == 0 or (edges[0] >= 0 and edges[-1] <= len(content))
    for begin, end in zip(begins, ends, strict=True):
        assert not regex.search(r"[\p{C}\p{Z}]", content[begin:end].decode())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one two", ["one", "two"]),
        ("don't stop_me x2y", ["don", "t", "stop", "me", "x", "y"]),
        ("nai\u0308ve हिन्दी 한국어 עברית", ["nai\u0308ve", "हिन्दी", "한국어", "עברית"]),
        ("日本語のテキスト ไทยกี่ ភាសា မြန်မာ", []),
        ("中abc中", ["abc"]),
        ("1 \u0301 !?", []),
        ("", []),
    ],
)
def test_words_are_runs_of_letters_of_scripts_with_spaces_between_words(text: str, words: list[str]) -> None:
    content = text.encode()
    begins, ends = word_spans(content)
    assert [content[begin:end].decode() for begin, end in zip(begins, ends, strict=True)] == words

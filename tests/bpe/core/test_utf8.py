"""Test the validation of UTF-8 against Python's decoder."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from bpe import _core

# Whole characters of each length at the edges of their ranges, and byte sequences that are almost characters.
WHOLE = [text.encode() for text in "a\0\x7f\x80߿ࠀ\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff"]
BROKEN = """
    80 bf c0 c1 c2 df e0 e1 ed ef f0 f1 f4 f5 ff c080 c280 e080 e09f e0a0 e182 ed9f eda0 eda080 f080 f08f f090 f09080
    f180 f18080 f48f f48f80 f490 f4908080 f8888080
"""
PIECES = WHOLE + [bytes.fromhex(sequence) for sequence in BROKEN.split()]
ragged = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=60).map(b"".join)


def first_invalid(text: bytes) -> int:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(text)


def check(text: bytes) -> None:
    assert _core.invalid_utf8(text) == _core.invalid_utf8(text, plain=True) == first_invalid(text)
    for errors, replacement in (("replace", "\ufffd".encode()), ("ignore", b"")):
        replaced, count = _core.replace_invalid_utf8(text, replacement)
        assert replaced == text.decode("utf-8", errors).encode()
        inserted = [text.decode("utf-8", policy).count("\ufffd") for policy in ("replace", "ignore")]
        assert count == inserted[0] - inserted[1]
    marked, count = _core.replace_invalid_utf8(text, b"\xff")
    assert marked.count(b"\xff") == count
    assert marked.replace(b"\xff", b"") == text.decode("utf-8", "ignore").encode()


@given(text=ragged, before=st.integers(0, 130), filler=st.sampled_from(["a", "é", "日", "😀"]))
@example(text=b"\xf0\x90\x80", before=63, filler="a")
def test_malformed_sequences_are_those_that_python_finds(text: bytes, before: int, filler: str) -> None:
    check(text)
    check(filler.encode() * before + text)
    check(filler.encode() * before + text + b"a" * 70)


def test_every_sequence_of_up_to_three_edge_bytes_is_judged_as_in_python() -> None:
    edges = bytes.fromhex("00 41 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 ff")
    for size in (1, 2, 3):
        for text in itertools.product(edges, repeat=size):
            check(bytes(text))
            for before in (30, 61):  # the bytes cross the edge of a block
                padded = b"a" * before + bytes(text) + b"a" * 70
                assert _core.invalid_utf8(padded) == _core.invalid_utf8(padded, plain=True) == first_invalid(padded)


@given(text=st.text(max_size=100))
def test_the_unfinished_character_at_the_end_of_a_cut_text_is_found(text: str) -> None:
    encoded = text.encode()
    for end in range(len(encoded) + 1):
        unfinished = _core.unfinished_character(encoded[:end])
        assert unfinished == end - len(encoded[:end].decode("utf-8", "ignore").encode())

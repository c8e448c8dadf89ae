"""Test the fast reader of JSON Lines against the json module."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpe import _core

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
plain_keys = st.sampled_from(["id", "meta", "te", "text2", "é", ""])
records = st.tuples(st.dictionaries(plain_keys, values, max_size=4), st.text(max_size=60), st.booleans())


def written(record: dict[str, object], text: str, first: bool, ascii: bool, space: bool) -> bytes:
    record = {"text": text, **record} if first else {**record, "text": text}
    separators = (" ,\t", " :\r ") if space else None
    return json.dumps(record, ensure_ascii=ascii, separators=separators).encode()


@given(lines=st.lists(st.tuples(records, st.booleans(), st.booleans()), max_size=4), newline=st.booleans())
def test_the_text_of_every_well_formed_line_is_found(
    lines: list[tuple[tuple[dict[str, object], str, bool], bool, bool]], newline: bool
) -> None:
    block = b"\n".join(written(*record, ascii, space) for record, ascii, space in lines)
    found = _core.json_texts(block + b"\n" * (newline and bool(lines)), "text")
    assert found == [record[1].encode() for record, _, _ in lines]


@given(
    record=records,
    ascii=st.booleans(),
    edits=st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=2)), max_size=3),
)
def test_every_text_found_equals_the_text_that_the_json_module_finds(
    record: tuple[dict[str, object], str, bool], ascii: bool, edits: list[tuple[int, bytes]]
) -> None:
    line = written(*record, ascii, False)
    for place, other in edits:
        place %= len(line)
        line = line[:place] + other.replace(b"\n", b"") + line[place + 1 :]
    (found,) = _core.json_texts(line + b"\n", "text")
    if found is not None:
        assert json.loads(line)["text"].encode() == found


@pytest.mark.parametrize(
    "line",
    r"""
    {"text": "\ud800"}  {"text": "\ud800\ud800"}  {"text": "\udc00\ud800"}  {"text": "\u12"}  {"text": "\u12g4"}
    {"text": "\x41"}  {"text": "\"}  {"text": "a  {"text": 5}  {"text": null}  {"text": ["a"]}  {"t": "a"}  ["text"]
    {"text": "a"}}  {"text": "a"},  {"text": "a",}  {,"text": "a"}  {"text" "a"}  {"text": "a" "n": 1}  {text: "a"}
    {"text": "a", "n": 01}  {"text": "a", "n": 1.}  {"text": "a", "n": .5}  {"text": "a", "n": 1e}
    {"text": "a", "n": +1}  {"text": "a", "n": -}  {"text": "a", "n": NaN}  {"text": "a", "n": tru}
    {"text": "a", "n": nulll}  {"text": "a", "n": [1,]}  {"text": "a", "n": [1}  {"text": "a", "n": {"b"}}
    {"text": "a", "te\u0078t": 1}
    {"text": "a", "n": "\q"}  {"text": "a", "n": "\u00"}
    """.replace("\n    ", "  ").split("  "),
)
def test_invalid_lines_and_lines_without_a_text_are_left_to_the_full_parser(line: str) -> None:
    assert set(_core.json_texts(line, "text")) <= {None}


def test_lines_beyond_the_fast_reader_s_limits_are_left_to_the_full_parser() -> None:
    for line in (
        b'{"text": "a\tb"}',
        b'{"text": "\xff"}',
        b'{"text": "a", "n": "\xc0\x80"}',
        b'{"text": "a", "n": ' + b"9" * 5000 + b"}",
        b'{"text": "a", "n": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        b"[" * 100_000,
    ):
        assert _core.json_texts(line + b'\n{"text": "next"}', "text") == [None, b"next"]


def test_the_last_of_repeated_keys_wins() -> None:
    assert _core.json_texts(b'{"text": "first", "text": "last"}\n', "text") == [b"last"]
    assert _core.json_texts(rb'{"text": "first", "te\u0078t": "last"}', "text") == [b"last"]
    assert _core.json_texts(b'{"text": "first", "text": 5}\n', "text") == [None]


def test_the_end_of_strings_of_every_length_is_found() -> None:
    for before in range(20):
        for text in ("a" * before, "a" * before + '"', "é" * before + "\n\\", "\x1f" + " " * before, "\x7f" * before):
            for line in (json.dumps({"text": text}), json.dumps({"n": text, "text": text}, ensure_ascii=False)):
                assert _core.json_texts(line, "text") == [text.encode()]

"""The "normalizer" of a tokenizer.json: what is read, and what is refused with the name of the key."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers

from bpe.errors import InputError
from bpe.normalizers import compile_normalizer

_BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True}

ENTRIES: list[dict[str, Any]] = [
    *({"type": kind} for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel")),
    *(
        _BERT | {"strip_accents": accents, "lowercase": lower}
        for accents in (None, True, False)
        for lower in (True, False)
    ),
    _BERT,
    _BERT | {"type": "Bert", "clean_text": False},
    _BERT | {"handle_chinese_chars": False},
    *({"type": "Strip", "strip_left": left, "strip_right": right} for left in (True, False) for right in (True, False)),
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Prepend", "prepend": ""},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    {"type": "Replace", "pattern": {"String": "a.+"}, "content": r"\1"},
    {"type": "Replace", "pattern": {"String": ""}, "content": "-"},
    *(
        {"type": "Replace", "pattern": {"Regex": regex}, "content": content}
        for regex in (r" {2,}", r"\s+", r"\p{Mn}|[A-Z]", r"(?<=a)\.|^e", r"(?i)å", r"x*", r"\p{Han}(?!\p{Hangul})", "$")
        for content in ("", "▁", "$1")
    ),
    {"type": "Sequence", "normalizers": []},
    {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [{"type": "NFD"}]}, {"type": "NFC"}]},
]


def _reference(entry: Any) -> Tokenizer:
    return Tokenizer.from_str(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "normalizer": entry,
                "model": {"type": "BPE", "vocab": {}, "merges": []},
            }
        )
    )


@pytest.mark.parametrize("entry", ENTRIES, ids=json.dumps)
def test_an_entry_normalizes_as_in_the_reference(entry: dict[str, Any]) -> None:
    random = Random(str(entry))
    reference, core = _reference(entry).normalizer, compile_normalizer(entry)
    for _ in range(300):
        text = "".join(random.choice("aE .+é\u0301\u0323ÅİＡ\t\n\0\u200b中한\x7f") for _ in range(random.randrange(9)))
        expected = reference.normalize_str(text).encode()
        assert (text.encode() if core is None else core.apply(text)) == expected, text


def test_no_normalizer_and_an_empty_sequence_leave_the_text_as_it_is() -> None:
    assert compile_normalizer(None) is None
    assert compile_normalizer({"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": []}]}) is None


def _nested(depth: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "NFC"}
    for _ in range(depth):
        entry = {"type": "Sequence", "normalizers": [entry]}
    return entry


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("NFC", ["\"normalizer\" is 'NFC'", '"type"']),
        ([], ['"normalizer" is []']),
        ({}, ['"type"']),
        ({"type": None}, ['"type"']),
        ({"type": "Nfc"}, ["'Nfc'", "supported are", "NFC"]),
        ({"type": "Append", "append": "x"}, ["'Append'"]),
        ({"type": "Foo"} | {"strip_left": True, "strip_right": True}, ["'Foo'", "supported are Bert, BertNormalizer"]),
        ({"type": "NFC", "more": 1}, ["NFC", '"more"', "remove"]),
        ({"type": "Sequence"}, ["Sequence", 'no "normalizers"']),
        ({"type": "Sequence", "normalizers": {}}, ['"normalizers"', "a list"]),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}, None]}, ['"normalizer.normalizers[1]" is None']),
        ({"type": "Sequence", "normalizers": [{"type": "Strip"}]}, ["normalizer.normalizers[0]", 'no "strip_left"']),
        ({"type": "Strip", "strip_left": 1, "strip_right": True}, ['"strip_left"', "true or false"]),
        (_BERT | {"strip_accents": "yes"}, ['"strip_accents"', "'yes'", "true or false or null"]),
        ({key: value for key, value in _BERT.items() if key != "clean_text"}, ['no "clean_text"']),
        ({"type": "Prepend", "prepend": None}, ['"prepend"', "a string"]),
        ({"type": "Prepend", "prepend": "\ud800"}, ['"prepend"', "surrogate"]),
        ({"type": "Replace", "pattern": "a", "content": "b"}, ['"pattern"', "an object"]),
        ({"type": "Replace", "pattern": {}, "content": "b"}, ['"pattern"', '"String"']),
        ({"type": "Replace", "pattern": {"String": "a", "Regex": "b"}, "content": "b"}, ['"pattern"']),
        ({"type": "Replace", "pattern": {"Text": "a"}, "content": "b"}, ['"Text"', '"Regex"']),
        ({"type": "Replace", "pattern": {"String": "a"}}, ['no "content"']),
        ({"type": "Replace", "pattern": {"Regex": "a("}, "content": "b"}, ["normalizer", "Replace"]),
        ({"type": "Replace", "pattern": {"Regex": r"(a)\1"}, "content": "b"}, ["normalizer", "Replace"]),
        ({"type": "Precompiled", "precompiled_charsmap": None}, ['"precompiled_charsmap"', "a string"]),
        ({"type": "Precompiled", "precompiled_charsmap": "!"}, ['"precompiled_charsmap"', "base64"]),
        ({"type": "Precompiled", "precompiled_charsmap": ""}, ['"normalizer"', "charsmap"]),
        (_nested(100), ["nested too deep"]),
    ],
)
def test_a_wrong_entry_is_refused_by_name(entry: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        compile_normalizer(entry)
    assert all(word in str(raised.value) for word in words), raised.value
    assert "\n" not in str(raised.value)


def test_a_sequence_as_deep_as_the_reference_reads_is_read() -> None:
    core = compile_normalizer(_nested(50))
    assert core is not None
    assert core.apply("e\u0301").decode() == normalizers.NFC().normalize_str("e\u0301")

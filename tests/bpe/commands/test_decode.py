"""`bpe decode`: wrong ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command_line import bpe, fails_with


def test_decode_names_the_ids_that_it_cannot_decode(my_json: Path) -> None:
    fails_with(bpe("decode", "-t", my_json, input="1 2 99999"), 1, "99999", "1,024")
    fails_with(bpe("decode", "-t", my_json, input="1 -2"), 1, "negative")
    fails_with(bpe("decode", "-t", my_json, input="1 two"), 1, "two", "--format")
    fails_with(bpe("decode", "-t", my_json, "--format", "json", input="[1, 2"), 1, "stdin")
    fails_with(bpe("decode", "-t", my_json, "--format", "u32", input=b"abc"), 1, "3 bytes", "32 bits")


@pytest.mark.parametrize(
    ("content", "format", "words"),
    [
        ("1 2\n3 x 4\n", "text", "stdin: line 2: 'x' is not an id; write ids with spaces between them"),
        ("[9906, 1917]", "text", "stdin: line 1: '[9906,' is not an id; give --format json for lists"),
        ("9906,1917", "text", "stdin: line 1: '9906,1917' is not an id; give --format json for lists"),
        ("9" * 5000, "text", f"stdin: line 1: '{'9' * 40}' is not an id"),
        ("[1]\n[2, true]", "json", "stdin: line 2: true is not an id"),
        ("[1, [2]]", "json", "stdin: line 1: [2] is not an id"),
        ('[1]\n{"a": 1}', "json", "stdin: line 2: expected a JSON list"),
        ("[1]\n[2", "json", "stdin: line 2 is not JSON"),
    ],
)
def test_a_wrong_id_is_named_with_its_line(my_json: Path, content: str, format: str, words: str) -> None:
    fails_with(bpe("decode", "-t", my_json, "--format", format, input=content), 1, words)


def test_a_negative_id_is_refused_with_its_place(my_json: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("1 -1")
    result = bpe("decode", "-t", my_json, tmp_path / "ids.txt")
    fails_with(result, 1, "ids.txt: an id is negative or has more than 32 bits; is the --format right?")

"""`bpe decode`: wrong ids."""

from __future__ import annotations

from pathlib import Path

from support.command_line import bpe, fails_with


def test_decode_names_the_ids_that_it_cannot_decode(my_json: Path) -> None:
    fails_with(bpe("decode", "-t", my_json, input="1 2 99999"), 1, "99999", "1,024")
    fails_with(bpe("decode", "-t", my_json, input="1 -2"), 1, "negative")
    fails_with(bpe("decode", "-t", my_json, input="1 two"), 1, "two", "--format")
    fails_with(bpe("decode", "-t", my_json, "--format", "json", input="[1, 2"), 1, "stdin")
    fails_with(bpe("decode", "-t", my_json, "--format", "u32", input=b"abc"), 1, "3 bytes", "32 bits")


def test_a_negative_id_is_refused_with_its_place(my_json: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("1 -1")
    result = bpe("decode", "-t", my_json, tmp_path / "ids.txt")
    fails_with(result, 1, "ids.txt: an id is negative or has more than 32 bits; is the --format right?")

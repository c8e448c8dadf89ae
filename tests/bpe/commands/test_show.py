"""`bpe show`."""

from __future__ import annotations

from pathlib import Path

from bpe import Tokenizer
from support.command_line import bpe, fails_with


def test_show_marks_tokens_and_the_bytes_of_split_characters(my_json: Path) -> None:
    plain = bpe("show", "-t", my_json, "-c", "a bear\n日").stdout
    assert "|" in plain
    assert "⏎" in plain
    coloured = bpe("show", "-t", my_json, "-c", "a bear", "--color", "always").stdout
    assert "\x1b[30;48;5;" in coloured
    rows = bpe("show", "-t", my_json, "-c", "a bear", "--ids").stdout.splitlines()
    assert [int(row.split()[0]) for row in rows] == Tokenizer.from_file(my_json).encode("a bear")


def test_one_token_is_one(my_json: Path) -> None:
    assert bpe("show", "-t", my_json, "-c", "x").stderr == "1 token, 1 byte, 1.00 bytes per token\n"


def test_show_refuses_colors_of_ids(my_json: Path) -> None:
    fails_with(
        bpe("show", "-t", my_json, "--ids", "--color", "always", "-c", "x"), 2, "--color has no effect with --ids"
    )

"""How tokenizers cut one text, side by side."""

from __future__ import annotations

import json

from bpe.analysis.cuts import cuts, cuts_text
from support.command_line import bpe
from support.references import byte_tokenizer

TINY = [("tiny", byte_tokenizer("gpt2", None, ab=256)), ("other", byte_tokenizer("gpt2"))]


def test_each_tokenizer_has_a_line_with_its_tokens() -> None:
    found = cuts(TINY, "ab  é".encode())
    assert cuts_text(found) == "tiny   5  ab| | |<C3>|<A9>\nother  6  a|b| | |<C3>|<A9>\n"
    assert [row["algorithm"] for row in found["tokenizers"]] == ["bpe", "bpe"]


def test_lines_are_broken_between_tokens_at_the_width_of_the_terminal() -> None:
    lines = cuts_text(cuts(TINY, b"abcdefghijklmnopqrstuvwxyz" * 3), 40).splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 40
    assert lines[1].startswith(" " * 11)


def test_the_command_shows_a_text_of_the_command_line_as_each_tokenizer_cuts_it() -> None:
    result = bpe("compare", "llama3", "llama3", "-c", "Hello, World!  It's 12345 #1")
    assert ["llama3", "10", "Hello|,| World|!| | It|'s| |123|45| #|1"][0] in result.stdout
    assert "Hello|,| World|!|" in result.stdout
    found = json.loads(bpe("compare", "llama3", "llama3", "-c", "Hello", "--json").stdout)
    assert found["cuts"][0]["tokenizers"][0]["tokens"] == ["Hello"]

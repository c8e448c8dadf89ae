"""`bpe compare`: its table, its JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

from bpe import Tokenizer
from support.command_line import ROOT, bpe, fails_with


def test_compare_prints_a_row_for_each_tokenizer(my_json: Path, tmp_path: Path) -> None:
    ranks = tmp_path / "ranks.model"
    Tokenizer.from_file(my_json).save(ranks)
    corpora = ROOT / "corpora"
    result = bpe("compare", "llama3", my_json, ranks, corpora, "--pattern", "llama3")
    assert result.exit_code == 0, result.output
    header, *rows = result.stdout.splitlines()
    assert header.split()[:3] == ["tokenizer", "vocabulary", "tokens"]
    assert [row.split()[0] for row in rows] == ["llama3", str(my_json), str(ranks)]
    assert rows[1].split()[2:] == rows[2].split()[2:]
    found = json.loads(bpe("compare", my_json, "llama3", my_json, "--on", corpora, "--json").stdout)
    assert [row["name"] for row in found["tokenizers"]] == [str(my_json), "llama3", str(my_json)]
    assert found["tokenizers"][2]["tokens_relative_interval"] == [1, 1]
    other = json.loads(bpe("compare", my_json, "llama3", "--on", corpora, "--json", "--seed", "1").stdout)
    assert other["tokenizers"][1]["tokens_relative"] == found["tokenizers"][1]["tokens_relative"]
    assert other["tokenizers"][1]["tokens_relative_interval"] != found["tokenizers"][1]["tokens_relative_interval"]


def test_compare_reads_the_last_argument_as_the_text_unless_on_is_given(my_json: Path, tmp_path: Path) -> None:
    text, binary, empty = (tmp_path / name for name in ("text.json", "binary", "empty.txt"))
    text.write_text('{"what": "is no tokenizer"}')
    binary.write_bytes(bytes(range(256)))
    empty.write_bytes(b"")
    assert "too little text" in bpe("compare", my_json, my_json, text).stderr
    assert "256 bytes" in bpe("compare", my_json, my_json, "-", input=binary.read_bytes()).stderr
    assert "283 bytes" in bpe("compare", my_json, my_json, "--on", text, "--on", binary).stderr
    fails_with(bpe("compare", my_json, text), 2, "two tokenizers")
    fails_with(bpe("compare", my_json, text, binary), 1, "text.json", "tokenizer.json")
    fails_with(bpe("compare", my_json, "nothing", text), 1, "nothing", "not a known name")
    fails_with(bpe("compare", my_json, my_json, empty), 1, "empty.txt", "no text")
    fails_with(bpe("compare", my_json, my_json, tmp_path / "none"), 1, "none", "no such file")


def test_compare_refuses_a_pattern_that_no_tokenizer_needs(my_json: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some text")
    result = bpe("compare", my_json, my_json, text, "--pattern", "gpt2")
    fails_with(result, 2, "--pattern has no effect on tokenizers that store their split pattern")

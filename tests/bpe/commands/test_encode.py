"""`bpe encode`: the formats of ids, special tokens, and damaged tokenizers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from bpe import Tokenizer
from support.command_line import ROOT, bpe, fails_with


@pytest.mark.parametrize("ids_format", ["text", "json", "u16", "u32"])
def test_decode_restores_any_file_that_encode_has_read(my_json: Path, tmp_path: Path, ids_format: str) -> None:
    path = tmp_path / "file"
    content = (ROOT / "corpora" / "unicode.txt").read_bytes() + bytes(range(256)) + b"\xff\r\n\0\0 \n"
    path.write_bytes(content)
    ids = bpe("encode", "-t", my_json, path, "--format", ids_format)
    assert ids.exit_code == 0
    text = bpe("decode", "-t", my_json, "--format", ids_format, input=ids.stdout_bytes)
    assert text.stdout_bytes == content


def test_encode_prints_ids_in_each_format(my_json: Path) -> None:
    ids = Tokenizer.from_file(my_json).encode("Hello")
    assert bpe("encode", "-t", my_json, "-c", "Hello").stdout == " ".join(map(str, ids)) + "\n"
    assert json.loads(bpe("encode", "-t", my_json, "-c", "Hello", "--format", "json").stdout) == ids
    packed = bpe("encode", "-t", my_json, "-c", "Hello", "--format", "u16").stdout_bytes
    assert list(struct.unpack(f"<{len(ids)}H", packed)) == ids


def test_a_file_may_be_called_stdin(my_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stdin").write_text("Hello")
    expected = bpe("encode", "-t", my_json, "-c", "Hello").stdout
    assert bpe("encode", "-t", my_json, "stdin", input="other").stdout == expected
    _, size, _, name = bpe("count", "-t", my_json, "stdin", input="other one").stdout.split()
    assert (size, name) == ("5", "stdin")


def test_special_tokens_are_text_unless_allowed(my_json: Path) -> None:
    text = "<|end_of_text|>"
    assert bpe("encode", "-t", my_json, "-c", text, "--allow-special").stdout == "769\n"
    assert len(bpe("encode", "-t", my_json, "-c", text).stdout.split()) > 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"SGk= 0\n!!!! 1\n", ["line 2", "base64"]),
        (b"SGk= 0\nSGU= x\n", ["line 2"]),
        (b'{"model": {"type": "BPE", "voc', ["truncated"]),
        (b"PK\x03\x04 no tokenizer", ["not a tokenizer file"]),
        (b"", ["not a tokenizer file"]),
    ],
)
def test_damaged_tokenizer_files_are_refused_by_name(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "damaged.model"
    path.write_bytes(content)
    fails_with(bpe("encode", "-t", path, "--pattern", "llama3", "-c", "x"), 1, "damaged.model", *words)

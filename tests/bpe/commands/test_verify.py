"""`bpe verify`: its reference and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bpe import Tokenizer
from support.command_line import ROOT, bpe, fails_with


def test_verify_names_its_reference_and_fails_on_a_difference(my_json: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = bpe("verify", my_json, ROOT / "corpora" / "sentences")
    assert result.exit_code == 0
    assert "compared with tokenizers" in result.stdout
    assert "0 differ" in result.stdout
    result = bpe("verify", my_json, "--pattern", "gpt2")  # which the file does not say
    assert result.exit_code == 0
    assert "compared with tiktoken" in result.stdout
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text, **_: self.vocabulary.encoder.encode(text, None)[:-1])
    fails_with(bpe("verify", my_json), 1, "differ from the reference, tokenizers", "hard case", prints=True)


def test_verify_reports_wrong_input_in_one_line(my_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.json").write_text("no tokenizer")
    fails_with(bpe("verify", tmp_path / "text.json"), 1, "text.json", "not a tokenizer file")
    fails_with(bpe("verify", tmp_path / "none.json"), 1, "none.json", "no such file")
    fails_with(bpe("verify", my_json, tmp_path / "none.txt"), 1, "none.txt", "no such file")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    fails_with(bpe("verify", my_json), 1, "tokenizers", "bpe-llama[verify]")


@pytest.mark.parametrize("option", ["--separator", "--exclude"])
def test_verify_refuses_options_about_texts_without_a_text(my_json: Path, option: str) -> None:
    fails_with(bpe("verify", my_json, option, "x"), 2, f"{option} has no effect without a text")

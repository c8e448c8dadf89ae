"""`bpe train`: what it writes and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpe import Tokenizer
from support.command_line import bpe, fails_with


def test_train_writes_a_tokenizer_that_encodes(my_json: Path) -> None:
    tokenizer = Tokenizer.from_file(my_json)
    assert tokenizer.n_vocab == 1024
    assert tokenizer.decode(tokenizer.encode("Once upon a time")) == "Once upon a time"


def test_train_accepts_stdin_another_pattern_and_special_tokens(tmp_path: Path) -> None:
    path = tmp_path / "ranks.model"
    result = bpe(
        "train", "-", "-o", path, "--vocab-size", "280", "--pattern", "gpt2", "--special", "<|x|>",
        input="a tale of two tails, and of a tall tale told at all times and in all towns",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    tokenizer = Tokenizer.from_file(path, pattern="gpt2", special_tokens=["<|x|>"])
    assert tokenizer.n_vocab == 280
    assert tokenizer.encode("<|x|>", allowed_special="all") == [279]


@pytest.mark.parametrize(
    ("content", "size", "words"),
    [
        (b"", "1000", ["no text"]),
        (b"abc abc", "100", ["too small", "512"]),
        (b"abc abc", "5000", ["no pair is left", "--allow-smaller"]),
    ],
)
def test_train_refuses_a_corpus_too_small_for_the_vocabulary(
    tmp_path: Path, content: bytes, size: str, words: list[str]
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(content)
    output = tmp_path / "out.json"
    fails_with(bpe("train", corpus, "-o", output, "--vocab-size", size), 1, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt"]

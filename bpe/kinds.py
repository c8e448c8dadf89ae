"""What is at a path, for the message that another kind of thing is expected there."""

from __future__ import annotations

import os
from pathlib import Path

from bpe.quoting import quoted

_WEIGHTS = (".safetensors", ".gguf", ".pth", ".bin")
_TEXTS = (".txt", ".md", ".rst", ".html", ".csv", ".jsonl", ".parquet", ".py", ".gz", ".zst", ".bz2", ".xz")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer.tiktoken")


def kind_of(path: Path) -> str | None:
    """Return whether a path is a "model", a "tokenizer", "shards" or "texts", by names only; None if unknown."""
    try:
        names = {entry.name for entry in os.scandir(path)} if path.is_dir() else {path.name}
    except OSError:
        return None
    if "token_bytes.bin" in names:
        return "shards"
    if path.is_file() and path.suffix in (".json", ".tiktoken", ".model"):
        return "tokenizer"
    if any(Path(name).suffix in _WEIGHTS for name in names):
        return "model"
    if names & {*_TOKENIZERS}:
        return "tokenizer"
    if any(Path(name).suffix in _TEXTS for name in names):
        return "texts"
    return None


def instead(path: Path, expected: str) -> str:
    """Return the end of a message that something else is at a path: what it is, and what to do.

    Args:
        path: The path.
        expected: What is expected there: "model", "tokenizer" or "shards".

    Returns:
        The end of the message, which begins with a semicolon; empty if the content of the path is unknown.
    """
    word = quoted(str(path))
    remedies = {
        ("shards", "texts"): f"it holds texts: encode them first (bpe shards {word} -o DIR), and give DIR",
        ("shards", "tokenizer"): f"it is a tokenizer: encode texts with it (bpe shards TEXTS -t {word} -o DIR)",
        ("shards", "model"): "it is a model: give the directory that bpe shards wrote",
        ("model", "texts"): "it holds texts: a model is trained on them with bpe shards, then bpe pretrain",
        ("model", "tokenizer"): f"it is a tokenizer: give a model, or use it where a tokenizer is expected (-t {word})",
        ("model", "shards"): f"it holds token shards: train a model on them (bpe pretrain --data {word})",
        ("tokenizer", "texts"): f"it holds texts: train a tokenizer on them (bpe train {word} -o my.json)",
        ("tokenizer", "model"): _beside(path),
        ("tokenizer", "shards"): "it holds token shards: give the tokenizer file in it",
    }
    found = kind_of(path)
    remedy = remedies.get((expected, found)) if found else None
    return f"; {remedy}" if remedy else ""


def _beside(path: Path) -> str:
    if path.is_file() and any((path.parent / name).is_file() for name in _TOKENIZERS):
        return f"it is the weights of a model, whose tokenizer is in {path.parent}"
    return "it is a model without a tokenizer"

"""Data to train and evaluate the tiny models of `support.model_families` with: a tokenizer, dialogs and preferences."""

from __future__ import annotations

import json
from pathlib import Path

from bpe import Tokenizer
from support.references import BYTE_RANKS

NAMES = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TEXT = "It is a text of some words, with more tokens than a window of it holds. "


def tokenizer_of_bytes() -> Tokenizer:
    """Return a tokenizer of bytes and Llama 3's special tokens."""
    special = {name: 256 + number for number, name in enumerate(NAMES)}
    return Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)


def write_dialogs(path: Path) -> Path:
    """Write dialogs of different lengths, several of which fit into a row of 120 tokens."""
    return _lines(
        path,
        [
            {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "ab, " * (1 + 2 * n)}]}
            for n in range(6)
        ],
    )


def write_pairs(path: Path) -> Path:
    """Write preferences, two of which fit into a row of 120 tokens."""
    return _lines(path, [{"prompt": f"{n}?", "chosen": f"{n}!" * (1 + n), "rejected": f"{n + 1}"} for n in range(4)])


def _lines(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path

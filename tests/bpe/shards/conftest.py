"""Fixtures of the shards tests: functions that write shards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpe.shards import Shards, ShardSources, write_shards
from support.plain_shards import DOCUMENTS, TEXTS, ByteTokenizer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


Write = Callable[..., Shards]


@pytest.fixture
def write_corpus(tmp_path: Path, source: Path) -> Write:
    def write_corpus(documents: Any = None, **options: Any) -> Shards:
        (tmp_path / "tokenizer.json").write_text("{}")
        options = {"shard_tokens": 500, "held_out": 0.2, **options}
        return write_shards(documents or ShardSources([str(source)]), ByteTokenizer(), tmp_path / "data",
                            tokenizer_file=tmp_path / "tokenizer.json", **options)  # fmt: skip

    return write_corpus


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(documents: Any = DOCUMENTS, *, into: str = "data", n_vocab: int = 258, **arguments: Any) -> Shards:
        file = tmp_path / "tokenizer.json"
        file.write_text('{"some": "tokenizer"}')
        return write_shards(documents, ByteTokenizer(n_vocab), tmp_path / into, tokenizer_file=file, **arguments)

    return write

"""Test the benchmark of servers: it starts a server, asks it with several clients, and reports errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from bpe import Tokenizer
from model import ModelConfig, Transformer, save
from support.references import BYTE_RANKS

CONFIG = ModelConfig(
    dim=64, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=96, vocab_size=256, max_seq_len=2048, tied_embeddings=True
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tokenizer = Tokenizer("bytes", pat_str=".", mergeable_ranks=BYTE_RANKS, special_tokens={})
    tokenizer.save(tmp_path / "tokenizer.json")
    save(tmp_path / "model", Transformer(CONFIG), tmp_path / "tokenizer.json")
    return tmp_path / "model"


def test_clients_share_a_server_and_are_compared_with_one_process(
    directory: Path,
    tmp_path: Path,
    load_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = load_script("serve")
    results = tmp_path / "results.json"
    options = ["--clients", "1,3", "--prompt", "8", "--tokens", "4", "--servers", "bpe serve", "--json", str(results)]
    monkeypatch.setattr(sys, "argv", ["serve.py", str(directory), *options])
    script.main()
    rows = json.loads(results.read_text())
    assert [(row["clients"], row["server"]) for row in rows] == [
        (1, "bpe serve"),
        (1, "alone"),
        (3, "bpe serve"),
        (3, "alone"),
    ]
    assert all(row["rate"] > 0 and not row.get("errors") for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_a_server_that_does_not_start_ends_the_benchmark(load_script: Callable[[str], ModuleType]) -> None:
    script = load_script("serve")
    command = [sys.executable, "-c", "import sys; sys.exit('no such luck')"]
    expected = pytest.raises(SystemExit, match="the server does not answer: no such luck")
    with expected, script.started("the server", command, 1):
        pass

"""Test the shards benchmark: it runs, and reports a row for each text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bpe import Tokenizer
from support.references import BYTE_RANKS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "shards.py"


def test_each_text_has_a_row_with_both_rates_and_their_ratio(tmp_path: Path) -> None:
    Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens={}).save(tmp_path / "tiny.json")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"the lines of {name}\n" * 500)
    command = [sys.executable, SCRIPT, tmp_path / "a.txt", tmp_path / "b.txt", "-t", tmp_path / "tiny.json",
               "--megabytes", "0.01", "--document-bytes", "100", "--repeat", "1", "--json",
               tmp_path / "out.json"]  # fmt: skip
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "out.json").read_text())
    assert [Path(result["text"]).name for result in results] == ["a.txt", "b.txt"]
    for result in results:
        assert result["documents"] == -(-500 // 6)
        assert 0 < result["share"] == pytest.approx(result["shards"] / result["encoder"])
    machine, *table = finished.stdout.splitlines()
    assert "kernels" in machine
    assert len(table) == 3

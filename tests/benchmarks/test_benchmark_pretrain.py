"""Test the pretraining benchmark: it runs, compares losses, and ignores peers with different losses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def benchmark(load_script: Callable[[str], ModuleType]) -> ModuleType:
    """The benchmark as a module."""
    return load_script("pretrain")


def test_all_peers_train_with_the_same_losses(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Run in this process, where torch is already imported. Only the memory measurement needs a separate process.
    monkeypatch.setattr(
        benchmark, "run_worker", lambda script, job, threads: benchmark.work_or_wait(job) | {"memory": 1.0}
    )
    output = tmp_path / "results.json"
    small = {"dim": 16, "layers": 2, "heads": 2, "sequences": 2, "length": 8, "steps": 1, "repeat": 1, "threads": 1}
    options = [f"--{name}={value}" for name, value in (small | {"vocabularies": 320, "dtypes": "float32"}).items()]
    monkeypatch.setattr(sys, "argv", ["pretrain.py", *options, f"--json={output}"])
    benchmark.main()
    printed = capsys.readouterr().out
    assert "\nours float32" in printed
    assert "`pretrain` waits for data" in printed
    rows: list[dict[str, Any]] = json.loads(output.read_text())["results"]["320"]
    assert [row["peer"] for row in rows] == ["ours", "plain", "transformers", "waiting"]
    assert 0 < rows.pop()["waiting"] < 1
    for row in rows:
        assert row["same"]
        assert row["speed"] > 0
        (run,) = row["runs"]
        assert len(set(run["losses"])) == 3  # the loss changes: the model learns


def test_a_peer_with_different_losses_is_marked_and_not_compared_with_ours(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(speed: float, memory: float, *losses: float) -> list[dict[str, Any]]:
        return [{"speed": speed, "memory": memory, "losses": losses}]

    runs = {
        ("ours", "float32"): run(200.0, 30.0, 2.0, 1.5),
        ("plain", "float32"): run(100.0, 60.0, 2.0, 1.5),
        ("plain", "bfloat16"): run(50.0, 50.0, 2.0001, 1.5004),
        ("transformers", "float32"): run(400.0, 10.0, 2.0, 1.501),
        ("transformers", "bfloat16"): [{"error": "RuntimeError: no"}],
    }
    rows = benchmark.summarize(runs, (2.0, 1.5), 1e-4)
    assert [row.get("same") for row in rows] == [True, True, True, False, None]
    benchmark.table(50, rows)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["vocabulary", "of", "50", "tokens/s", "memory,", "MB", "loss"]
    assert printed[3].split() == ["plain", "float32", "100", "(", "2.00)", "60.0", "(", "2.00)", "0.0e+00"]
    assert printed[5].endswith("1.0e-03!")
    assert printed[6].split(maxsplit=2)[2] == "RuntimeError: no"
    assert "2.00 times as fast as the fastest other (plain float32), with 0.60 of the memory" in printed[7]
    assert "of the smallest (plain bfloat16)" in printed[7]

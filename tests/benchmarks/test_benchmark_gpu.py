"""Test the GPU benchmark on a CPU with tiny shapes: results are compared before rates, and the time is kept to."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

Run = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def benchmark(load_script: Callable[[str], ModuleType]) -> ModuleType:
    """The benchmark as a module."""
    return load_script("gpu")


@pytest.fixture
def run(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs the benchmark in this process and returns the results by section and peer."""

    def run(*arguments: str) -> dict[str, dict[str, Any]]:
        output = tmp_path / "results.json"
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--device=cpu", "--tiny", f"--json={output}", *arguments])
        benchmark.main()
        return json.loads(output.read_text())["results"] if output.exists() else {}

    return run


def test_peers_train_with_the_same_losses(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = run("--sections=train-124M", "--peers=ours,plain,transformers", "--peak-tflops=0.001").values()
    assert [*found] == ["reference", "ours", "plain", "transformers"]
    assert all(len(set(row["losses"])) == 3 for row in found.values())  # the loss changes: the model learns
    printed = capsys.readouterr().out
    assert "the MFU is relative to 0.00 TFLOP/s, dense bfloat16 (as given)" in printed
    lines = [line for line in printed.splitlines() if line.startswith(("ours ", "plain ", "transformers "))]
    assert len(lines) == 3
    assert not any("!" in line for line in lines)
    assert lines[0].count("%") == 2  # MFU by both formulas


def test_peers_generate_the_ids_of_the_reference(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = run("--sections=generate-1B", "--peers=ours,transformers").values()
    assert [*found] == ["reference", "ours", "transformers"]
    for peer in ("ours", "transformers"):
        assert found[peer]["same"]
        assert found[peer]["dtype"] == "torch.bfloat16"
    assert found["reference"]["dtype"] == "torch.float32"
    assert len(set(found["reference"]["greedy"])) > 2  # the text is not one token again and again
    for peer in ("ours", "transformers"):
        assert found[peer]["decode"] > 0
    printed = capsys.readouterr().out
    assert "the MFU is left out: no peak is known for this device; give it with --peak-tflops" in printed
    assert "the share of the memory's rate is left out" in printed
    assert "6 of 6" in printed


@pytest.mark.slow
def test_all_peers_agree_also_compiled(run: Run, benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    found = run()
    assert [*found] == [*benchmark.SECTIONS]
    assert {*found["train-1B"]} == {"reference", *benchmark.TRAINERS}
    assert {*found["generate-8B"]} == {"reference", *benchmark.GENERATORS}
    assert "!" not in capsys.readouterr().out


def test_what_the_time_left_does_not_suffice_for_is_skipped(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--sections=train-1B,generate-1B", "--peers=ours", "--minutes=1e-9") == {}
    printed = capsys.readouterr().out.splitlines()
    assert "skipped: train-1B, reference: takes about 0 s, and 0 s are left" in printed
    assert not any(line.startswith("ours ") for line in printed)  # nothing to compare with


def test_the_compiled_peers_run_last(benchmark: ModuleType) -> None:
    runs = benchmark.runs_of(benchmark.SECTIONS, benchmark.TRAINERS)
    others = [peer.endswith("compiled") and not peer.startswith("ours") for _, peer in runs]
    assert others == sorted(others)
    for key in benchmark.SECTIONS:
        peers = [peer for section, peer in runs if section == key]
        assert peers[0] == "reference"
        assert ("plain" in peers) == key.startswith("train")


@pytest.mark.parametrize(
    ("device", "flops", "bandwidth"),
    [
        ("NVIDIA H200", 989e12, 4.8e12),
        ("NVIDIA H100 PCIe", 756e12, 2.0e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 2.039e12),
        ("NVIDIA A10G", 125e12, 0.6e12),
        ("Some GPU", None, None),
    ],
)
def test_the_peaks_are_those_of_the_data_sheet_unless_given(
    benchmark: ModuleType, device: str, flops: float | None, bandwidth: float | None
) -> None:
    assert benchmark.peaks_of(device, None, None) == benchmark.Peaks(flops, bandwidth)
    assert benchmark.peaks_of(device, 2.0, 3.0) == benchmark.Peaks(2e12, 3e9)


def test_the_operations_of_training_follow_the_formulas(benchmark: ModuleType) -> None:
    section = benchmark.SECTIONS["train-124M"]
    palm, causal = benchmark.flops_per_token(section.shape, section.length)
    parameters = 50304 * 768 + 12 * (4 * 768 * 768 + 3 * 768 * 2048 + 2 * 768) + 768
    assert palm == 6 * parameters + 12 * 12 * 768 * 1024
    attention = 12 * 12 * 768 * 1024 / 2
    assert causal == pytest.approx(6 * parameters + attention, rel=1e-3)
    section = benchmark.SECTIONS["generate-8B"]
    weights = 8_030_261_248 - 128256 * 4096
    assert benchmark.decode_bytes(section) == 2 * weights + 2 * 2 * 32 * 8 * 128 * (128 + 32)


def test_an_id_that_is_far_from_the_best_is_marked_and_not_compared(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logits = np.zeros((2, 8), np.float32)
    logits[0, 3], logits[1, 5], logits[1, 6] = 1, 1, 0.99
    np.save(tmp_path / "logits.npy", logits)
    found = [benchmark.compare_ids(ids, tmp_path / "logits.npy", 0.1) for ids in ([3, 5], [3, 6], [3, 7])]
    assert [(row["equal"], row["same"]) for row in found] == [(2, True), (1, True), (1, False)]
    numbers = {"prefill": 100.0, "decode": 10.0, "memory": 5.0}
    rows = {"ours": {**numbers, **found[0]}, "transformers": {**numbers, **found[2]}}
    for row in rows.values():
        row["greedy"] = [3, 5]
    benchmark.print_generation("generate-1B", benchmark.SECTIONS["generate-1B"], rows, benchmark.Peaks(None, None))
    own, other = capsys.readouterr().out.splitlines()[-2:]
    assert own.count("( 1.00)") == 3
    assert "(" not in other
    assert other.endswith("!")

"""Test the encoding benchmark: it runs, compares ids, and never counts a peer with different ids as the best."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from bpe import Tokenizer

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "encode.py"


@pytest.fixture(scope="module")
def benchmark(load_script: Callable[[str], ModuleType]) -> ModuleType:
    """The benchmark as a module."""
    return load_script("encode")


def run(tmp_path: Path, *arguments: str) -> tuple[str, list[dict[str, object]]]:
    """Run the benchmark and return what it prints and the results that it writes."""
    text = tmp_path / "little.txt"
    text.write_text("A little text: naïve 日本語 12345\r\n  and so on.<|end_of_text|>" * 50, "utf-8", newline="")
    output = tmp_path / "results.json"
    command = [sys.executable, str(SCRIPT), str(text), "--document", "300", "--json", str(output), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout, json.loads(output.read_text())["results"]


def test_peers_give_the_same_ids_and_have_a_row_for_each_measure(llama3: Tokenizer, tmp_path: Path) -> None:
    printed, results = run(tmp_path, "--peers", "ours,tiktoken,tokenizers", "--modes", "documents")
    assert "ours/best" in printed
    assert "DIFFER" not in printed
    assert all(result["differing"] == 0 and all(value > 0 for value in result["values"]) for result in results)
    rows = {(result["row"], result["peer"]) for result in results}
    outputs = {"ours": ("list", "numpy"), "tiktoken": ("list", "numpy"), "tokenizers": ("list",)}
    for peer, kinds in outputs.items():
        assert {(f"little {kind}, {when}", peer) for kind in kinds for when in ("cold", "warm")} <= rows
        assert {("load, ms", peer), ("import, ms", peer)} <= rows


def test_every_mode_reports_its_rows(llama3: Tokenizer, tmp_path: Path) -> None:
    _, results = run(tmp_path, "--peers", "ours", "--modes", "files,threads,short,decode,load", "--threads", "2")
    rows = {result["row"] for result in results}
    assert {"little 1 thread, list, warm", "little 2 threads, numpy, cold", "numpy, 100 bytes", "little list"} <= rows
    assert "peak memory, MB" in rows
    assert "2 threads over 1, speed-up" in {result["section"] for result in results}
    assert all(result["differing"] == 0 for result in results)


def test_a_peer_with_different_ids_is_marked_and_never_the_best(benchmark: ModuleType) -> None:
    results = benchmark.Results()
    for peer, rate, digests in (
        ("ours", 20.0, ["a", "b"]),
        ("tiktoken", 10.0, ["a", "b"]),
        ("quick", 40.0, ["a", "c"]),
    ):
        job = benchmark.Job("documents", peer, "list", {}, 4000, 1, {})
        result = {"load": {}, "rows": {"list, warm": rate}, "digests": digests}
        benchmark.collect(results, "text", job, result, ["a", "b"])
    line = results.table(["ours", "tiktoken", "quick"]).splitlines()[-1]
    assert line.split() == ["text", "list,", "warm", "20.0", "10.0", "40.0!", "2.00"]
    assert list(results.remarks) == ["quick, documents text: ids DIFFER from tiktoken's in 1 of 2 texts"]
    benchmark.collect(results, "text", job, result | {"digests": ["a"]}, ["a", "b"])  # a document is missing
    assert results.rows["documents of 4,000 characters, MB/s", "text list, warm"]["quick"].differing == 1
    benchmark.collect(results, "text", job, result, None)
    assert "documents text: tiktoken crashes on this text; ids were not compared" in results.remarks


def test_a_failing_peer_is_reported_as_an_error_without_a_row(benchmark: ModuleType) -> None:
    results = benchmark.Results()
    job = benchmark.Job("short", "tiktoken", "", {}, 4000, 1, {})
    benchmark.collect(results, "", job, {"error": "ValueError: no"}, None)
    assert results.rows == {}
    assert list(results.errors) == ["tiktoken, short: ValueError: no"]


def test_an_unknown_peer_exits_with_a_usage_error() -> None:
    finished = subprocess.run(
        [sys.executable, SCRIPT, "--peers", "nobody"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert "unknown name 'nobody'; choose from ours, tiktoken" in finished.stderr


def test_a_kernel_can_be_chosen_and_is_printed(llama3: Tokenizer, tmp_path: Path) -> None:
    printed, results = run(tmp_path, "--peers", "ours", "--modes", "documents", "--kernel", "plain")
    assert "kernels plain (tokenizers), plain (models)" in printed
    assert results


def test_a_kernel_that_the_processor_lacks_is_refused() -> None:
    command = [sys.executable, str(SCRIPT), "--kernel", "sse9"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "this processor does not run the kernel sse9; choose one of" in finished.stderr

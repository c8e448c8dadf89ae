"""Test the training benchmark: it runs, compares merges, and shows no ratios for a peer with different merges."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import regex

from bpe.patterns import SCANNED

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train.py"
TEXT = "A little text: naïve 日本語 12345\r\n  and so on, the other one.\n\n" * 50


@pytest.fixture(scope="module")
def benchmark(load_script: Callable[[str], ModuleType]) -> ModuleType:
    """The benchmark as a module."""
    return load_script("train")


def run(tmp_path: Path, *arguments: str) -> tuple[str, list[dict[str, Any]]]:
    """Run the benchmark and return what it prints and the results that it writes."""
    text = tmp_path / "little.txt"
    text.write_text(TEXT, "utf-8", newline="")
    output = tmp_path / "results.json"
    command = [sys.executable, str(SCRIPT), str(text), "--repeat", "1", "--json", str(output), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout, json.loads(output.read_text())["results"]


def test_peers_make_the_same_merges_and_have_ratios(tmp_path: Path) -> None:
    printed, results = run(tmp_path, "--peers", "ours,tokenizers", "--vocab-sizes", "290", "--repeat", "2")
    assert [(row["peer"], row["task"]["tie_break"]) for row in results] == [
        ("ours", "bytes"),
        ("ours", "huggingface"),
        ("tokenizers", "huggingface"),
    ]
    for row in results:
        assert row["merges"] == 34
        assert row["difference"] == ""
        assert len(row["seconds"]) == 2
        assert min(row["seconds"]) > 0
    line = printed.splitlines()[-1]
    assert line.split()[0] == "tokenizers"
    assert line.endswith("the same 34 merges")
    assert " - " not in line


@pytest.mark.parametrize(
    ("mode", "vocab_sizes", "threads", "titles"),
    [
        ("counting", [], 1, "MB MB/s no reading"),
        ("phases", ["--vocab-sizes", "280", "--threads", "2"], 2, "MB tokens seconds reading counting merging"),
    ],
)
def test_modes_counting_and_phases_measure_ours_alone(
    tmp_path: Path, mode: str, vocab_sizes: list[str], threads: int, titles: str
) -> None:
    printed, [result] = run(tmp_path, "--mode", mode, *vocab_sizes)
    assert titles.split() == printed.splitlines()[-2].split()
    assert result["threads"] == threads
    [phases] = result["phases"]
    assert phases.keys() == {"reading", "reading and counting", "merging"}
    assert sum(phases.values()) - phases["reading"] <= result["seconds"][0]


def test_whole_processes_are_measured(tmp_path: Path) -> None:
    arguments = ("--mode", "processes", "--peers", "ours", "--vocab-sizes", "290", "--threads", "2")
    printed, [result] = run(tmp_path, *arguments)
    assert result["merges"] == 34
    assert len(result["seconds"]) == len(result["cpu"]) == 1
    assert 5 < result["memory"][0] < 1000
    assert printed.splitlines()[-1].split()[:2] == ["little,", "ours"]


def test_growth_is_measured_by_corpus_and_vocabulary_size_and_plotted(tmp_path: Path) -> None:
    picture = tmp_path / "growth.png"
    sizes = ("--megabytes", "0.001,0.002,5", "--vocab-sizes", "260,270,280")
    _, results = run(tmp_path, "--mode", "growth", *sizes, "--plot", str(picture))
    points = [(round(row["MB"], 3), row["vocab_size"]) for row in results]
    assert points == [(0.001, 270), (0.002, 270), (round(len(TEXT.encode()) / 1e6, 3), 270), (0.002, 260), (0.002, 280)]
    assert picture.read_bytes().startswith(b"\x89PNG")


def comparison_of(benchmark: ModuleType, results: list[tuple[str, dict[str, Any]]]) -> Any:
    """Return a comparison of these results of peers, all for one task."""
    comparison = benchmark.Comparison(threads=2)
    comparison.megabytes["text"] = 1.0
    task = benchmark.PEERS["rustbpe"].task
    for peer, result in results:
        comparison.collect("text", benchmark.Job(peer, [], 259, task, "", 256, 2), result)
    return comparison


def result_of(seconds: float, *merges: str) -> dict[str, Any]:
    return {"seconds": seconds, "memory": 10 * seconds, "imports": 1.0, "merges": list(merges)}


def test_a_peer_with_different_merges_is_marked_and_has_no_ratios(benchmark: ModuleType) -> None:
    own = ("ours", result_of(2.0, "ab", "cd", "ef"))
    table = comparison_of(benchmark, [own, ("rustbpe", result_of(5.0, "ab", "cd", "ef"))]).table()
    assert table.splitlines()[-1].split()[-6:] == ["2.50", "2.50", "the", "same", "3", "merges"]
    for merges, words in (
        (["ab", "xy", "ef"], "differs: 1 of 3 merges, from merge 2"),
        (["ab", "ef", "cd"], "differs: only the order, from merge 2"),
        (["ab", "cd"], "differs: 1 of 3 merges, from merge 3, 2 merges in total"),
        (["ab", "cd", "ef", "gh"], "differs: only the order, from merge 4, 4 merges in total"),
    ):
        line = comparison_of(benchmark, [own, ("rustbpe", result_of(0.1, *merges))]).table().splitlines()[-1]
        assert line.endswith(f" -            -  {words}"), line


def test_the_merges_of_every_run_are_compared_including_ours(benchmark: ModuleType) -> None:
    own, other = result_of(2.0, "ab", "cd"), result_of(2.0, "ab", "xy")
    comparison = comparison_of(benchmark, [("ours", own), ("rustbpe", other), ("ours", own), ("rustbpe", own)])
    assert "differs" in comparison.table().splitlines()[-1]
    comparison = comparison_of(benchmark, [("ours", own), ("ours", other)])
    assert comparison.table().endswith("differs: 1 of 2 merges, from merge 2")


def test_a_failing_peer_is_reported_as_an_error_without_a_line(benchmark: ModuleType) -> None:
    comparison = comparison_of(benchmark, [("ours", result_of(1.0, "ab")), ("rustbpe", {"error": "ValueError: no"})])
    assert list(comparison.errors) == ["rustbpe (llama3, bytes), text, 259 tokens: ValueError: no"]
    assert "rustbpe" not in comparison.table()
    comparison = comparison_of(benchmark, [("ours", {"error": "no"}), ("rustbpe", result_of(1.0, "ab"))])
    assert "nothing to compare with" in list(comparison.errors)[-1]
    assert comparison.runs == {}


def test_a_peer_that_trains_on_lines_compares_merges_on_lines_and_time_on_whole_files(benchmark: ModuleType) -> None:
    tasks = {(peer, task.lines) for peer, task in benchmark.turns(["ours", "gigabpe"], first=True)}
    assert tasks == {("ours", False), ("ours", True), ("gigabpe", True)}
    assert ("ours", True) not in {(peer, task.lines) for peer, task in benchmark.turns(["gigabpe"], first=False)}
    comparison = benchmark.Comparison(threads=2)
    comparison.megabytes["text"] = 1.0
    by_lines = benchmark.PEERS["gigabpe"].task
    whole = benchmark.PEERS["gigatoken"].task
    for peer, task, result in (
        ("ours", whole, result_of(2.0, "ab", "\n\n")),
        ("ours", by_lines, result_of(99.0, "ab", "cd")),
        ("gigabpe", by_lines, result_of(1.0, "ab", "cd")),
    ):
        comparison.collect("text", benchmark.Job(peer, [], 258, task, "", 256, 2), result)
    assert comparison.table().splitlines()[-1].split()[-6:] == ["0.50", "0.50", "the", "same", "2", "merges"]
    assert "99" not in comparison.table()


@pytest.mark.parametrize("name", sorted(SCANNED))
def test_pieces_for_peers_have_the_pretokens_of_the_whole_text(
    benchmark: ModuleType, corpus_texts: dict[str, str], tmp_path: Path, name: str
) -> None:
    spaces = "a\u3000\nb x\n/y .\n/z …\n(w)\n\u00a0v\nu  \nt\r\ns\n\nr\n\u3000q\n日本\n語。\nп\nя q ß\nü"
    text = spaces * 20 + "".join(text[:2000] for text in corpus_texts.values())
    file = tmp_path / "text"
    file.write_text(text, "utf-8", newline="")
    pieces = list(benchmark.pieces([str(file)], 64))
    assert "".join(pieces) == text
    assert len(pieces) > len(text) / 1000
    pattern = regex.compile(SCANNED[name].text)
    assert [m.group() for piece in pieces for m in pattern.finditer(piece)] == pattern.findall(text)


def test_the_beginning_of_a_corpus_contains_whole_files_and_whole_characters(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    paths = [tmp_path / "1", tmp_path / "2", tmp_path / "3"]
    for path in paths:
        path.write_text("abc日本", "utf-8")
    corpus = benchmark.Corpus("text", [str(path) for path in paths])
    for size, expected in ((4, "abc"), (9, "abc日本"), (14, "abc日本abc"), (16, "abc日本abc日"), (27, "abc日本" * 3)):
        part = corpus.beginning(size / 1e6, tmp_path)
        assert "".join(Path(path).read_text("utf-8") for path in part.paths) == expected
    assert corpus.alphabet() == len(set("abc日本".encode()))


def test_a_peer_that_is_not_installed_is_named_with_the_command_to_install_it(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    _, versions = benchmark.introduce({"ours": "bpe-llama", "nobody": "no-such-distribution"})
    assert list(versions) == ["ours"]
    assert "not installed: pip install no-such-distribution" in capsys.readouterr().out


def test_an_unknown_peer_exits_with_a_usage_error() -> None:
    finished = subprocess.run(
        [sys.executable, SCRIPT, "--peers", "nobody"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert "unknown name 'nobody'; choose from ours, rustbpe" in finished.stderr

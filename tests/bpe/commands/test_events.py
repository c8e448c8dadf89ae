"""Events: what `--json` prints for programs."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.command_line import BPE, bpe


def events(*arguments: object, status: int = 0) -> list[dict[str, Any]]:
    """Run a command with --json and return its events."""
    result = bpe(*arguments, "--json")
    assert result.exit_code == status, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def phases(found: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(event["phase"] for event in found if event["event"] == "progress"))


@pytest.fixture
def trained(corpora: Path, tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    output = tmp_path / "my.json"
    return output, events("train", corpora, "-o", output, "--vocab-size", 1000, "--trace", 2)


def test_train(trained: tuple[Path, list[dict[str, Any]]], corpora: Path) -> None:
    output, found = trained
    assert phases(found)[:2] == ["counting", "merging"]
    counting = [event for event in found if event.get("phase") == "counting"]
    assert counting[0]["done"] == 0 and counting[-1]["done"] == counting[-1]["total"]
    assert counting[-1]["unit"] == "bytes"
    merging = [event for event in found if event.get("phase") == "merging"]
    assert merging[-1]["done"] == merging[-1]["total"] and merging[-1]["unit"] == "merges"
    merges = [event for event in found if event["event"] == "merge"]
    assert [event["id"] for event in merges] == [256, 257]
    assert merges[0]["token"] == repr(eval(merges[0]["left"]) + eval(merges[0]["right"]))
    done = found[-1]
    assert done["event"] == "done" and done["output"] == str(output) and done["tokens"] == 1000
    assert done["bytes"] == sum(file.stat().st_size for file in corpora.rglob("*") if file.is_file())


def test_shards_and_their_check(trained: tuple[Path, list[dict[str, Any]]], corpora: Path, tmp_path: Path) -> None:
    tokenizer, _ = trained
    found = events("shards", corpora, "-t", tokenizer, "-o", tmp_path / "data")
    assert "encoding" in phases(found)
    done = found[-1]
    assert done["event"] == "done" and done["train"]["documents"] > 0 and done["held_out"]["tokens"] > 0
    checked = events("shards", "--verify", tmp_path / "data")
    assert phases(checked) == ["checking the hashes", "comparing"]
    assert checked[-1]["documents"] == done["train"]["documents"] + done["held_out"]["documents"]
    exported = events("shards", "--export", tmp_path / "data", "-o", tmp_path / "npy", "--format", "npy")
    assert exported[-1]["event"] == "done" and len(exported[-1]["files"]) == 4


def test_verify(my_json: Path, corpora: Path) -> None:
    pytest.importorskip("tokenizers")
    found = events("verify", my_json, corpora / "prose.txt")
    assert "comparing" in phases(found)
    assert found[-1]["event"] == "done" and found[-1]["differing"] == 0 and found[-1]["documents"] > 1


def test_a_failure_is_the_last_event_and_a_line_on_stderr(my_json: Path, tmp_path: Path) -> None:
    result = bpe("shards", tmp_path / "missing.txt", "-t", my_json, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 1
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["event"] == "error" and "missing.txt" in last["message"]
    assert last["message"] in result.stderr


def test_wrong_usage_that_a_command_finds_is_an_event(my_json: Path, tmp_path: Path) -> None:
    found = events("train", my_json, "-o", tmp_path / "out.json", "--held-out", my_json, status=2)
    assert found[-1]["event"] == "error" and "--held-out has no effect" in found[-1]["message"]


def test_quiet_and_json_exclude_each_other(corpora: Path, tmp_path: Path) -> None:
    result = bpe("train", corpora, "-o", tmp_path / "my.json", "--json", "-q")
    assert result.exit_code == 2
    assert "--quiet and --json exclude each other" in result.stderr


def test_an_interrupt_is_an_event(tmp_path: Path) -> None:
    command = [*BPE, "train", "-", "-o", str(tmp_path / "my.json"), "--vocab-size", "600", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        first = json.loads(process.stdout.readline())  # from here on it waits for stdin
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        process.stdin.close()
    assert first["event"] == "progress"
    assert json.loads(rest.splitlines()[-1]) == {"event": "error", "message": "interrupted"}
    assert process.returncode == 130


def test_quiet_keeps_results_and_errors(my_json: Path, corpora: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    result = bpe("verify", my_json, corpora / "prose.txt", "-q")
    assert "0 differ" in result.stdout and result.stderr == ""
    result = bpe("shards", tmp_path / "missing.txt", "-t", my_json, "-o", tmp_path / "out", "-q")
    assert result.exit_code == 1 and "missing.txt" in result.stderr


def test_libraries_train_within_a_phase_of_their_own(corpora: Path, tmp_path: Path) -> None:
    options = ["--algorithm", "unigram", "--vocab-size", 600, "-o", tmp_path / "u.model"]
    found = [event for event in events("train", corpora / "prose.txt", *options) if event["event"] == "progress"]
    assert [event["phase"] for event in found][:2] == ["training", "reading"]
    assert found[-1]["phase"] == "training"

"""The run directory: finished runs, restarts, and runs with other settings."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bpe.errors import InputError
from bpe.shards import write_shards
from model import ModelConfig
from support.training_runs import SETTINGS, interrupt_after, interrupted, losses, train


def test_a_finished_run_is_not_trained_again(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    run = tmp_path / "run"
    first = train(data, run, config)
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    said = io.StringIO()
    again = train(data, run, config, progress=said)
    assert again == dataclasses.replace(first, already_finished=True)
    assert "already finished" in said.getvalue()
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_restart_deletes_the_earlier_run(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    run = tmp_path / "run"
    train(data, run, config)
    other = dataclasses.replace(SETTINGS, seed=1)
    result = train(data, run, config, other, restart=True)
    assert not result.already_finished
    assert Counter(kind for kind, _, _ in losses(run)) == {"step": 12, "evaluation": 4}


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_with_other_settings_is_refused_and_the_differences_are_named(
    finished: bool, data: Path, tmp_path: Path, config: ModelConfig, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    if finished:
        train(data, run, config)
    else:
        with monkeypatch.context() as patch:
            interrupt_after(3, patch)
            with pytest.raises(KeyboardInterrupt):
                train(data, run, config)
    with pytest.raises(InputError, match=r"\(learning_rate 0\.003 -> 0\.1, seed 0 -> 3\)"):
        train(data, run, config, dataclasses.replace(SETTINGS, learning_rate=0.1, seed=3))
    with pytest.raises(InputError, match=r"\(n_layers 2 -> 1\)"):
        train(data, run, dataclasses.replace(config, n_layers=1))
    write_shards(["Some other", "documents."], tokenizer, data, tokenizer_file=tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=r"\(the data\)"):
        train(data, run, config)
    (tmp_path / "tokenizer.json").write_text('{"kind": "other bytes"}')
    write_shards(["Some other", "documents."], tokenizer, data, tokenizer_file=tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=r"\(the data, the tokenizer\)"):
        train(data, run, config)


def test_checkpoints_without_run_json_are_not_overwritten(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = interrupted(data, tmp_path / "run", config, monkeypatch)
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(InputError, match=r"run\.json: no such file, but the directory holds checkpoints; restart"):
        train(data, tmp_path / "run", config)
    assert checkpoint.is_dir()


def test_checkpoint_settings_may_change_when_a_run_resumes(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(data, tmp_path / "run", config, monkeypatch)
    assert train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, keep_checkpoints=7)).steps == 12

"""Fixtures for the commands about models."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command_line import ROOT, bpe


@pytest.fixture(scope="session")
def data(my_json: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token shards of corpora/."""
    path = tmp_path_factory.mktemp("shards") / "data"
    result = bpe("shards", ROOT / "corpora", "--separator", "<|end_of_text|>", "-t", my_json, "-o", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run of four steps."""
    path = tmp_path_factory.mktemp("runs") / "run"
    result = bpe("pretrain", "--data", data, "-o", path, "--config", "nano", "--steps", "4")
    assert result.exit_code == 0, result.output
    return path

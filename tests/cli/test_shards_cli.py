"""`bpe shards`: writing, checking and exporting from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bpe import Tokenizer
from bpe.cli import cli
from bpe.shards import TRAIN, Shards
from support.references import BYTE_RANKS


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tiny.json"
    ranks = BYTE_RANKS | {b"he": 256}
    specials = {"<|begin_of_text|>": 257, "<|end_of_text|>": 258}
    Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens=specials).save(path)
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"\n--\n".join(b"the text %d\xff" % number for number in range(50)))
    return path


def bpe(*arguments: object, input: bytes = b"") -> Result:
    return CliRunner().invoke(cli, ["shards", *map(str, arguments)], input=input)


def test_shards_are_written_described_checked_and_exported(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    written = bpe(corpus, "--separator", "--", "-t", tokenizer, "-o", data, "--no-bos", "--shard-tokens", 100)
    assert (written.exit_code, written.stdout) == (0, "")
    assert "documents" in written.stderr
    shards = Shards(data)
    assert (shards.bos_id, shards.eos_id) == (None, 258)
    assert len(shards.shards(TRAIN)) > 3
    described = CliRunner().invoke(cli, ["info", str(data)]).stdout
    assert f"{corpus}: 50 documents in 1 files" in described
    assert shards.tokenizer_sha256 in described

    checked = bpe("--verify", data)
    assert checked.exit_code == 0, checked.stderr
    assert "50 documents" in checked.stdout
    assert bpe("--verify", data, "-t", tokenizer).exit_code == 0
    exported = bpe("--export", data, "-o", tmp_path / "arrays", "--format", "npy")
    assert exported.exit_code == 0, exported.stderr
    assert (tmp_path / "arrays" / "train-00000.npy").exists()

    moved = corpus.rename(tmp_path / "moved.txt")
    gone = bpe("--verify", data)
    assert (gone.exit_code, len(gone.stderr.splitlines())) == (1, 1)
    assert "name the sources" in gone.stderr
    assert bpe(moved, "--verify", data).exit_code == 0  # read as they were: with the separator
    assert bpe("--verify", data, "--hashes-only").exit_code == 0


def test_bytes_that_are_not_utf8_may_be_refused(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    refused = bpe(corpus, "-t", tokenizer, "-o", tmp_path / "data", "--errors", "strict")
    assert refused.exit_code == 1
    assert "texts.txt: byte 10 is not UTF-8" in refused.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-o", "data"], 2, "missing CORPUS"),
        (["texts.txt"], 2, "missing -o / --output"),
        (["--export", "data"], 2, "missing -o / --output"),
        (["--export", "data", "--verify", "data"], 2, "either --verify or --export"),
        (["--verify", "nowhere"], 1, "nowhere/index.json: cannot be read"),
        (["nowhere.txt", "-o", "data"], 1, "nowhere.txt: no such file"),
    ],
)
def test_what_is_missing_is_named(
    arguments: list[str], status: int, message: str, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = bpe(*arguments, "-t", tokenizer)
    assert result.exit_code == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "data").exists()

"""`bpe shards`: writing, verifying and exporting."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpe import Tokenizer
from bpe.shards import TRAIN, Shards
from support.command_line import bpe, fails_with
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


def test_the_tokenizer_may_be_that_of_a_model_directory(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    """What the files beside the tokenizer say counts, too."""
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    (directory / "generation_config.json").write_text('{"eos_token_id": 257}')
    written = bpe("shards", corpus, "-t", directory, "-o", tmp_path / "data")
    assert written.exit_code == 0, written.output
    assert Shards(tmp_path / "data").eos_id == 257
    assert bpe("shards", "--verify", tmp_path / "data", "-t", directory).exit_code == 0


def test_shards_are_written_described_verified_and_exported(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    written = bpe("shards", corpus, "--separator", "--", "-t", tokenizer, "-o", data, "--no-bos", "--shard-tokens", 100)
    assert (written.exit_code, written.stdout) == (0, "")
    assert "documents" in written.stderr
    shards = Shards(data)
    assert (shards.bos_id, shards.eos_id) == (None, 258)
    assert len(shards.shards(TRAIN)) > 3
    described = bpe("info", data).stdout
    assert f"{corpus}: 50 documents in 1 file" in described
    assert shards.tokenizer_sha256 in described

    checked = bpe("shards", "--verify", data)
    assert checked.exit_code == 0, checked.stderr
    assert "50 documents" in checked.stdout
    assert bpe("shards", "--verify", data, "-t", tokenizer).exit_code == 0
    exported = bpe("shards", "--export", data, "-o", tmp_path / "arrays", "--format", "npy")
    assert exported.exit_code == 0, exported.stderr
    assert (tmp_path / "arrays" / "train-00000.npy").exists()

    moved = corpus.rename(tmp_path / "moved.txt")
    fails_with(bpe("shards", "--verify", data), 1, "name the sources")
    assert bpe("shards", moved, "--verify", data).exit_code == 0  # read as before, with the separator
    assert bpe("shards", "--verify", data, "--hashes-only").exit_code == 0


def test_errors_strict_refuses_invalid_utf8(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    refused = bpe("shards", corpus, "-t", tokenizer, "-o", tmp_path / "data", "--errors", "strict")
    fails_with(refused, 1, "texts.txt: byte 10 is not UTF-8")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-o", "data"], 2, "missing CORPUS"),
        (["--export", "data"], 2, "missing -o / --output DIR"),
        (["--export", "data", "--verify", "data"], 2, "either --verify or --export"),
        (
            ["--verify", "nowhere"],
            1,
            "nowhere: no such directory; write token shards with: bpe shards TEXTS -o",
        ),
        (["nowhere.txt", "-o", "data"], 1, "nowhere.txt: no such file"),
    ],
)
def test_missing_arguments_and_files_are_named(
    arguments: list[str], status: int, message: str, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = bpe("shards", *arguments, "-t", tokenizer)
    fails_with(result, status, message)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("c.txt", "-o", "d", "--hashes-only"), "--hashes-only has no effect without --verify DIR"),
        (("c.txt", "-o", "d", "--format", "npy"), "--format has no effect without --export DIR"),
        (("c.txt", "-o", "d", "--held-out", "0", "--seed", "1"), "--seed has no effect with --held-out 0"),
        (("--verify", "d", "-o", "e"), "--output has no effect with --verify"),
        (("--verify", "d", "--no-bos"), "--bos has no effect with --verify"),
        (("--verify", "d", "--field", "x"), "--field has no effect with --verify"),
        (("--verify", "d", "--hashes-only", "c.txt"), "CORPUS... has no effect with --hashes-only"),
        (("--export", "d", "-o", "e", "--seed", "3"), "--seed has no effect with --export"),
        (("--export", "d", "-o", "e", "c.txt"), "CORPUS... has no effect with --export"),
    ],
)
def test_options_without_effect_are_refused(arguments: tuple[str, ...], message: str) -> None:
    fails_with(bpe("shards", *arguments), 2, message)


def test_shards_has_a_default_directory_that_is_never_replaced(
    my_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("some text")
    result = bpe("shards", "text.txt", "-t", my_json)
    assert result.exit_code == 0, result.output
    assert "bpe: by default: -o shards\n" in result.stderr
    assert bpe("shards", "--verify", "shards").exit_code == 0
    fails_with(bpe("shards", "text.txt", "-t", my_json), 1, "shards: already exists; give -o DIR")
    assert bpe("shards", "text.txt", "-t", my_json, "-o", "shards").exit_code == 0
    fails_with(bpe("shards", "--export", "shards"), 2, "missing -o / --output DIR")


def test_unfinished_shards_in_the_default_directory_are_resumed_but_other_files_are_kept(
    my_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("some text")
    (tmp_path / "shards").mkdir()
    fails_with(bpe("shards", "text.txt", "-t", my_json), 1, "shards: already exists; give -o DIR")
    (tmp_path / "shards" / "work").mkdir()
    assert bpe("shards", "text.txt", "-t", my_json).exit_code == 0

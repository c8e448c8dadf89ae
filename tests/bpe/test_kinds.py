"""A path of another kind than expected: the message says what is there and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpe import InputError, Tokenizer, train_from_iterator
from bpe.kinds import kind_of
from bpe.shards import Shards, write_shards
from model.checkpoint import open_checkpoint
from support.command_line import bpe, fails_with


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a folder of texts, a tokenizer, shards, and a directory that looks like a model."""
    directory = tmp_path_factory.mktemp("places")
    (directory / "texts").mkdir()
    (directory / "texts" / "a.txt").write_text("ab bc")
    (directory / "model").mkdir()
    (directory / "model" / "model.safetensors").write_bytes(b"weights")
    (directory / "empty").mkdir()
    tokenizer = train_from_iterator(["ab bc"], 257, "gpt2", ())
    tokenizer.save(directory / "my.json")
    write_shards(["ab bc"] * 9, tokenizer, directory / "data", tokenizer_file=directory / "my.json")
    return directory


def test_kinds_are_told_by_names(places: Path) -> None:
    names = ("texts", "texts/a.txt", "my.json", "data", "model", "model/model.safetensors", "empty", "nowhere")
    kinds = ["texts", "texts", "tokenizer", "shards", "model", "model", None, None]
    assert [kind_of(places / name) for name in names] == kinds


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("texts", r"no token shards here; it holds texts: encode them first \(bpe shards \S*texts -o DIR\)"),
        ("my.json", r"no token shards here; it is a tokenizer: .*\(bpe shards TEXTS -t \S*my.json -o DIR\)"),
        ("model", "no token shards here; it is a model"),
        ("empty", "no token shards here; write them with: bpe shards TEXTS -o DIR"),
    ],
)
def test_another_kind_in_place_of_shards_is_named(places: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"{name}: {said}"):
        Shards(places / name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("texts", "no model here; it holds texts: .* bpe shards, then bpe pretrain"),
        ("my.json", r"no model here; it is a tokenizer: .*\(-t \S*my.json\)"),
        ("data", r"no model here; it holds token shards: .*\(bpe pretrain --data \S*data\)"),
        ("empty", "no model here; expected .*params.json"),
    ],
)
def test_another_kind_in_place_of_a_model_is_named(places: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"{name}: {said}"):
        open_checkpoint(places / name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("texts", r"found none; it holds texts: .*\(bpe train \S*texts -o my.json\)"),
        ("model", "found none; it is a model without a tokenizer"),
        ("model/model.safetensors", "not a tokenizer file; .*; it is a model without a tokenizer"),
        ("texts/a.txt", "not a tokenizer file; .*; it holds texts"),
    ],
)
def test_another_kind_in_place_of_a_tokenizer_is_named(places: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"{Path(name).name}: .*{said}"):
        Tokenizer.from_file(places / name)


def test_the_weights_of_a_model_with_a_tokenizer_lead_to_it(places: Path) -> None:
    (places / "model" / "tokenizer.json").write_bytes((places / "my.json").read_bytes())
    with pytest.raises(InputError, match=r"weights of a model, whose tokenizer is in \S*model$"):
        Tokenizer.from_file(places / "model" / "model.safetensors")


def test_pretraining_on_a_folder_of_texts_names_the_command_that_encodes_them(places: Path) -> None:
    done = bpe("pretrain", "--data", places / "texts", "-o", places / "run", "--steps", "1")
    fails_with(done, 1, "texts: no token shards here; it holds texts: encode them first (bpe shards")


def test_a_remedy_is_a_command_line_for_a_path_with_spaces_and_quotes(tmp_path: Path) -> None:
    folder = tmp_path / "it's a dir"
    folder.mkdir()
    (folder / "a.txt").write_text("ab bc")
    fails_with(bpe("info", folder), 1, f'(bpe train "{folder}" -o my.json)')
    (tmp_path / "b c.txt").write_text("ab bc")
    fails_with(bpe("info", tmp_path / "b c.txt"), 1, f"(bpe train '{tmp_path / 'b c.txt'}' -o my.json)")

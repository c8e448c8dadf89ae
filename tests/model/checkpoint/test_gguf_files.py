"""A GGUF that is split into several files opens as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bpe import InputError, Tokenizer
from bpe.formats.gguf_container import Container
from model import Transformer, convert, generate_ids, load, save
from model.checkpoint import format_of, open_checkpoint
from support.gguf_files import change, split
from support.references import BYTE_RANKS


@pytest.fixture
def whole(model: Transformer, tmp_path: Path) -> Path:
    special = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257}
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)
    tokenizer.save(tmp_path / "tokenizer.json")
    save(tmp_path / "whole.gguf", model, tmp_path / "tokenizer.json")
    return tmp_path / "whole.gguf"


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_a_split_model_is_the_whole_one_by_any_of_its_files(backend: Any, whole: Path, tmp_path: Path) -> None:
    paths = split(whole, tmp_path / "parts")
    expected = [*generate_ids(load(whole, backend=backend)[0], [1, 2, 3], max_tokens=8, temperature=0)]
    for path in (*paths, tmp_path / "parts"):
        assert format_of(path) == "gguf"
        parts, tokenizer = load(path, backend=backend)
        assert [*generate_ids(parts, [1, 2, 3], max_tokens=8, temperature=0)] == expected
        assert tokenizer.n_vocab == 258


def test_converting_a_split_model_joins_it(whole: Path, tmp_path: Path) -> None:
    paths = split(whole, tmp_path / "parts")
    convert(paths[0], tmp_path / "joined.gguf")
    joined, original = Container.open(tmp_path / "joined.gguf"), Container.open(whole)
    assert joined.metadata.keys() == original.metadata.keys()
    assert joined.tensors.keys() == original.tensors.keys()
    for name, tensor in open_checkpoint(tmp_path / "joined.gguf").tensors(torch.float32):
        assert torch.equal(tensor, dict(open_checkpoint(whole).tensors(torch.float32))[name])


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_missing_file_is_named(gone: int, whole: Path, tmp_path: Path) -> None:
    paths = split(whole, tmp_path / "parts")
    paths[gone].unlink()
    for path in (paths[(gone + 1) % 3], paths[(gone + 2) % 3]):
        with pytest.raises(InputError, match=rf"{paths[gone].name}.*(same directory|beside it)"):
            open_checkpoint(path)


def test_files_of_different_models_are_refused(whole: Path, tmp_path: Path) -> None:
    paths, others = split(whole, tmp_path / "parts"), split(whole, tmp_path / "others", 2)
    paths[1].write_bytes(others[1].read_bytes())
    with pytest.raises(InputError, match=r"model-00002-of-00003\.gguf: not file 2 of the 3 files"):
        open_checkpoint(paths[0])
    paths = split(whole, tmp_path / "more", **{"split.tensors.count": 99})
    with pytest.raises(InputError, match="the first file names 99; the files do not belong together"):
        open_checkpoint(paths[0])


def test_a_file_of_another_model_is_refused_by_the_keys_that_differ(whole: Path, tmp_path: Path) -> None:
    paths = split(whole, tmp_path / "parts")
    split(whole, tmp_path / "others", **{"split.tensors.count": 99})
    paths[2].write_bytes((tmp_path / "others" / paths[2].name).read_bytes())
    with pytest.raises(
        InputError, match=r"00003-of-00003\.gguf: split\.tensors\.count is 99, but is \d+ in model-00001"
    ):
        open_checkpoint(paths[0])
    split(whole, tmp_path / "more", **{"qwen3.block_count": 2})
    paths[2].write_bytes((tmp_path / "more" / paths[2].name).read_bytes())
    with pytest.raises(InputError, match=r"qwen3\.block_count is 2, but is missing in model-00001-of-00003\.gguf"):
        open_checkpoint(paths[0])


@pytest.mark.parametrize("count", [["3"], "x\n", 0, True, 2.0])
def test_a_wrong_number_of_files_is_refused(count: Any, whole: Path) -> None:
    with pytest.raises(InputError, match=r"whole\.gguf: split\.count is .*; expected a number of files$"):
        open_checkpoint(change(whole, {"split.count": count}))


def test_a_renamed_file_of_a_split_model_says_what_its_name_must_be(whole: Path, tmp_path: Path) -> None:
    first = split(whole, tmp_path / "parts")[0].rename(tmp_path / "model.gguf")
    with pytest.raises(InputError, match=r"one of 3 files .* does not end in -00001-of-00003\.gguf"):
        open_checkpoint(first)


def test_a_whole_model_with_the_name_of_a_part_is_not_opened_for_its_neighbour(whole: Path, tmp_path: Path) -> None:
    paths = split(whole, tmp_path / "parts")
    paths[0].write_bytes(whole.read_bytes())
    for path in paths:
        with pytest.raises(
            InputError, match=rf"{paths[0].name}: a whole model, .* although {paths[1].name}.*other names"
        ):
            open_checkpoint(path)
    for path in paths[1:]:
        path.unlink()
    assert open_checkpoint(paths[0]).config == open_checkpoint(whole).config


def test_two_models_in_a_directory_are_not_one(whole: Path, tmp_path: Path) -> None:
    split(whole, tmp_path / "parts")
    (tmp_path / "parts" / "other.gguf").write_bytes(whole.read_bytes())
    with pytest.raises(InputError, match="no model here"):
        format_of(tmp_path / "parts")


@pytest.mark.parametrize(
    ("content", "found"), [(b"", "is empty"), (b"<!DOCTYPE html>", "begins with the bytes 3c 21 44 4f")]
)
def test_a_file_that_only_has_the_name_of_a_gguf_is_told(content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(
        InputError, match=rf"model\.gguf: no model here; a GGUF begins with GGUF, but this file {found}; "
    ):
        format_of(tmp_path / "model.gguf")

"""`model.convert`: from any format to any other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bpe import Tokenizer
from bpe.errors import InputError
from model import ModelConfig, Transformer, convert, load, save
from model.checkpoint import WRITABLE_FORMATS, bpe_llama, format_of, open_checkpoint
from support.references import BYTE_RANKS

MakeModel = Callable[[ModelConfig], Transformer]
DIRECTORIES = ("bpe-llama", "huggingface", "meta")
SPECIAL = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257}


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def original(request: Any, config: ModelConfig, make_model: MakeModel) -> Transformer:
    return make_model(dataclasses.replace(config, tied_embeddings=request.param, head_dim=12, qkv_bias=True))


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=SPECIAL).save(path)
    return path


@pytest.mark.parametrize("source", DIRECTORIES)
@pytest.mark.parametrize("target", DIRECTORIES)
def test_a_model_survives_conversion_to_any_format_exactly(
    source: str, target: str, original: Transformer, tokenizer_file: Path, tmp_path: Path
) -> None:
    save(tmp_path / "in", original, tokenizer_file, format=source)
    progress: list[tuple[int, int]] = []
    convert(tmp_path / "in", tmp_path / "out", target, progress=lambda *done: progress.append(done))
    assert format_of(tmp_path / "out") == target
    loaded, tokenizer = load(tmp_path / "out")
    assert loaded.config == original.config
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in original.state_dict().items())
    assert tokenizer.special_tokens == SPECIAL
    assert tokenizer.encode("ab<|end_of_text|>", allowed_special="all") == [97, 98, 257]
    total = len(original.state_dict()) - original.config.tied_embeddings
    assert progress[-1] == (total, total)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "tokenizer.json"]


@pytest.mark.parametrize("format", DIRECTORIES)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_model_survives_conversion_to_gguf_exactly(
    format: str, tied: bool, config: ModelConfig, make_model: MakeModel, tokenizer_file: Path, tmp_path: Path
) -> None:
    original = make_model(dataclasses.replace(config, tied_embeddings=tied, head_dim=12))
    save(tmp_path / "in", original, tokenizer_file, format=format)
    convert(tmp_path / "in", tmp_path / "model.gguf", "gguf")
    convert(tmp_path / "model.gguf", tmp_path / "out", format)
    assert [format_of(tmp_path / name) for name in ("model.gguf", "out")] == ["gguf", format]
    for name in ("model.gguf", "out"):
        loaded, tokenizer = load(tmp_path / name)
        assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in original.state_dict().items())
        assert tokenizer.special_tokens == SPECIAL
        assert tokenizer.encode("ab<|end_of_text|>", allowed_special="all") == [97, 98, 257]


@pytest.mark.parametrize("target", DIRECTORIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_get_the_requested_dtype_or_keep_theirs(
    target: str, dtype: torch.dtype, original: Transformer, tokenizer_file: Path, tmp_path: Path
) -> None:
    save(tmp_path / "in", original, tokenizer_file)
    convert(tmp_path / "in", tmp_path / "low", target, dtype)
    convert(tmp_path / "low", tmp_path / "kept", "bpe-llama")
    for name in ("low", "kept"):
        assert open_checkpoint(tmp_path / name).dtype == str(dtype).removeprefix("torch.")
        loaded, _ = load(tmp_path / name)
        for key, tensor in original.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], tensor.to(dtype)), key


def test_an_existing_destination_is_never_replaced(model: Transformer, tokenizer_file: Path, tmp_path: Path) -> None:
    save(tmp_path / "in", model, tokenizer_file)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    for name in ("full", "tokenizer.json", "in"):
        with pytest.raises(InputError, match=rf"{name}: already exists; remove it, or give another name"):
            convert(tmp_path / "in", tmp_path / name)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(InputError, match=r"the directory .*nowhere does not exist"):
        convert(tmp_path / "in", tmp_path / "nowhere" / "out")
    (tmp_path / "empty").mkdir()
    convert(tmp_path / "in", tmp_path / "empty")
    assert format_of(tmp_path / "empty") == "huggingface"


@pytest.mark.parametrize("target", DIRECTORIES)
def test_a_failed_conversion_leaves_no_files(
    target: str, model: Transformer, tokenizer_file: Path, tmp_path: Path
) -> None:
    save(tmp_path / "in", model, tokenizer_file)
    before = sorted(tmp_path.iterdir())

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "in", tmp_path / "out", target, progress=interrupt)
    assert sorted(tmp_path.iterdir()) == before
    weights = tmp_path / "in" / bpe_llama.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match="not a complete safetensors file"):
        convert(tmp_path / "in", tmp_path / "out", target)
    assert sorted(tmp_path.iterdir()) == before


def test_a_model_that_the_format_cannot_hold_raises_before_writing(
    config: ModelConfig, make_model: MakeModel, tokenizer_file: Path, tmp_path: Path
) -> None:
    save(tmp_path / "in", make_model(dataclasses.replace(config, wo_bias=True)), tokenizer_file)
    with pytest.raises(InputError, match="no Hugging Face model type .*wo_bias=True"):
        convert(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=f"no checkpoint format 'onnx'; choose one of {', '.join(WRITABLE_FORMATS)}"):
        convert(tmp_path / "in", tmp_path / "out", "onnx")

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bpe.errors import InputError
from bpe.formats import find_tokenizer
from model import ModelConfig, Transformer, save
from model.checkpoint import CHECKPOINT_FORMATS, bpe_llama, format_of, open_checkpoint
from model.checkpoint.assemble import assemble

MakeModel = Callable[[ModelConfig], Transformer]


def read(path: Path, dtype: torch.dtype | None = None) -> Transformer:
    return assemble(open_checkpoint(path), dtype, torch.device("cpu"))


@pytest.fixture
def saved(tmp_path: Path, model: Transformer) -> Path:
    """A directory in the format bpe-llama."""
    (tmp_path / "tokenizer.json").write_text('{"kind": "bytes"}')
    save(tmp_path / "model", model, tmp_path / "tokenizer.json")
    return tmp_path / "model"


def change(directory: Path, changes: dict[str, torch.Tensor | None]) -> None:
    weights: dict[str, torch.Tensor | None] = {**load_file(directory / bpe_llama.WEIGHTS), **changes}
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, directory / bpe_llama.WEIGHTS)


def test_a_saved_model_loads_exactly(saved: Path, model: Transformer) -> None:
    loaded = read(saved)
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(loaded(ids), model(ids), rtol=1e-5, atol=1e-5)


def test_tied_embeddings_are_stored_once_and_tied_on_loading(saved: Path) -> None:
    assert "output.weight" not in load_file(saved / bpe_llama.WEIGHTS)
    loaded = read(saved)
    assert loaded.output.weight is loaded.tok_embeddings.weight


def test_untied_embeddings_stay_untied(tmp_path: Path, saved: Path, config: ModelConfig, make_model: MakeModel) -> None:
    model = make_model(dataclasses.replace(config, tied_embeddings=False))
    save(tmp_path / "untied", model, saved / "tokenizer.json")
    loaded = read(tmp_path / "untied")
    assert torch.equal(loaded.output.weight, model.output.weight)
    assert not torch.equal(loaded.output.weight, loaded.tok_embeddings.weight)


def test_a_loaded_model_can_be_trained_on_without_touching_the_file(saved: Path) -> None:
    before = (saved / bpe_llama.WEIGHTS).read_bytes()
    loaded = read(saved)
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(torch.tensor([[1, 2, 3]])).square().mean().backward()
    optimizer.step()
    assert not torch.equal(loaded.norm.weight, load_file(saved / bpe_llama.WEIGHTS)["norm.weight"])
    assert (saved / bpe_llama.WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_get_the_requested_dtype(dtype: torch.dtype, saved: Path) -> None:
    loaded = read(saved, dtype)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert loaded.output.weight is loaded.tok_embeddings.weight


def test_weights_keep_their_dtype_by_default(tmp_path: Path, saved: Path, model: Transformer) -> None:
    save(tmp_path / "half", model.to(torch.bfloat16), saved / "tokenizer.json")
    loaded = read(tmp_path / "half")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_saving_again_replaces_the_files_and_leaves_no_others(saved: Path, model: Transformer) -> None:
    save(saved, model, saved / "tokenizer.json")
    assert sorted(path.name for path in saved.iterdir()) == ["model.safetensors", "params.json", "tokenizer.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm.weight": None}, r"model\.safetensors: missing norm\.weight"),
        ({"tok_embeddings.weight": None}, r"model\.safetensors: missing tok_embeddings\.weight"),
        ({"extra": torch.zeros(3)}, r"model\.safetensors: unknown tensor 'extra'"),
        ({"norm.weight": torch.ones(31)}, r"norm\.weight has the shape \[31\], expected \[32\]"),
        ({"norm.weight": torch.ones(32, dtype=torch.int32)}, r"norm\.weight holds torch\.int32"),
        ({"norm.weight": torch.full((32,), float("nan"))}, r"norm\.weight contains NaN or infinity"),
        ({"norm.weight": torch.tensor([1.0] * 31 + [-torch.inf])}, r"norm\.weight contains NaN or infinity"),
        ({"output.weight": torch.zeros(259, 32)}, r"output\.weight differs from tok_embeddings\.weight"),
    ],
)
def test_an_invalid_tensor_raises_with_its_name_and_file(changes: Any, message: str, saved: Path) -> None:
    change(saved, changes)
    with pytest.raises(InputError, match=message):
        read(saved)


@pytest.mark.parametrize("kept", [0, 7, 100, 5000, -1])
def test_truncated_weights_raise_with_the_file_name(kept: int, saved: Path) -> None:
    path = saved / bpe_llama.WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"model\.safetensors: not a complete safetensors file"):
        read(saved)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("{", r"params\.json: not JSON"),
        ("[1]", r"params\.json: expected a JSON object"),
        ('{"dim": 32}', r"params\.json: .*missing n_layers"),
        ('{"dim": 32, "n_layers": 2, "n_heads": 3, "vocab_size": 9}', r"params\.json: dim \(32\) is not divisible"),
    ],
)
def test_an_invalid_configuration_raises_with_the_file_name(params: str, message: str, saved: Path) -> None:
    (saved / "params.json").write_text(params)
    with pytest.raises(InputError, match=message):
        read(saved)


def test_a_wrong_vocabulary_size_raises(saved: Path) -> None:
    params = json.loads((saved / "params.json").read_text())
    (saved / "params.json").write_text(json.dumps({**params, "vocab_size": 300}))
    with pytest.raises(InputError, match=r"tok_embeddings\.weight has the shape \[259, 32\], expected \[300, 32\]"):
        read(saved)


def test_the_tokenizer_is_found_by_its_file_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        find_tokenizer(tmp_path)
    (tmp_path / "tokenizer.abc").write_text("")
    assert find_tokenizer(tmp_path).name == "tokenizer.abc"
    (tmp_path / "tokenizer.xyz").write_text("")
    with pytest.raises(InputError, match=r"found tokenizer\.abc, tokenizer\.xyz"):
        find_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_text("")
    assert find_tokenizer(tmp_path).name == "tokenizer.model"


def test_formats_are_recognised_by_their_files(saved: Path, tmp_path: Path) -> None:
    for name in ("bpe-llama", "meta", "huggingface"):
        (tmp_path / name).mkdir()
    files = {
        "bpe-llama": ("params.json", "model.safetensors"),
        "meta": ("params.json", "consolidated.00.pth"),
        "huggingface": ("config.json", "model.safetensors"),
    }
    for name, needed in files.items():
        for file in needed:
            (tmp_path / name / file).touch()
        assert [other for other in files if CHECKPOINT_FORMATS[other].recognises(tmp_path / name)] == [name]
        assert format_of(tmp_path / name / needed[1]) == name


def test_a_number_beyond_the_range_of_the_dtype_raises(saved: Path, tmp_path: Path) -> None:
    change(saved, {"norm.weight": torch.full((32,), 1e6)})
    read(saved, torch.bfloat16)
    with pytest.raises(InputError, match=r"norm\.weight holds numbers beyond the range of torch\.float16"):
        read(saved, torch.float16)


def test_an_unknown_format_raises_with_the_known_formats(model: Transformer, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="no checkpoint format 'onnx'; choose one of gguf, bpe-llama, meta, huggingface"
    ):
        save(tmp_path / "out", model, saved, format="onnx")


def test_the_former_format_name_native_raises_with_the_new_name(
    model: Transformer, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no checkpoint format 'native'; .*'native' is a backend, .* 'bpe-llama'"):
        save(tmp_path / "out", model, saved, format="native")


def test_weights_of_a_file_are_not_in_memory_twice(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(saved)
    tensors = list(checkpoint.tensors(checkpoint.dtype))
    model = assemble(dataclasses.replace(checkpoint, computed=lambda dtype: iter(tensors)), None, torch.device("cpu"))
    addresses = {name: tensor.data_ptr() for name, tensor in tensors}
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items() if name in addresses} == addresses

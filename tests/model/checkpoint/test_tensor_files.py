"""Safetensors files are read as by the package `safetensors`, and damaged ones are refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from bpe import InputError
from model.checkpoint.checking import checked_weights
from model.checkpoint.dequantize import tensors_of
from model.checkpoint.opened import Checkpoint
from model.checkpoint.tensor_files import read_header, read_weights
from model.checkpoint.weights import StoredTensor, expected_shapes
from model.config import ModelConfig
from model.transformer import Transformer

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b.weight": torch.randn(5, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "c": torch.tensor(3.0, dtype=torch.float16),
    "d": torch.zeros(0, 4),
    "e": torch.arange(4),
    "f": torch.tensor([True, False, True]),
    "g": torch.tensor([1.5], dtype=torch.float64),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "x.safetensors", {"format": "pt", "note": "hello"})
    return tmp_path / "x.safetensors"


def test_tensors_are_those_of_the_package(file: Path) -> None:
    expected = load_file(file)
    found = dict(tensors_of(read_weights(file), torch.float64))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])
    assert read_header(file).notes == {"format": "pt", "note": "hello"}


def test_a_file_whose_numbers_are_not_aligned_is_read(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    for padding in range(4):
        text = header + b" " * padding
        numbers = np.array([1.5, -2], np.float32).tobytes()
        (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + numbers)
        ((_, tensor),) = tensors_of(read_weights(tmp_path / "x.safetensors"), torch.float32)
        assert tensor.tolist() == [1.5, -2]


def test_what_the_package_refuses_is_refused(file: Path, tmp_path: Path) -> None:
    whole, choose = file.read_bytes(), random.Random(4)
    damaged = [whole[:cut] for cut in (0, 3, 8, 20, len(whole) - 1)] + [whole + b"x"]
    length = int.from_bytes(whole[:8], "little")
    for _ in range(300):  # one changed byte of the header
        place = choose.randrange(8 + length)
        damaged.append(whole[:place] + bytes([choose.randrange(256)]) + whole[place + 1 :])
    refused = 0
    for number, content in enumerate(damaged):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(content)
        try:
            with safe_open(path, framework="pt") as opened:
                opened.keys()
        except (SafetensorError, OSError):
            refused += 1
            with pytest.raises(InputError, match=rf"{path.name}: not a complete safetensors file .*download it again"):
                read_header(path)
    assert refused > 150


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("biases", [False, True])
def test_the_expected_tensors_are_those_of_the_transformer(tied: bool, biases: bool) -> None:
    config = ModelConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=48, vocab_size=50, head_dim=6,
        tied_embeddings=tied, qkv_bias=biases, wo_bias=biases,
    )  # fmt: skip
    shapes = {name: tuple(tensor.shape) for name, tensor in Transformer(config).state_dict().items()}
    if tied:
        del shapes["output.weight"]
    assert [*expected_shapes(config).items()] == [*shapes.items()]


def stored(config: ModelConfig, **changes: StoredTensor) -> Checkpoint:
    tensors = {
        name: StoredTensor(name, shape, "F32", memoryview(np.ones(shape, np.float32)).cast("B"))
        for name, shape in expected_shapes(config).items()
    }
    weights = [*(tensors | changes).values()]
    return Checkpoint(
        config, "float32", Path("w"), Path("t"), weights=lambda: weights, kinds=dict.fromkeys(tensors, "")
    )


def test_stored_weights_are_checked_as_tensors_are() -> None:
    config = ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=10, hidden_dim=8, tied_embeddings=True)
    assert [tensor.name for tensor in checked_weights(stored(config))] == [*expected_shapes(config)]
    same = StoredTensor("output.weight", (10, 8), "BF16", memoryview(np.full(80, 0x3F80, "<u2")).cast("B"))
    assert len([*checked_weights(stored(config, twin=same))]) == len(expected_shapes(config))
    other = same._replace(data=memoryview(np.full(80, 0x4000, "<u2")).cast("B"))
    for wrong, message in (
        (other, "output.weight differs from tok_embeddings.weight, but the configuration ties them"),
        (same._replace(name="x"), "unknown tensor 'x'"),
        (same._replace(name="norm.weight", shape=(8,)), "'norm.weight' occurs twice"),
        (same._replace(shape=(8, 10)), r"output.weight has the shape \[8, 10\], expected \[10, 8\]"),
    ):
        with pytest.raises(InputError, match=f"w: .*{message}"):
            [*checked_weights(stored(config, twin=wrong))]

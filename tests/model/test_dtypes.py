"""Dtypes by name, and rotations in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bpe import InputError, Tokenizer
from model import ModelConfig, Transformer, load, save
from model.dtypes import SIZES, dtype_name
from model.rotary import rotations
from model.transformer import rotary_table
from support.references import BYTE_RANKS


def test_a_dtype_has_the_same_name_as_an_object_and_as_a_string() -> None:
    for name, size in SIZES.items():
        dtype = getattr(torch, name)
        assert dtype_name(dtype) == dtype_name(name) == dtype_name(f"torch.{name}") == name
        assert dtype.itemsize == size
    for wrong in ("int8", "half", torch.int64):
        with pytest.raises(InputError, match=r"there is no dtype '\w+' for weights; choose one of float32"):
            dtype_name(wrong)


def test_load_takes_a_dtype_by_name(model: Transformer, tmp_path: Path) -> None:
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens={}).save(
        tmp_path / "tokenizer.json"
    )
    save(tmp_path / "model", model, tmp_path / "tokenizer.json")
    for dtype in ("bfloat16", torch.bfloat16):
        loaded, _ = load(tmp_path / "model", dtype)
        assert loaded.tok_embeddings.weight.dtype == torch.bfloat16
    with pytest.raises(InputError, match="there is no dtype 'int8'"):
        load(tmp_path / "model", "int8")


@pytest.mark.parametrize("preset", ["llama3.1-8b", "llama3.2-1b", "smollm2-135m", "llama2-7b"])
def test_rotations_of_arrays_are_those_of_tensors(preset: str) -> None:
    config = ModelConfig.preset(preset)
    length = config.max_seq_len // 16
    expected = torch.view_as_real(rotary_table(config, length, torch.device("cpu")))[:length].flatten(1)
    found = rotations(config, length)
    assert found.dtype == np.float32
    # Both are rounded from the same angles; torch's cosine is off by one bit in a hundredth of the numbers.
    np.testing.assert_allclose(found, expected.numpy(), atol=6e-8, rtol=0)

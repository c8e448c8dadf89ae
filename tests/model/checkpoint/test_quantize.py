"""Quantization against the `gguf` package, block for block, and quantized files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from bpe import InputError, Tokenizer
from bpe.cli import cli
from model import ModelConfig, NativeModel, Transformer, convert, load, quantize, save
from model.checkpoint import open_checkpoint
from model.checkpoint.gguf_tensors import NAMES
from model.checkpoint.quantize import QUANTIZERS, encode, exceptions, plan, quantized
from support.references import BYTE_RANKS

MakeModel = Callable[[ModelConfig], Transformer]
CONFIG = ModelConfig(
    dim=256, n_layers=1, n_heads=4, n_kv_heads=2, hidden_dim=96, vocab_size=300, max_seq_len=64, tied_embeddings=True
)


def numbers_of(rows: int = 40, columns: int = 512) -> Tensor:
    """Return rows of many magnitudes, zeros, equal numbers, ties, and rows of one sign."""
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 2, rows)[:, None]
    x[0], x[1], x[2] = 0, 0.25, x[2].abs()
    x[3] = -x[3].abs()
    x[4] = torch.arange(columns) % 17 / 8
    x[5, ::2] = 0
    return x


def by_gguf(data: memoryview, kind: str) -> npt.NDArray[np.float32]:
    return gguf.dequantize(np.frombuffer(data, np.uint8), gguf.GGMLQuantizationType[kind])


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
def test_blocks_match_the_gguf_package(kind: str) -> None:
    x = numbers_of()
    expected = gguf.quantize(x.numpy(), gguf.GGMLQuantizationType[kind])
    assert bytes(encode(x, kind)) == expected.tobytes()


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_numbers_are_within_half_a_step(kind: str) -> None:
    x = numbers_of()
    errors = np.abs(by_gguf(encode(x, kind), kind).reshape(x.shape) - x.numpy()).reshape(-1, 256)
    parts = x.numpy().reshape(-1, 256 // (size := 16 if kind == "Q6_K" else 32), size)
    largest = np.abs(parts).max(-1)
    spread = np.maximum(parts.max(-1), 0) - np.minimum(parts.min(-1), 0)
    # Half a step. In symmetric types, the far end may be a whole step away; K types also round their scales.
    bound = {
        "Q8_0": largest / 254,
        "Q4_0": largest / 8,
        "Q4_1": spread / 30,
        "Q6_K": largest / 32 + largest.max(-1, keepdims=True) / 256,
        "Q4_K": spread / 30 + spread.max(-1, keepdims=True) * (1 / 126 + 1 / 126),
    }[kind]
    assert (errors.reshape(parts.shape) <= 1.01 * bound[..., None] + largest[..., None] * 2e-3 + 1e-7).all()


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_pieces_join_into_the_same_blocks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = numbers_of(6)
    whole = bytes(encode(x, kind))
    monkeypatch.setattr("model.checkpoint.quantize._PIECE", 768)
    assert bytes(encode(x, kind)) == whole


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_numbers_that_cannot_be_quantized_raise(kind: str) -> None:
    for wrong in (math.nan, math.inf):
        x = numbers_of(6)
        x[1, 300] = wrong
        with pytest.raises(InputError, match="contains NaN or infinity"):
            encode(x, kind)
    x[1, 300] = 3e38
    with pytest.raises(InputError, match=f"beyond the range of {kind}"):
        encode(x, kind)
    with pytest.raises(InputError, match=f"rows of 40 numbers, not a multiple of the {kind} block size"):
        encode(torch.zeros(2, 40), kind)


# --- whole models ---


def test_each_matrix_gets_a_type_that_fits_its_rows() -> None:
    kinds = plan(CONFIG, "Q4_K")
    assert kinds["tok_embeddings.weight"] == "Q6_K"
    assert kinds["layers.0.attention.wq.weight"] == "Q4_K"
    assert kinds["layers.0.feed_forward.w2.weight"] == "Q4_1"
    assert kinds["norm.weight"] == "F32"
    assert exceptions(CONFIG, "Q4_K") == [
        "rows of 96 numbers are not a multiple of the Q4_K block size 256: stored as Q4_1, tensors: 1"
    ]
    odd = dataclasses.replace(CONFIG, hidden_dim=90)
    assert plan(odd, "Q8_0")["layers.0.feed_forward.w2.weight"] == "F16"
    assert exceptions(odd, "Q8_0") == [
        "rows of 90 numbers are not a multiple of the Q8_0 block size 32: stored as F16, tensors: 1"
    ]
    assert exceptions(CONFIG, "Q8_0") == []


@pytest.fixture
def directory(make_model: MakeModel, tmp_path: Path) -> Path:
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens={"<s>": 256}).save(
        tmp_path / "tokenizer.json"
    )
    model = make_model(CONFIG)
    with torch.no_grad():  # keeps rounding differences from growing a hundredfold
        for parameter in model.parameters():
            parameter.mul_(0.4 if parameter.dim() > 1 else 1)
    save(tmp_path / "in", model, tmp_path / "tokenizer.json")
    return tmp_path / "in"


@pytest.mark.parametrize("name", [kind.lower() for kind in QUANTIZERS])
@torch.inference_mode()
def test_every_way_to_quantize_gives_the_same_file_and_model(name: str, directory: Path, tmp_path: Path) -> None:
    file, ids = tmp_path / "out.gguf", torch.arange(20)[None]
    convert(directory, file, quantize=name)
    original, _ = load(directory)
    kinds, weights = plan(CONFIG, name.upper()), original.state_dict()
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    assert tensors.keys() == {NAMES.from_meta(each) for each in kinds}
    for each, kind in kinds.items():
        assert tensors[NAMES.from_meta(each)].tensor_type.name == kind
        assert tensors[NAMES.from_meta(each)].data.tobytes() == bytes(encode(weights[each], kind))
    expected = load(file, backend="native")[0](ids)
    assert torch.equal(load(directory, backend="native", quantize=name)[0](ids), expected)
    assert torch.equal(quantize(original, name)(ids), expected)
    float32, _ = load(directory, torch.float32, quantize=name)
    assert torch.equal(float32(ids), load(file, torch.float32)[0](ids))
    assert (float32(ids) - expected).abs().max() < 5e-3 * expected.std()
    # the remaining distance to the original is the error of the type
    bits = int(name[1])
    assert (expected - original(ids)).std() < 2.0 ** (3 - bits) * expected.std()


def test_a_quantized_file_can_be_quantized_again(directory: Path, tmp_path: Path) -> None:
    convert(directory, tmp_path / "8.gguf", quantize="q8_0")
    convert(tmp_path / "8.gguf", tmp_path / "4.gguf", quantize="q4_1")
    convert(tmp_path / "8.gguf", tmp_path / "16.gguf")
    assert open_checkpoint(tmp_path / "4.gguf").kinds["layers.0.attention.wq.weight"] == "Q4_1"
    assert open_checkpoint(tmp_path / "16.gguf").kinds["layers.0.attention.wq.weight"] == "BF16"


def test_wrong_arguments_and_weights_raise_with_their_names(
    directory: Path, tmp_path: Path, make_model: MakeModel
) -> None:
    with pytest.raises(InputError, match=r"no quantization type 'q2_k'; choose one of q8_0, q4_0"):
        load(directory, quantize="q2_k")
    with pytest.raises(InputError, match=r"only GGUF holds quantized weights; give a name that ends in \.gguf"):
        convert(directory, tmp_path / "out", quantize="q8_0")
    with pytest.raises(InputError, match=r"either q8_0 or torch\.float16"):
        convert(directory, tmp_path / "out.gguf", dtype=torch.float16, quantize="q8_0")
    model = make_model(CONFIG)
    with torch.no_grad():
        model.layers[0].attention.wk.weight[3, 5] = 3e38
    with pytest.raises(InputError, match=r"layers\.0\.attention\.wk\.weight holds numbers beyond the range of Q4_1"):
        quantize(model, "q4_1")
    with torch.no_grad():
        model.layers[0].attention.wk.weight[3, 5] = math.nan
    with pytest.raises(InputError, match=r"layers\.0\.attention\.wk\.weight contains NaN or infinity"):
        quantize(model, "q4_1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "tokenizer.json"]


def test_tensors_are_quantized_only_when_read(directory: Path) -> None:
    checkpoint = open_checkpoint(directory)
    broken = dataclasses.replace(checkpoint, computed=lambda dtype: pytest.fail("read"))
    assert quantized(broken, "q8_0").kinds["norm.weight"] == "F32"


def test_the_command_reports_tensors_of_another_type(directory: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(cli, ["convert", str(directory), str(tmp_path / "out.gguf"), "--quantize", "q6_k"])
    assert run.exit_code == 0, run.output
    assert "rows of 96 numbers are not a multiple of the Q6_K block size 256: stored as Q8_0, tensors: 1" in run.output
    assert isinstance(load(tmp_path / "out.gguf", backend="native")[0], NativeModel)

"""Dequantization against the `gguf` package, bit for bit for every type."""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bpe.errors import InputError
from bpe.formats.gguf_container import TENSOR_TYPES
from model.checkpoint import dequantize as dequantize_module
from model.checkpoint.block_formats import PLAIN, QUANTIZED
from model.checkpoint.dequantize import dequantize

ALL = [*PLAIN, *QUANTIZED]
BYTES = {name: size for name, _, size in TENSOR_TYPES.values()}
# The offsets of the float16 numbers of a block, if they are not just 0.
SCALES_AT = {
    "Q6_K": (208,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
}
# Zero, ones, subnormals, the largest numbers, infinities and NaNs.
SPECIAL = np.array([0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x3C00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0xFE01], "<u2")


def by_gguf(data: npt.NDArray[np.uint8], kind: str) -> npt.NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return gguf.dequantize(data, gguf.GGMLQuantizationType[kind]).reshape(-1)


def assert_same(ours: torch.Tensor, expected: npt.NDArray[np.float32]) -> None:
    """Assert equality bit for bit, except for the payload of NaNs, which depends on the CPU's instructions."""
    found = ours.float().numpy()
    same = found.view(np.int32) == expected.view(np.int32)
    assert (same | (np.isnan(found) & np.isnan(expected))).all()


@pytest.mark.parametrize("kind", ALL)
def test_random_blocks_match_the_gguf_package(kind: str) -> None:
    data = np.random.default_rng(0).integers(0, 256, (3000, BYTES[kind]), np.uint8)
    assert_same(dequantize(memoryview(bytearray(data)), kind, torch.float32), by_gguf(data, kind))


@pytest.mark.parametrize("kind", QUANTIZED)
def test_extreme_scales_match_the_gguf_package(kind: str) -> None:
    places = SCALES_AT.get(kind, (0,))
    count = len(SPECIAL) ** len(places)
    data = np.random.default_rng(1).integers(0, 256, (count, BYTES[kind]), np.uint8)
    for place, values in zip(places, np.meshgrid(*[SPECIAL] * len(places)), strict=True):
        data[:, place : place + 2] = values.reshape(-1, 1).view(np.uint8)
    assert_same(dequantize(memoryview(bytearray(data)), kind, torch.float32), by_gguf(data, kind))


@settings(deadline=None)
@given(kind=st.sampled_from(ALL), data=st.data())
def test_any_bytes_match_the_gguf_package(kind: str, data: st.DataObject) -> None:
    size = BYTES[kind]
    count = data.draw(st.integers(1, 4))
    content = np.frombuffer(data.draw(st.binary(min_size=count * size, max_size=count * size)), np.uint8)
    ours = dequantize(memoryview(bytearray(content)), kind, torch.float32)
    assert_same(ours, by_gguf(content.reshape(count, size), kind))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_narrower_dtype_is_float32_rounded(kind: str, dtype: torch.dtype) -> None:
    data = np.random.default_rng(2).integers(0, 256, (500, BYTES[kind]), np.uint8)
    ours = dequantize(memoryview(bytearray(data)), kind, dtype)
    assert ours.dtype == dtype
    expected = torch.from_numpy(by_gguf(data, kind)).to(dtype)
    assert_same(ours, expected.float().numpy())


@pytest.mark.parametrize("kind", QUANTIZED)
def test_pieces_join_into_the_same_numbers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(3).integers(0, 256, (7, BYTES[kind]), np.uint8)
    whole = dequantize(memoryview(bytearray(data)), kind, torch.float32)
    per_block = whole.numel() // 7
    monkeypatch.setattr(dequantize_module, "_PIECE", 2 * per_block)
    done: list[tuple[int, int]] = []
    pieces = dequantize(
        memoryview(bytearray(data)), kind, torch.float32, dequantize_module.scratch(), lambda *place: done.append(place)
    )
    assert_same(pieces, whole.numpy())
    assert done == [(0, 2 * BYTES[kind]), (2 * BYTES[kind], 2 * BYTES[kind]), (4 * BYTES[kind], 2 * BYTES[kind]),
                    (6 * BYTES[kind], BYTES[kind])]  # fmt: skip


def test_numbers_of_a_plain_type_are_not_copied() -> None:
    content = bytearray(np.arange(4, dtype=np.float32).tobytes())
    numbers = dequantize(memoryview(content), "F32", torch.bfloat16)
    content[:4] = np.float32(7).tobytes()
    assert numbers.tolist() == [7, 1, 2, 3]


def test_an_unsupported_type_raises_with_its_name() -> None:
    with pytest.raises(InputError, match=r"IQ2_XXS are not supported; supported are F32, F16, BF16, Q4_0, .*Q6_K"):
        dequantize(memoryview(bytearray(66)), "IQ2_XXS", torch.float32)

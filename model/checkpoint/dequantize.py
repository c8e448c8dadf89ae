"""Dequantization of ggml's block formats, bit for bit equal to the ``gguf`` package in float32.

`model.checkpoint.block_formats` describes the formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from bpe.errors import InputError
from model.checkpoint.block_formats import QUANTIZED, known_kinds
from model.checkpoint.weights import DTYPES, StoredTensor
from model.dtypes import DType, dtype_name

WEIGHT_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPES.values()}
"""torch's dtypes of weights by their names."""
# Types of safetensors that hold no weights of a model.
_OTHERS = {
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64, "U8": torch.uint8, "BOOL": torch.bool,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_TORCH_DTYPES: dict[str, torch.dtype] = {kind: getattr(torch, name) for kind, name in DTYPES.items()} | _OTHERS

# Numbers processed at a time: enough to amortise the calls, few enough that intermediate arrays stay in the caches.
_PIECE = 1 << 20


def torch_dtype(dtype: DType) -> torch.dtype:
    """Return torch's dtype of a name; raise InputError if it is no dtype of weights."""
    return WEIGHT_DTYPES[dtype_name(dtype)]


def scratch() -> Tensor:
    """Return a work buffer for `dequantize`, float32.

    Sharing one buffer between calls keeps memory from fragmenting between the tensors that stay: loading SmolLM2 took
    63 MB more than its weights without the buffer, and 11 MB more with it.
    """
    return torch.empty(_PIECE)


def dequantize(
    data: memoryview,
    kind: str,
    dtype: torch.dtype,
    room: Tensor | None = None,
    done: Callable[[int, int], None] = lambda begin, size: None,
) -> Tensor:
    """Return the numbers of a tensor: [numbers].

    Args:
        data: The stored bytes, whole blocks. The memory must be writable, since numbers of a plain type share it.
        kind: The stored type, such as "Q4_1".
        dtype: The dtype to round to. Numbers of a plain type keep their own dtype.
        room: A buffer from `scratch`. Numbers are computed in it in float32, piece by piece.
        done: Called after each piece with the byte at which it begins and its size in bytes.

    Raises:
        InputError: When the type is not supported; the message names it.
    """
    if kind in _TORCH_DTYPES:
        return _shared(data, _TORCH_DTYPES[kind])
    if kind not in QUANTIZED:
        raise InputError(f"tensors of the type {kind} are not supported; supported are {known_kinds()}")
    block, per_block, unpack = QUANTIZED[kind]
    blocks = np.frombuffer(data, block)
    numbers = torch.empty(len(blocks), per_block, dtype=dtype)
    step = _PIECE // per_block
    room = scratch() if room is None else room
    for begin in range(0, len(blocks), step):
        piece = blocks[begin : begin + step]
        with np.errstate(all="ignore"):  # NaN and infinity pass through; the check of the weights finds them
            integers, scales, offsets = unpack(piece)
        scaled = room[: integers.size].view(*scales.shape, -1)  # [n, scales, integers of a scale]
        scaled.copy_(torch.from_numpy(integers).view(scaled.shape))
        scaled.mul_(torch.from_numpy(scales)[..., None])
        if offsets is not None:
            scaled.add_(torch.from_numpy(offsets)[..., None])
        numbers[begin : begin + step] = scaled.view(len(piece), per_block)
        done(begin * block.itemsize, piece.nbytes)
    return numbers.view(-1)


def _shared(data: memoryview, dtype: torch.dtype) -> Tensor:
    """Return the numbers in some bytes, which the tensor shares, unless they begin at an odd address."""
    if len(data) == 0:
        return torch.empty(0, dtype=dtype)
    if torch.frombuffer(data, dtype=torch.uint8).data_ptr() % dtype.itemsize:
        data = memoryview(bytearray(data))
    return torch.frombuffer(data, dtype=dtype)


def tensors_of(weights: Iterable[StoredTensor], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and tensors of stored weights. Mapped memory is released as soon as it has been converted.

    Args:
        weights: The stored tensors.
        dtype: The dtype that numbers of block formats get, and that the caller converts the others to.
    """
    room = scratch()
    for name, shape, kind, data, release in weights:
        tensor = dequantize(data, kind, dtype, room, release).view(shape)
        yield name, tensor
        if tensor.dtype != dtype:
            release(0, len(data))

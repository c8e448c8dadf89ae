"""ggml's block formats in NumPy: the layout of a block, and how it is unpacked to integers, scales and offsets.

A quantized row is a sequence of blocks. Each block holds 32 or 256 small integers and their scales. In every format a
number is scale * integer + offset. The scale is a float16, the product of a float16 and a small integer, or a power of
two, and its product with the integer has at most 24 significant bits. Only the addition rounds, so the result does not
depend on the order or the instructions of the other operations.

In shapes, n is the number of blocks. Bytes that stay together are one void element ("V16"), which numpy copies as a
whole: ten times as fast as 16 single bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bpe.errors import InputError

Array: TypeAlias = npt.NDArray[Any]

PLAIN = ("F32", "F16", "BF16")
"""The types of GGUF that are no block formats and are supported."""


class Unpacked(NamedTuple):
    """The parts of some blocks."""

    integers: Array  # uint8 or int8, [n, integers]
    scales: Array  # float32 [n, scales]
    offsets: Array | None = None  # likewise


def _parts(packed: Array, width: int) -> Array:
    """Split bytes into parts of `width` bits, the lowest parts of all bytes first: [n, ...] -> [n, ... * 8 / width]."""
    packed = np.ascontiguousarray(packed)
    content = packed.view(np.uint8)
    parts = np.empty((*packed.shape, 8 // width), packed.dtype)
    for i in range(8 // width):
        shifted = content >> i * width if i else content
        parts[..., i] = (shifted & ((1 << width) - 1)).view(packed.dtype)
    return parts.view(np.uint8).reshape(len(packed), -1)


def _signed(integers: Array, zero: int) -> Array:
    """Return integers minus `zero`, as int8."""
    signed: Array = integers.view(np.int8) - np.int8(zero)
    return signed


def _floats(halves: Array) -> Array:
    return halves.astype(np.float32)[:, None]


def _fifth_bits(blocks: Array) -> Array:
    """Return the fifth bit of each integer, [n, 32] of 0 or 16: bit i of the four bytes belongs to integer i."""
    return np.unpackbits(blocks["high"], axis=1, bitorder="little") << 4


def _q4_0(blocks: Array) -> Unpacked:
    return Unpacked(_signed(_parts(blocks["low"], 4), 8), _floats(blocks["scale"]))


def _q4_1(blocks: Array) -> Unpacked:
    return Unpacked(_parts(blocks["low"], 4), _floats(blocks["scale"]), _floats(blocks["offset"]))


def _q5_0(blocks: Array) -> Unpacked:
    return Unpacked(_signed(_parts(blocks["low"], 4) | _fifth_bits(blocks), 16), _floats(blocks["scale"]))


def _q5_1(blocks: Array) -> Unpacked:
    integers = _parts(blocks["low"], 4) | _fifth_bits(blocks)
    return Unpacked(integers, _floats(blocks["scale"]), _floats(blocks["offset"]))


def _q8_0(blocks: Array) -> Unpacked:
    return Unpacked(np.ascontiguousarray(blocks["integers"]).view(np.int8), _floats(blocks["scale"]))


def _with_sub_blocks(integers: Array, blocks: Array) -> Unpacked:
    """Unpack eight sub-blocks, each with a scale and an offset of 6 bits; the offset is subtracted.

    The first four scales and offsets have bytes of their own in "scales" and "offsets". Of the last four, the low four
    bits of a scale and an offset share a byte of "shared", and the high two bits are the top bits of the first bytes.
    """
    first, second, shared = blocks["scales"], blocks["offsets"], blocks["shared"]
    scales = np.concatenate((first & 63, first >> 6 << 4 | shared & 15), axis=1)
    offsets = np.concatenate((second & 63, second >> 6 << 4 | shared >> 4), axis=1)
    return Unpacked(integers, _floats(blocks["scale"]) * scales, -(_floats(blocks["offset"]) * offsets))


def _q4_k(blocks: Array) -> Unpacked:
    return _with_sub_blocks(_parts(blocks["low"], 4), blocks)


def _q5_k(blocks: Array) -> Unpacked:
    return _with_sub_blocks(_parts(blocks["low"], 4) | _parts(blocks["high"], 1) << 4, blocks)


def _q6_k(blocks: Array) -> Unpacked:
    integers = _parts(blocks["low"], 4) | _parts(blocks["high"], 2) << 4
    return Unpacked(_signed(integers, 32), _floats(blocks["scale"]) * blocks["scales"])


def _q2_k(blocks: Array) -> Unpacked:
    """Unpack sixteen sub-blocks: a scale and an offset of 4 bits share a byte; the offset is subtracted."""
    packed = blocks["scales"]
    offsets = -(_floats(blocks["offset"]) * (packed >> 4))
    return Unpacked(_parts(blocks["low"], 2), _floats(blocks["scale"]) * (packed & 15), offsets)


def _q3_k(blocks: Array) -> Unpacked:
    """Unpack sixteen sub-blocks, each with a scale of 6 bits: the low four in "scales", the high two in "shared"."""
    scales = _parts(blocks["scales"], 4) | _parts(blocks["shared"], 2) << 4
    integers = _parts(blocks["low"], 2) | _parts(blocks["high"], 1) << 2
    return Unpacked(_signed(integers, 4), _floats(blocks["scale"]) * _signed(scales, 32))


# The numbers that four bits stand for: not evenly spaced, as weights are not (IQ4), and floats of four bits (MXFP4).
_IQ4_VALUES = np.array((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113), np.int8)
_MXFP4_VALUES = np.array((0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12), np.int8)


def _iq4_nl(blocks: Array) -> Unpacked:
    return Unpacked(_IQ4_VALUES[_parts(blocks["low"], 4)], _floats(blocks["scale"]))


def _iq4_xs(blocks: Array) -> Unpacked:
    """Unpack eight sub-blocks, each with a scale of 6 bits: the low four in "scales", the high two in "shared"."""
    low = np.stack((blocks["scales"] & 15, blocks["scales"] >> 4), axis=-1).reshape(-1, 8)
    high = (blocks["shared"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16)).astype(np.uint8) & 3
    scales = _floats(blocks["scale"]) * _signed(low | high << 4, 32)
    return Unpacked(_IQ4_VALUES[_parts(blocks["low"], 4)], scales)


def _mxfp4(blocks: Array) -> Unpacked:
    """Unpack a block whose scale is a power of two, of which only the exponent is stored."""
    exponents = blocks["exponent"].astype(np.uint32)
    bits = np.where(exponents < 2, np.uint32(0x00200000) << exponents, (exponents - np.uint32(1)) << np.uint32(23))
    return Unpacked(_MXFP4_VALUES[_parts(blocks["low"], 4)], bits.view(np.float32)[:, None])


_SCALE, _OFFSET = ("scale", "<f2"), ("offset", "<f2")
_SUB_BLOCKS = [_SCALE, _OFFSET, ("scales", "u1", 4), ("offsets", "u1", 4), ("shared", "u1", 4)]

# By type: the layout of a block in the file, the number of integers in it, and the function that unpacks it.
QUANTIZED: dict[str, tuple[np.dtype[Any], int, Callable[[Array], Unpacked]]] = {
    "Q4_0": (np.dtype([_SCALE, ("low", "V16")]), 32, _q4_0),
    "Q4_1": (np.dtype([_SCALE, _OFFSET, ("low", "V16")]), 32, _q4_1),
    "Q5_0": (np.dtype([_SCALE, ("high", "u1", 4), ("low", "V16")]), 32, _q5_0),
    "Q5_1": (np.dtype([_SCALE, _OFFSET, ("high", "u1", 4), ("low", "V16")]), 32, _q5_1),
    "Q8_0": (np.dtype([_SCALE, ("integers", "V32", 1)]), 32, _q8_0),
    "Q4_K": (np.dtype([*_SUB_BLOCKS, ("low", "V32", 4)]), 256, _q4_k),
    "Q5_K": (np.dtype([*_SUB_BLOCKS, ("high", "V32"), ("low", "V32", 4)]), 256, _q5_k),
    "Q2_K": (np.dtype([("scales", "u1", 16), ("low", "V32", 2), _SCALE, _OFFSET]), 256, _q2_k),
    "Q3_K": (
        np.dtype([("high", "V32"), ("low", "V32", 2), ("scales", "V8"), ("shared", "V4"), _SCALE]),
        256,
        _q3_k,
    ),
    "Q6_K": (np.dtype([("low", "V64", 2), ("high", "V32", 2), ("scales", "i1", 16), _SCALE]), 256, _q6_k),
    "IQ4_NL": (np.dtype([_SCALE, ("low", "V16")]), 32, _iq4_nl),
    "IQ4_XS": (np.dtype([_SCALE, ("shared", "<u2"), ("scales", "u1", 4), ("low", "V16", 8)]), 256, _iq4_xs),
    "MXFP4": (np.dtype([("exponent", "u1"), ("low", "V16")]), 32, _mxfp4),
}


def known_kinds() -> str:
    """Return the names of the supported types, for a message."""
    return ", ".join((*PLAIN, *QUANTIZED))


def float32_of(data: memoryview, kind: str) -> npt.NDArray[np.float32]:
    """Return the numbers of a tensor in float32: [numbers]. For the small tensors of a model; it needs much memory.

    Args:
        data: The stored bytes, whole blocks.
        kind: The stored type: "F32", "F16", "BF16", "F64", or a block format.

    Raises:
        InputError: When the type is not supported; the message names it.
    """
    if kind == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    if kind in ("F32", "F16", "F64"):
        with np.errstate(over="ignore"):  # infinity, which the check of the weights finds
            return np.frombuffer(data, f"<f{int(kind[1:]) // 8}").astype(np.float32)
    if kind not in QUANTIZED:
        raise InputError(f"tensors of the type {kind} are not supported; supported are {known_kinds()}")
    block, _, unpack = QUANTIZED[kind]
    with np.errstate(all="ignore"):
        integers, scales, offsets = unpack(np.frombuffer(data, block))
        numbers = integers.reshape(*scales.shape, -1).astype(np.float32) * scales[..., None]
        if offsets is not None:
            numbers += offsets[..., None]
    return numbers.reshape(-1)

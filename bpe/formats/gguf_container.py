"""TODO: gguf_container."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from bpe import _core
from bpe.errors import InputError

if TYPE_CHECKING:
    pass


MAGIC = b"GGUF"
VERSIONS = (2, 3)
# Number -> name, numbers in a block, bytes of a block.
TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
_NUMBER_OF_TYPE = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
_MOST_DIMENSIONS = 4
_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_NUMBER_OF_SCALAR = {code: number for number, code in _SCALARS.items()}


class TensorInfo(NamedTuple):
    """Where a tensor lies in the file, and as what."""

    shape: tuple[int, ...]
    """In the order of other libraries, outermost first; the file has it the other way around."""
    type: str
    """One of `TENSOR_TYPES`."""
    offset: int
    """From the beginning of the file."""
    n_bytes: int


class Container:
    """The content of a GGUF, of which the tensors stay where they are.

    `metadata` has the values by key: numbers, bools, strings; arrays of strings are lists, other arrays are memoryviews
    of the file. `tensors` has the tensors' places by name.
    """

    def __init__(self, content: bytes | mmap.mmap) -> None:
        """
        Raises:
            InputError: not a whole GGUF of a version that we know, or one that contradicts itself.
        """
        self._content = content
        self._at = len(MAGIC)
        if content[: len(MAGIC)] != MAGIC:
            raise InputError(f"not a GGUF file: it begins with {content[: len(MAGIC)]!r}")
        self.version: int = self._scalar("I")
        if self.version & 0xFFFF == 0 and self.version:
            raise InputError("a big-endian GGUF; only little-endian ones are read")
        if self.version not in VERSIONS:
            raise InputError(f"GGUF version {self.version}; only versions 2 and 3 are read, so convert the model anew")
        n_tensors, n_values = self._scalar("Q"), self._scalar("Q")
        self._require(24 * n_tensors + 13 * n_values)  # what the shortest of each take
        self.metadata: dict[str, Any] = {}
        for _ in range(n_values):
            key = self._string()
            if key in self.metadata:
                raise InputError(f"two values for the key {key!r}")
            self.metadata[key] = self._value(key, self._scalar("I"))
        infos = [self._tensor_info() for _ in range(n_tensors)]
        self.tensors: dict[str, TensorInfo] = self._placed(infos)

    @classmethod
    def open(cls, path: Path) -> Container:
        """Map a file such that tensors may be written to, which never reaches it; errors name it."""
        try:
            return cls(mapped(path, mmap.ACCESS_COPY))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    def data(self, name: str) -> memoryview:
        """The bytes of a tensor, in the memory that the file is mapped to."""
        info = self.tensors[name]
        return memoryview(self._content)[info.offset : info.offset + info.n_bytes]

    def release(self, offset: int, n_bytes: int) -> None:
        """Let the memory of these bytes go; the file is read again if they are asked for again.

        What was written there is lost. Pages that the range covers in part are kept.
        """
        first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (offset + n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if isinstance(self._content, mmap.mmap) and first < last and hasattr(mmap, "MADV_DONTNEED"):
            self._content.madvise(mmap.MADV_DONTNEED, first, last - first)

    def _require(self, n_bytes: int) -> None:
        if n_bytes > len(self._content) - self._at:
            raise self._goes_on()

    def _goes_on(self) -> InputError:
        return InputError(
            f"the header goes on beyond the end of the file ({len(self._content)} bytes): truncated or damaged"
        )

    def _scalar(self, code: str) -> Any:
        size = struct.calcsize("<" + code)
        self._require(size)
        (value,) = struct.unpack_from("<" + code, self._content, self._at)
        self._at += size
        return value

    def _string(self) -> str:
        length = self._scalar("Q")
        self._require(length)
        self._at += length
        return self._content[self._at - length : self._at].decode(errors="replace")

    def _value(self, key: str, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(key, self._scalar("I"), self._scalar("Q"))
        if kind not in _SCALARS:
            raise InputError(f"the value of {key!r} is of the type {kind}, which does not exist; the file is damaged")
        return self._scalar(_SCALARS[kind])

    def _array(self, key: str, kind: int, count: int) -> list[str] | memoryview:
        if kind == _STRING:
            return self._strings(count)
        if kind not in _SCALARS:
            raise InputError(f"{key!r} is an array of values of the type {kind}; only numbers and strings are read")
        code = _SCALARS[kind]
        n_bytes = count * struct.calcsize("<" + code)
        self._require(n_bytes)
        self._at += n_bytes
        return memoryview(self._content)[self._at - n_bytes : self._at].cast(cast(Any, code))

    def _strings(self, count: int) -> list[str]:
        self._require(8 * count)
        found = _core.strings(self._content, self._at, count)
        if found is None:
            raise self._goes_on()
        strings, self._at = found
        return strings

    def _tensor_info(self) -> tuple[str, TensorInfo]:
        name, n_dimensions = self._string(), self._scalar("I")
        if n_dimensions > _MOST_DIMENSIONS:
            raise InputError(f"the tensor {name!r} has {n_dimensions} dimensions; there are at most {_MOST_DIMENSIONS}")
        shape = tuple(self._scalar("Q") for _ in range(n_dimensions))[::-1]
        number, offset = self._scalar("I"), self._scalar("Q")
        if number not in TENSOR_TYPES:
            raise InputError(f"the tensor {name!r} is of the type {number}, which is not known")
        kind, block, n_bytes = TENSOR_TYPES[number]
        if 0 in shape:
            raise InputError(f"the tensor {name!r} has the shape {list(shape)}, of no numbers")
        if (shape[-1] if shape else 1) % block:
            raise InputError(
                f"the tensor {name!r} has rows of {(shape or (1,))[-1]} numbers, which are no whole {kind} blocks"
            )
        return name, TensorInfo(shape, kind, offset, prod(shape) // block * n_bytes)

    def _placed(self, infos: Iterable[tuple[str, TensorInfo]]) -> dict[str, TensorInfo]:
        """By name, with offsets from the beginning of the file; refused where tensors overlap or are cut."""
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
            raise InputError(f"general.alignment is {alignment!r}; expected a multiple of 8")
        begin = -(-self._at // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for name, info in infos:
            if name in tensors:
                raise InputError(f"two tensors {name!r}")
            if info.offset % alignment:
                raise InputError(f"the tensor {name!r} is at {info.offset}, which is not aligned to {alignment}")
            tensors[name] = info._replace(offset=begin + info.offset)
        places = sorted((info.offset, info.offset + info.n_bytes, name) for name, info in tensors.items())
        for (_, end, name), (offset, _, other) in pairwise(places):
            if offset < end:
                raise InputError(f"the tensors {name!r} and {other!r} overlap; the file is damaged")
        if places and places[-1][1] > len(self._content):
            raise InputError(
                f"the file ends at {len(self._content)} bytes, but the tensor {places[-1][2]!r} goes up to"
                f" {places[-1][1]}; is it half a download?"
            )
        return tensors


def mapped(path: Path, access: int = mmap.ACCESS_READ) -> mmap.mmap:
    """A file's content as memory."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise InputError("the file is empty")
        return mmap.mmap(file.fileno(), 0, access=access)


def lay_out(
    metadata: Mapping[str, Any], tensors: Mapping[str, tuple[Sequence[int], str]]
) -> tuple[bytes, dict[str, TensorInfo]]:
    """All that precedes the tensors in a file of version 3, and the places of the tensors, given by shape and type.

    Values are written as what they are: bool, int (32 bits, unsigned), float (32 bits), str, lists of str, and
    memoryviews of numbers.
    """
    parts = [MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_encoded_string(key), _encoded(value)]
    placed, offset = {}, 0
    for name, (shape, kind) in tensors.items():
        number = _NUMBER_OF_TYPE[kind]
        _, block, size = TENSOR_TYPES[number]
        n_bytes = prod(shape) // block * size
        placed[name] = TensorInfo(tuple(shape), kind, offset, n_bytes)
        parts.append(_encoded_string(name))
        parts.append(struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), number, offset))
        offset += _padded(n_bytes)
    header = b"".join(parts)
    header = header.ljust(_padded(len(header)), b"\0")
    return header, {name: info._replace(offset=len(header) + info.offset) for name, info in placed.items()}


def _padded(size: int) -> int:
    return -(-size // 32) * 32


def _encoded_string(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _encoded(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _encoded_string(value)
    if isinstance(value, memoryview):
        return struct.pack("<IIQ", _ARRAY, _NUMBER_OF_SCALAR[value.format], len(value)) + value.tobytes()
    return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_encoded_string, value))

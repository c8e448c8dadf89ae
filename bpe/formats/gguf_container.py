"""The container format GGUF of llama.cpp: metadata and tensors in one file, which is mapped instead of read.

The layout is that of the specification in ggml's docs/gguf.md, versions 2 and 3, little endian. All lengths, counts and
offsets are checked against the size of the file before they are used.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, cast

from bpe import _core
from bpe.errors import InputError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# By the number of the type: its name, the numbers in a block, and the bytes of a block.
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
ALIGNMENT = "general.alignment"
_SHOWN = 60  # characters of a value in a message


class TensorInfo(NamedTuple):
    """The place of a tensor in the file, and its type."""

    shape: tuple[int, ...]
    """The outermost dimension first, as in other libraries; the file has the reverse order."""
    type: str
    """One of `TENSOR_TYPES`."""
    offset: int
    """In bytes, from the beginning of the file."""
    n_bytes: int


class TruncatedHeaderError(InputError):
    """The header of a GGUF continues beyond the content that is given."""


class Container:
    """The content of a GGUF. The data of the tensors is not copied.

    `metadata` holds the values by key: numbers, bools and strings; an array of strings is a list, any other array is a
    memoryview of the file. `tensors` holds the places of the tensors by name.
    """

    def __init__(self, content: bytes | mmap.mmap, size: int | None = None) -> None:
        """
        Args:
            content: The content of the file, read or mapped.
            size: The size of the file in bytes, if `content` is only its beginning, with the whole header.

        Raises:
            InputError: When the file is not a complete GGUF of a supported version, or contradicts itself.
        """
        self._content = content
        self._size = len(content) if size is None else size
        self._at = len(MAGIC)
        if content[: len(MAGIC)] != MAGIC:
            raise InputError(f"not a GGUF file: it begins with {content[: len(MAGIC)]!r}")
        self.version: int = self._scalar("I")
        if self.version & 0xFFFF == 0 and self.version:
            raise InputError("a big-endian GGUF; only little-endian files are supported, so convert the model again")
        if self.version not in VERSIONS:
            raise InputError(
                f"GGUF version {self.version}; only versions 2 and 3 are supported; convert the model again"
            )
        n_tensors, n_values = self._scalar("Q"), self._scalar("Q")
        self._require(24 * n_tensors + 13 * n_values)  # the size of the shortest tensor and value
        self.metadata: dict[str, Any] = {}
        for _ in range(n_values):
            key = self._string()
            if key in self.metadata:
                raise InputError(f"two values for the key {key[:80]!r}")
            self.metadata[key] = self._value(key, self._scalar("I"))
        infos = [self._tensor_info() for _ in range(n_tensors)]
        self.tensors: dict[str, TensorInfo] = self._placed(infos)

    @classmethod
    def open(cls, path: Path) -> Container:
        """Map a file. Its tensors can be written to, but the changes never reach the file.

        Args:
            path: The path of the file.

        Raises:
            InputError: When the file cannot be read, or as the constructor does; the message names the file.
        """
        try:
            return cls(mapped(path, mmap.ACCESS_COPY))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    def data(self, name: str) -> memoryview:
        """Return the bytes of a tensor, without a copy."""
        info = self.tensors[name]
        return memoryview(self._content)[info.offset : info.offset + info.n_bytes]

    def release(self, offset: int, n_bytes: int) -> None:
        """Free the memory of a part of the file, which is read again when it is used again.

        Changes to that part are lost. Pages that are only partly within it are kept.

        Args:
            offset: The beginning of the part, in bytes.
            n_bytes: The size of the part.
        """
        first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (offset + n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if isinstance(self._content, mmap.mmap) and first < last and hasattr(mmap, "MADV_DONTNEED"):
            self._content.madvise(mmap.MADV_DONTNEED, first, last - first)

    def _require(self, n_bytes: int) -> None:
        if n_bytes > len(self._content) - self._at:
            raise self._truncated()

    def _truncated(self) -> InputError:
        return TruncatedHeaderError(
            f"the header continues beyond the end of the file ({len(self._content)} bytes): truncated or damaged"
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
            raise InputError(
                f"the value of {key[:80]!r} has the type {kind}, which does not exist; the file is damaged"
            )
        return self._scalar(_SCALARS[kind])

    def _array(self, key: str, kind: int, count: int) -> list[str] | memoryview:
        if kind == _STRING:
            return self._strings(count)
        if kind not in _SCALARS:
            raise InputError(f"{key[:80]!r} is an array of the type {kind}; only numbers and strings are supported")
        code = _SCALARS[kind]
        n_bytes = count * struct.calcsize("<" + code)
        self._require(n_bytes)
        self._at += n_bytes
        return memoryview(self._content)[self._at - n_bytes : self._at].cast(cast(Any, code))

    def _strings(self, count: int) -> list[str]:
        self._require(8 * count)
        found = _core.strings(self._content, self._at, count)
        if found is None:
            raise self._truncated()
        strings, self._at = found
        return strings

    def _tensor_info(self) -> tuple[str, TensorInfo]:
        name, n_dimensions = self._string(), self._scalar("I")
        if n_dimensions > _MOST_DIMENSIONS:
            raise InputError(
                f"the tensor {shown(name)} has {n_dimensions} dimensions; at most {_MOST_DIMENSIONS} are allowed"
            )
        shape = tuple(self._scalar("Q") for _ in range(n_dimensions))[::-1]
        number, offset = self._scalar("I"), self._scalar("Q")
        if number not in TENSOR_TYPES:
            raise InputError(
                f"the tensor {shown(name)} has the unknown type {number}; convert the model to a type that is supported"
            )
        kind, block, n_bytes = TENSOR_TYPES[number]
        if 0 in shape:
            raise InputError(f"the tensor {shown(name)} has the shape {list(shape)}, so it is empty")
        if (shape[-1] if shape else 1) % block:
            raise InputError(
                f"the tensor {shown(name)} has rows of {(shape or (1,))[-1]} numbers; {kind} needs a multiple of"
                f" {block}"
            )
        return name, TensorInfo(shape, kind, offset, prod(shape) // block * n_bytes)

    def _placed(self, infos: Iterable[tuple[str, TensorInfo]]) -> dict[str, TensorInfo]:
        """The tensors by name, with offsets from the beginning of the file. Refuses overlapping and truncated ones."""
        alignment = self.metadata.get(ALIGNMENT, 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
            raise InputError(f"{ALIGNMENT} is {shown(alignment)}; expected a multiple of 8")
        begin = -(-self._at // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for name, info in infos:
            if name in tensors:
                raise InputError(f"two tensors are called {shown(name)}")
            if info.offset % alignment:
                raise InputError(
                    f"the tensor {shown(name)} begins at {info.offset}, which is not aligned to {alignment}"
                )
            tensors[name] = info._replace(offset=begin + info.offset)
        places = sorted((info.offset, info.offset + info.n_bytes, name) for name, info in tensors.items())
        for (_, end, name), (offset, _, other) in pairwise(places):
            if offset < end:
                raise InputError(f"the tensors {shown(name)} and {shown(other)} overlap; the file is damaged")
        if places and places[-1][1] > self._size:
            raise InputError(
                f"the file ends at {self._size} bytes, but the tensor {shown(places[-1][2])} ends at"
                f" {places[-1][1]}; is the download incomplete?"
            )
        return tensors


def shown(value: Any) -> str:
    """Return a value of the metadata for a message, cut to some 60 characters."""
    text = repr(
        [*value[:_SHOWN]] if isinstance(value, memoryview) else value[:_SHOWN] if isinstance(value, list) else value
    )
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def mapped(path: Path, access: int = mmap.ACCESS_READ) -> mmap.mmap:
    """Map the content of a file into memory.

    Args:
        path: The path of the file.
        access: `mmap.ACCESS_READ`, or `mmap.ACCESS_COPY` for memory that can be changed without changing the file.

    Raises:
        OSError: When the file cannot be read.
        InputError: When the file is empty.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise InputError("the file is empty")
        return mmap.mmap(file.fileno(), 0, access=access)


def lay_out(
    metadata: Mapping[str, Any], tensors: Mapping[str, tuple[Sequence[int], str]]
) -> tuple[bytes, dict[str, TensorInfo]]:
    """Lay out a file of version 3.

    Args:
        metadata: The values by key: bool, int (written as uint32), float (written as float32), str, lists of str, and
            memoryviews of numbers.
        tensors: The shape and type of each tensor, by name.

    Returns:
        The part of the file that precedes the tensors, and the places of the tensors.
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

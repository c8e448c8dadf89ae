"""Safetensors files: read by mapping them into memory, and written one tensor at a time. Needs NumPy only.

A file holds the length of its header (8 bytes, little-endian), the header (JSON: dtype, shape and offsets of each
tensor) and the numbers. The package `safetensors` needs all tensors in memory at once to write a file, and loads torch
to read one.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from bpe.errors import InputError
from bpe.files import replacing
from bpe.formats.gguf_container import mapped
from model.checkpoint.weights import DTYPES, KINDS, StoredTensor, size_of
from model.dtypes import SIZES

MAPPED_AT_ONCE = 64 * 2**20
_LARGEST_HEADER = 100_000_000  # bytes, as in the package `safetensors`
# The bits of a number of each type.
_BITS = {
    **{kind: 8 * SIZES[dtype] for kind, dtype in DTYPES.items()},
    "I64": 64, "U64": 64, "C64": 64, "I32": 32, "U32": 32, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "F4_E2M1": 4,
}  # fmt: skip


class TensorPlace(NamedTuple):
    """The place of a tensor in a file, and its type."""

    kind: str
    """The type by safetensors' name, such as "BF16"."""
    shape: tuple[int, ...]
    offset: int
    """In bytes, from the beginning of the file."""
    n_bytes: int


class Header(NamedTuple):
    """The header of a file."""

    places: dict[str, TensorPlace]
    """The places of the tensors by name, in the order of the file."""
    notes: dict[str, str]
    """The metadata."""


def header_length(content: bytes | mmap.mmap) -> int:
    """Return the length of the header that a file begins with, the eight bytes of the length included.

    Raises:
        InputError: When the file is too short, or the length cannot be that of a header.
    """
    if len(content) < 8:
        raise InputError(f"it has {len(content)} bytes, too few for a header")
    length = int.from_bytes(content[:8], "little")
    if length > _LARGEST_HEADER:
        raise InputError(f"its header would have {length:,} bytes")
    return 8 + length


def parse_header(content: bytes | mmap.mmap, size: int) -> Header:
    """Return the header of a file, checked against the size of the file.

    Args:
        content: The file, or at least its header.
        size: The size of the file, in bytes.

    Raises:
        InputError: When the header is damaged, or the tensors do not fill the rest of the file.
    """
    begin = header_length(content)
    if begin > size:
        raise InputError("its header continues beyond its end")
    try:
        entries = json.loads(content[8:begin], object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise InputError(f"its header is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise InputError("its header is no JSON object")
    notes = entries.pop("__metadata__", {}) or {}
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise InputError("its metadata is no object of strings")
    places = sorted(
        ((name, _place(name, entry, begin)) for name, entry in entries.items()), key=lambda item: item[1].offset
    )
    ends = [begin, *(place.offset + place.n_bytes for _, place in places)]
    for (name, place), end in zip(places, ends, strict=False):
        if place.offset != end:
            raise InputError(f"the tensor {name!r} begins at byte {place.offset}, but the one before it ends at {end}")
    if ends[-1] != size:
        raise InputError(f"it has {size:,} bytes, but its header describes {ends[-1]:,}")
    return Header(dict(places), notes)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len({*names}) < len(names):
        raise ValueError(f"two values for {next(name for name, other in pairwise(sorted(names)) if name == other)!r}")
    return dict(pairs)


def _place(name: str, entry: Any, begin: int) -> TensorPlace:
    try:
        kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        counts = [*shape, start, end]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"the entry of the tensor {name!r} is damaged") from None
    if kind not in _BITS or not all(type(count) is int and count >= 0 for count in counts):
        raise InputError(f"the entry of the tensor {name!r} has the type {kind!r}, or numbers that are no sizes")
    if 8 * (end - start) != math.prod(shape) * _BITS[kind]:
        raise InputError(f"the tensor {name!r} has {end - start} bytes, which is not {kind} {shape}")
    return TensorPlace(kind, tuple(shape), begin + start, end - start)


def read_header(path: Path) -> Header:
    """Read the header of a file.

    Raises:
        InputError: When the file is not a complete safetensors file.
    """
    content = _mapped(path)
    try:
        return parse_header(content, len(content))
    except InputError as error:
        raise _not_whole(path, error) from None


def read_weights(path: Path) -> Iterator[StoredTensor]:
    """Yield each tensor in a file, under the name in the file. The bytes are mapped: pages are loaded when first read.

    Changes to the bytes never reach the file. Loaded pages stay in memory as long as any tensor of the same mapping
    exists. The file is therefore mapped again after every `MAPPED_AT_ONCE` bytes: a caller who converts and drops the
    tensors has the model in memory once.

    Raises:
        InputError: When the file is not a complete safetensors file.
    """
    position, places = 0, [*read_header(path).places.items()]
    while position < len(places):
        view, size = memoryview(_mapped(path)), 0
        while position < len(places) and size < MAPPED_AT_ONCE:
            name, (kind, shape, offset, n_bytes) = places[position]
            yield StoredTensor(name, shape, kind, view[offset : offset + n_bytes])
            size += n_bytes
            position += 1
        del view


def _mapped(path: Path) -> mmap.mmap:
    try:
        return mapped(path, mmap.ACCESS_COPY)
    except InputError as error:
        raise _not_whole(path, error) from None
    except OSError as error:
        raise _not_whole(path, error.strerror) from None


def _not_whole(path: Path, reason: object) -> InputError:
    return InputError(f"{path}: not a complete safetensors file ({reason}); it may be truncated, so download it again")


def write_tensors(
    files: Mapping[Path, Mapping[str, tuple[int, ...]]],
    dtype: str,
    tensors: Iterable[tuple[str, memoryview]],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write tensors into one or several files, one tensor in memory at a time.

    The files get their final names once all of them are complete.

    Args:
        files: For each path, the names and shapes of its tensors.
        dtype: The name of the dtype of all tensors in the files.
        tensors: Names and bytes, in any order; every name in `files` must occur.
        notes: Metadata for the headers.
    """
    with ExitStack() as stack:
        places: dict[str, tuple[BinaryIO, int]] = {}
        for path, shapes in files.items():
            file: BinaryIO = stack.enter_context(open(stack.enter_context(replacing(path)), "wb"))
            header: dict[str, Any] = {"__metadata__": {"format": "pt", **(notes or {})}}
            offsets, offset = {}, 0
            for name, shape in shapes.items():
                size = size_of(shape) * SIZES[dtype]
                header[name] = {"dtype": KINDS[dtype], "shape": [*shape], "data_offsets": [offset, offset + size]}
                offsets[name] = offset
                offset += size
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            file.write(len(text).to_bytes(8, "little") + text)
            places |= {name: (file, 8 + len(text) + offset) for name, offset in offsets.items()}
        for name, data in tensors:
            file, offset = places.pop(name)
            file.seek(offset)
            file.write(data)
        assert not places, f"not written: {', '.join(places)}"

"""Safetensors files: read by mapping them into memory, and written one tensor at a time.

A file holds the length of its header (8 bytes, little-endian), the header (JSON: dtype, shape and offsets of each
tensor) and the numbers. The package `safetensors` reads files, but needs all tensors in memory at once to write one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bpe.errors import InputError
from bpe.files import replacing

MAPPED_AT_ONCE = 64 * 2**20
_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def read_dtypes(path: Path) -> dict[str, torch.dtype | None]:
    """Read the dtype of each tensor in a file by name, from the header alone.

    Returns:
        The dtypes; None for a type other than floating-point numbers of 16, 32 or 64 bits.

    Raises:
        InputError: When the file is not a complete safetensors file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: _DTYPES.get(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _not_whole(path, error) from None


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and tensor of each tensor in a file. The tensors are mapped: pages are loaded when first read.

    Loaded pages stay in memory as long as any tensor of the same mapping exists. The file is therefore mapped again
    after every `MAPPED_AT_ONCE` bytes: a caller who converts and drops the tensors has the model in memory once.

    Raises:
        InputError: When the file is not a complete safetensors file.
    """
    names = [*read_dtypes(path)]
    position = 0
    try:
        while position < len(names):
            with safe_open(path, framework="pt", device="cpu") as file:
                size = 0
                while position < len(names) and size < MAPPED_AT_ONCE:
                    tensor = file.get_tensor(names[position])
                    size += tensor.nbytes
                    yield names[position], tensor
                    del tensor
                    position += 1
    except (SafetensorError, OSError) as error:
        raise _not_whole(path, error) from None


def read_notes(path: Path) -> dict[str, str]:
    """Read the metadata in the header of a file.

    Raises:
        InputError: When the file is not a complete safetensors file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _not_whole(path, error) from None


def _not_whole(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not a complete safetensors file ({error}); it may be truncated, so download it again")


def write_tensors(
    files: Mapping[Path, Mapping[str, torch.Size]],
    dtype: torch.dtype,
    tensors: Iterable[tuple[str, Tensor]],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write tensors into one or several files, one tensor in memory at a time.

    The files get their final names once all of them are complete.

    Args:
        files: For each path, the names and shapes of its tensors.
        dtype: The dtype of all tensors in the files.
        tensors: Names and tensors, in any order; every name in `files` must occur.
        notes: Metadata for the headers.
    """
    with ExitStack() as stack:
        places: dict[str, tuple[BinaryIO, int]] = {}
        for path, shapes in files.items():
            file: BinaryIO = stack.enter_context(open(stack.enter_context(replacing(path)), "wb"))
            header: dict[str, Any] = {"__metadata__": {"format": "pt", **(notes or {})}}
            offsets, offset = {}, 0
            for name, shape in shapes.items():
                size = shape.numel() * dtype.itemsize
                header[name] = {"dtype": _NAMES[dtype], "shape": [*shape], "data_offsets": [offset, offset + size]}
                offsets[name] = offset
                offset += size
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            file.write(len(text).to_bytes(8, "little") + text)
            places |= {name: (file, 8 + len(text) + offset) for name, offset in offsets.items()}
        for name, tensor in tensors:
            file, offset = places.pop(name)
            file.seek(offset)
            file.write(tensor.to(dtype).contiguous().flatten().view(torch.uint8).numpy().data)
        assert not places, f"not written: {', '.join(places)}"

"""Safetensors files: mapped when they are read, and written tensor by tensor.

The layout of a file is its header's length (8 bytes, little-endian), the header (JSON: dtype, shape and place of each
tensor), and the numbers. The package `safetensors` reads it; to write, it wants all tensors in memory at once.
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
    """The names of the tensors in a file and their dtypes, None for others than floating-point ones of 16 bits and up.

    Only the header is read; that the numbers are all there is made sure of, too.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: _DTYPES.get(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _not_whole(path, error) from None


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file, mapped: they take no memory until their numbers are looked at.

    What was looked at stays in memory as long as any tensor of the same mapping is there, so the file is mapped anew
    after every `MAPPED_AT_ONCE` bytes: whoever converts the tensors and drops them has the model in memory once.
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
    """What the header of a file says beside its tensors."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _not_whole(path, error) from None


def _not_whole(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not a whole safetensors file ({error}); it may be truncated, so fetch it again")


def write_tensors(
    files: Mapping[Path, Mapping[str, torch.Size]],
    dtype: torch.dtype,
    tensors: Iterable[tuple[str, Tensor]],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write `tensors`, in any order, into the files that are to hold them; all in dtype. The headers have the `notes`.

    The files take their names when all of them are whole. No more than one tensor is held at a time.
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

"""The dtypes of weights, by the names that torch and safetensors' tools give them. Nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, Union

from bpe.errors import InputError

if TYPE_CHECKING:
    import torch

DType: TypeAlias = Union[str, "torch.dtype"]
"""A dtype: its name, such as "bfloat16", or torch's object."""

SIZES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
"""The bytes of a number, by the name of its dtype."""


def dtype_name(dtype: DType) -> str:
    """Return the name of a dtype.

    Raises:
        InputError: When it is not a floating-point dtype of 16, 32 or 64 bits.

    >>> dtype_name("bfloat16")
    'bfloat16'
    """
    name = str(dtype).removeprefix("torch.")
    if name not in SIZES:
        raise InputError(f"there is no dtype {name!r} for weights; choose one of {', '.join(SIZES)}")
    return name

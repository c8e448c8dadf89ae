"""What all formats share: the tensors of an opened checkpoint are checked one by one and assembled into a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bpe.errors import InputError
from model.checkpoint.checking import TensorCheck
from model.checkpoint.dequantize import WEIGHT_DTYPES, torch_dtype
from model.checkpoint.opened import Checkpoint
from model.checkpoint.weights import EMBEDDINGS, KINDS, TIED, StoredTensor, expected_shapes
from model.config import ModelConfig
from model.cpu import widen
from model.transformer import Transformer

_DRAWING = (nn.init.normal_, nn.init.kaiming_uniform_, nn.init.uniform_, Tensor.normal_, Tensor.uniform_)


class _WithoutStartValues(TorchFunctionMode):
    """Skips random initialisation, whose values would be overwritten.

    To draw numbers on the meta device, torch imports 800 modules, 74 MB.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return None if func in _DRAWING else func(*args, **(kwargs or {}))


def shell(config: ModelConfig) -> Transformer:
    """Return a model on the meta device: its weights have shapes, but no values and no memory."""
    with torch.device("meta"), _WithoutStartValues():
        return Transformer(config)


def checked_tensors(
    checkpoint: Checkpoint, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of `expected_shapes` once, in the order of the file.

    Args:
        checkpoint: The checkpoint to read.
        dtype: The dtype of the tensors. Defaults to the dtype of the checkpoint.
        device: The device of the tensors.

    Yields:
        Meta's name and the tensor.

    Raises:
        InputError: When a tensor is missing (found only at the end), unknown, misshapen, duplicated or not
            floating-point, when it has a number that is not finite in the file or in `dtype`, or when an output matrix
            differs from the embeddings that it is tied to. The message names the tensor and the file.
    """
    source, dtype = checkpoint.source, dtype or torch_dtype(checkpoint.dtype)
    check = TensorCheck(checkpoint)
    twin: Tensor | None = None
    for name, tensor in checkpoint.tensors(dtype):
        theirs = check.admit(name, tuple(tensor.shape))
        if tensor.dtype not in WEIGHT_DTYPES.values():
            raise InputError(
                f"{source}: {theirs} holds {tensor.dtype}; expected floating-point numbers of 16, 32 or 64 bits"
            )
        if not _all_finite(tensor):
            raise InputError(f"{source}: {theirs} contains NaN or infinity; the file is damaged")
        converted = tensor.to(device=device, dtype=dtype)
        if torch.finfo(dtype).max < torch.finfo(tensor.dtype).max and not _all_finite(converted):
            raise InputError(
                f"{source}: {theirs} holds numbers beyond the range of {dtype}; use torch.bfloat16 instead"
            )
        if check.is_tied(name):
            if twin is None:
                twin = converted
            elif not torch.equal(twin, converted):
                raise check.differing()
        if name in check.expected:
            yield name, converted
    check.finish()


def bytes_of(tensor: Tensor, dtype: torch.dtype | None = None) -> memoryview:
    """Return the bytes of a tensor on the CPU, after conversion to a dtype."""
    data: memoryview = tensor.to(dtype or tensor.dtype).contiguous().flatten().view(torch.uint8).numpy().data
    return data


def checked_bytes(checkpoint: Checkpoint) -> Iterator[tuple[str, memoryview]]:
    """Yield the name and the bytes of every tensor in the dtype of the checkpoint; raise as `checked_tensors` does."""
    for name, tensor in checked_tensors(checkpoint):
        yield name, bytes_of(tensor)


def computed_weights(checkpoint: Checkpoint) -> Iterator[StoredTensor]:
    """Yield every tensor of a checkpoint as bytes in the dtype of the checkpoint; raise as `checked_tensors` does."""
    for name, tensor in checked_tensors(checkpoint):
        yield StoredTensor(name, tuple(tensor.shape), KINDS[checkpoint.dtype], bytes_of(tensor))


class Fingerprint:
    """A hash of a model's weights as float32, independent of their format and order, built tensor by tensor."""

    def __init__(self, config: ModelConfig) -> None:
        self._digests = dict.fromkeys(expected_shapes(config), b"")

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a tensor under Meta's name; unknown tensors, and the second name of tied embeddings, are ignored."""
        if name in self._digests:
            self._digests[name] = hashlib.sha256(bytes_of(tensor.detach(), torch.float32)).digest()

    def hexdigest(self) -> str:
        """Return the hash of all added tensors, in hexadecimal."""
        return hashlib.sha256(b"".join(self._digests.values())).hexdigest()


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return the hash of a checkpoint's weights.

    Raises:
        InputError: As `checked_tensors` does.
    """
    found = Fingerprint(checkpoint.config)
    for name, tensor in checked_tensors(checkpoint, torch.float32):
        found.add(name, tensor)
    return found.hexdigest()


def assemble(checkpoint: Checkpoint, dtype: torch.dtype | None, device: torch.device) -> Transformer:
    """Return the model of a checkpoint.

    The model is built without memory of its own and takes over the tensors of the checkpoint, so no weight is held
    twice. A weight is copied only if dtype or device require it.

    Args:
        checkpoint: The checkpoint to read.
        dtype: The dtype of the weights; None keeps the dtype of the checkpoint.
        device: The device of the weights.

    Raises:
        InputError: As `checked_tensors` does.
    """
    weights = dict(checked_tensors(checkpoint, dtype, device))
    if checkpoint.config.tied_embeddings:
        weights[TIED] = weights[EMBEDDINGS]
    model = shell(checkpoint.config)
    model.load_state_dict(weights, assign=True)
    if checkpoint.config.tied_embeddings:
        model.output.weight = model.tok_embeddings.weight
    widen(model)
    return model


def _all_finite(tensor: Tensor) -> bool:
    # Minimum and maximum are NaN if any number is NaN. Unlike isfinite, aminmax needs no memory of the tensor's size.
    smallest, largest = torch.aminmax(tensor)
    return bool(torch.isfinite(smallest)) and bool(torch.isfinite(largest))

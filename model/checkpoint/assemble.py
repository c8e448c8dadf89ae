"""What all formats share: a checkpoint that was opened, its tensors checked one by one, and the model made of them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bpe.errors import InputError
from model.checkpoint.opened import DTYPES, EMBEDDINGS, TIED, Checkpoint
from model.config import ModelConfig
from model.cpu import widen
from model.transformer import Transformer

_DRAWING = (nn.init.normal_, nn.init.kaiming_uniform_, nn.init.uniform_, Tensor.normal_, Tensor.uniform_)


class _WithoutStartValues(TorchFunctionMode):
    """Leaves out what would be overwritten. To draw numbers on the meta device, torch imports 800 modules, 74 MB."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return None if func in _DRAWING else func(*args, **(kwargs or {}))


def shell(config: ModelConfig) -> Transformer:
    """A model whose weights have shapes, but neither values nor memory."""
    with torch.device("meta"), _WithoutStartValues():
        return Transformer(config)


def expected_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Names and shapes of a model's tensors, in the model's order; tied embeddings once."""
    return dict(_shapes(config))


@functools.lru_cache(maxsize=1)  # to load a model they are asked for several times, at 20 ms
def _shapes(config: ModelConfig) -> dict[str, torch.Size]:
    shapes = {name: tensor.shape for name, tensor in shell(config).state_dict().items()}
    if config.tied_embeddings:
        del shapes[TIED]
    return shapes


def checked_tensors(
    checkpoint: Checkpoint, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of `expected_shapes` once, in the order of the file, in dtype (None: the checkpoint's) on device.

    Raises InputError, naming tensor and source, where one is missing, unknown, misshapen, there twice, of no
    floating-point dtype, or holds a number that is not finite, in the file or in dtype; and where an output matrix
    differs from the embeddings that it is tied to. What is missing turns out at the end.
    """
    config, source, dtype = checkpoint.config, checkpoint.source, dtype or checkpoint.dtype
    expected = expected_shapes(config)
    tied = {EMBEDDINGS: expected[EMBEDDINGS], TIED: expected[EMBEDDINGS]} if config.tied_embeddings else {}
    missing = dict.fromkeys(expected)
    seen: set[str] = set()
    twin: Tensor | None = None
    for name, tensor in checkpoint.tensors(dtype):
        theirs = checkpoint.name_of(name)
        shape = tied.get(name) or expected.get(name)
        if shape is None:
            raise InputError(f"{source}: a tensor {theirs!r} that a model of this configuration does not have")
        if name in seen:
            raise InputError(f"{source}: two tensors {theirs!r}")
        if tensor.shape != shape:
            raise InputError(f"{source}: {theirs} has the shape {list(tensor.shape)}, expected {list(shape)}")
        if tensor.dtype not in DTYPES:
            raise InputError(
                f"{source}: {theirs} holds {tensor.dtype}, expected floating-point numbers of 16, 32 or 64 bits"
            )
        if not _all_finite(tensor):
            raise InputError(
                f"{source}: {theirs} holds numbers that are not finite (NaN or infinity); the file is damaged"
            )
        converted = tensor.to(device=device, dtype=dtype)
        if torch.finfo(dtype).max < torch.finfo(tensor.dtype).max and not _all_finite(converted):
            raise InputError(
                f"{source}: {theirs} holds numbers beyond the range of {dtype}; take torch.bfloat16 instead"
            )
        seen.add(name)
        missing.pop(name, None)
        if name in tied:
            if twin is None:
                twin = converted
            elif not torch.equal(twin, converted):
                output, embeddings = map(checkpoint.name_of, (TIED, EMBEDDINGS))
                raise InputError(f"{source}: {output} differs from {embeddings}, but the configuration ties them")
        if name in expected:
            yield name, converted
    if missing:
        names = ", ".join(checkpoint.name_of(name) for name in [*missing][:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{source}: without {names}{more}; the file is incomplete, or of another model")


class Fingerprint:
    """A hash of a model's weights as float32, whatever format and order they come in; made while they pass by."""

    def __init__(self, config: ModelConfig) -> None:
        self._digests = dict.fromkeys(expected_shapes(config), b"")

    def add(self, name: str, tensor: Tensor) -> None:
        """Take a tensor in; one that the model has not counts for nothing, nor does tied embeddings' second name."""
        if name in self._digests:
            numbers = tensor.detach().float().contiguous().flatten().view(torch.uint8).numpy().data
            self._digests[name] = hashlib.sha256(numbers).digest()

    def hexdigest(self) -> str:
        """In hexadecimal, of all that were taken in."""
        return hashlib.sha256(b"".join(self._digests.values())).hexdigest()


def fingerprint(checkpoint: Checkpoint) -> str:
    """The hash of a checkpoint's weights. Raises InputError as `checked_tensors` does."""
    found = Fingerprint(checkpoint.config)
    for name, tensor in checked_tensors(checkpoint, torch.float32):
        found.add(name, tensor)
    return found.hexdigest()


def assemble(checkpoint: Checkpoint, dtype: torch.dtype | None, device: torch.device) -> Transformer:
    """The model of a checkpoint. Its weights are the tensors themselves, or copies where dtype or device ask for them.

    The model is built without memory of its own and takes tensor by tensor, so no weight is held twice. With dtype
    None, weights get the dtype of the checkpoint. Raises InputError as `checked_tensors` does.
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
    # The extremes are NaN if any number is; unlike isfinite, this takes no memory of the tensor's size.
    smallest, largest = torch.aminmax(tensor)
    return bool(torch.isfinite(smallest)) and bool(torch.isfinite(largest))

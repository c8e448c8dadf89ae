"""The tensors of Meta's .pth files, read by torch: those of several devices are joined."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bpe.errors import InputError
from model.checkpoint.weights import EMBEDDINGS, TIED, expected_shapes
from model.config import ModelConfig

_DERIVED = ("rope.freqs",)  # in some of Meta's files; computed from the configuration


def read_shard(path: Path) -> dict[str, Tensor]:
    """Map the tensors of a file.

    Raises:
        InputError: When the file is not complete, or holds something other than tensors, which is never loaded.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: contains something other than tensors, which is never loaded ({reason})") from None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: not a complete PyTorch checkpoint ({reason}); the file may be truncated, so download it again"
        ) from None
    if not isinstance(weights, dict):
        raise InputError(f"{path}: contains a {type(weights).__name__}; expected a dictionary of tensors")
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{path}: {name!r} is a {type(value).__name__}; expected tensors only")
    return {name: tensor for name, tensor in weights.items() if name not in _DERIVED}


def joined(source: Path, shards: Sequence[Mapping[str, Tensor]], config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Return the tensors of the files of all devices, whole.

    Args:
        source: The path that error messages name.
        shards: The tensors of each file.
        config: The configuration of the model.

    Raises:
        InputError: When the files do not belong together.
    """
    expected = expected_shapes(config)
    expected[TIED] = expected[EMBEDDINGS]
    return join_all(source, shards, expected)


def join_all(
    source: Path, shards: Sequence[Mapping[str, Tensor]], expected: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the files of all devices, whole, as `joined` does, given the shapes of the whole tensors."""
    for name in dict.fromkeys(name for shard in shards for name in shard):
        parts = [shard[name] for shard in shards if name in shard]
        if len(parts) < len(shards):
            raise InputError(
                f"{source}: {name} is in only {len(parts)} of {len(shards)} files; the files do not belong together"
            )
        yield name, parts[0] if len(parts) == 1 else _join(source, name, parts, expected.get(name, parts[0].shape))


def _join(source: Path, name: str, parts: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Return the whole tensor from the parts of several devices.

    A tensor is split along the axis in which the shape of its parts differs from `shape`: along the outputs of wq, wk,
    wv, w1, w3 and output, along the inputs of wo and w2, and along either axis of the embeddings (Llama 1 and 2 split
    dim, Llama 3 the vocabulary). Tensors that devices share, such as norms, and key-value heads if there are fewer of
    them than devices, must be equal in all files that hold them.
    """
    first = parts[0]
    if any(part.shape != first.shape or part.dtype != first.dtype for part in parts):
        raise InputError(
            f"{source}: {name} has different shapes or dtypes in the files; the files do not belong together"
        )
    cut = [axis for axis in range(len(shape)) if first.dim() == len(shape) and first.shape[axis] != shape[axis]]
    axis = cut[0] if cut else 0
    total = len(parts) * first.shape[axis] if first.dim() else 0
    copies = total // shape[axis] if shape[axis] else 0
    if first.dim() != len(shape) or len(cut) > 1 or copies == 0 or total != copies * shape[axis]:
        raise InputError(
            f"{source}: {name} has the shape {list(first.shape)} in each of {len(parts)} files, which does not add up"
            f" to {list(shape)}; is consolidated.{len(parts):02}.pth missing?"
        )
    for index, part in enumerate(parts):
        if not torch.equal(part, parts[index - index % copies]):
            raise InputError(
                f"{source}: {name} differs between files that must agree; the files do not belong together"
            )
    whole = [*parts[::copies]]
    return first if len(whole) == 1 else torch.cat(whole, dim=axis)


def differs_from_embeddings(source: Path, shards: Sequence[Mapping[str, Tensor]], config: ModelConfig) -> bool:
    """Return whether the files have an output matrix with other numbers than the embeddings."""
    if not all(name in shard for shard in shards for name in (EMBEDDINGS, TIED)):
        return False
    embeddings, outputs = ([shard[name] for shard in shards] for name in (EMBEDDINGS, TIED))
    if all(one.data_ptr() == other.data_ptr() for one, other in zip(embeddings, outputs, strict=True)):
        return False
    shape = (config.vocab_size, config.dim)
    return not torch.equal(*(_join(source, TIED, parts, shape) for parts in (embeddings, outputs)))

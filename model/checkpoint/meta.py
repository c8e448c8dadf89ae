"""Meta's own format: a directory with params.json, tokenizer.model, and the weights in consolidated.00.pth.

Larger models are split across several devices, with one file for each: consolidated.00.pth, consolidated.01.pth, ...
"""

from __future__ import annotations

import dataclasses
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bpe.errors import InputError
from bpe.files import replacing, write_json
from model.checkpoint.assemble import checked_tensors, expected_shapes
from model.checkpoint.companions import read_companions, read_tokenizer, write_companions
from model.checkpoint.opened import EMBEDDINGS, TIED, Checkpoint, config_from, read_json
from model.config import ModelConfig

PARAMS, WEIGHTS = "params.json", "consolidated.00.pth"
DESCRIPTION = f"{PARAMS} with {WEIGHTS}"
_DERIVED = ("rope.freqs",)  # in some of Meta's files; computed from the configuration
_SHARDS = "consolidated.*.pth"


def recognises(path: Path) -> bool:
    """Return whether the path is a directory in this format, or a file in such a directory."""
    directory = path if path.is_dir() else path.parent
    return (directory / PARAMS).is_file() and any(directory.glob(_SHARDS))


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint that `recognises` accepts. Only tensors are loaded; no pickle is executed.

    If the file has an output matrix that differs from the embedding matrix, the model is untied even if the
    configuration says that it is tied.

    Raises:
        InputError: When a file is missing or damaged, or holds something other than tensors; the message names it.
    """
    directory = path if path.is_dir() else path.parent
    paths = _numbered(directory)
    shards = [_read(path) for path in paths]
    params = read_json(directory / PARAMS)
    embeddings = [shard[EMBEDDINGS] for shard in shards if EMBEDDINGS in shard]
    if params.get("vocab_size") == -1 and embeddings and isinstance(params.get("dim"), int) and params["dim"] > 0:
        # Llama 1 and 2 leave vocab_size to the tokenizer. The quotient is right for either axis of the split.
        params["vocab_size"] = sum(part.numel() for part in embeddings) // params["dim"]
    config = config_from(directory / PARAMS, ModelConfig.from_params, params)
    source = paths[0] if len(paths) == 1 else directory
    if config.tied_embeddings and embeddings and all(TIED in shard for shard in shards):
        shape = torch.Size((config.vocab_size, config.dim))
        outputs = [shard[TIED] for shard in shards]
        same = all(one.data_ptr() == other.data_ptr() for one, other in zip(embeddings, outputs, strict=True))
        if not same and not torch.equal(*(_join(source, TIED, parts, shape) for parts in (embeddings, outputs))):
            config = dataclasses.replace(config, tied_embeddings=False)
    dtype = embeddings[0].dtype if embeddings else torch.float32
    return Checkpoint(
        config, dtype, source, directory, lambda dtype: _joined(source, shards, config), **read_companions(directory)
    )


def _numbered(directory: Path) -> list[Path]:
    """Return consolidated.00.pth and all that follow; none may be missing."""
    numbers = {int(match[1]) for path in directory.glob(_SHARDS) if (match := re.search(r"\.(\d+)\.pth$", path.name))}
    missing = [number for number in range(max(numbers, default=0) + 1) if number not in numbers]
    if missing:
        raise InputError(
            f"{directory}: consolidated.{missing[0]:02}.pth is missing, one of at least"
            f" {max(numbers, default=0) + 1} files; download it again"
        )
    return [directory / f"consolidated.{number:02}.pth" for number in sorted(numbers)]


def _read(path: Path) -> dict[str, Tensor]:
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


def _joined(source: Path, shards: Sequence[Mapping[str, Tensor]], config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    expected = expected_shapes(config)
    expected[TIED] = expected[EMBEDDINGS]
    for name in dict.fromkeys(name for shard in shards for name in shard):
        parts = [shard[name] for shard in shards if name in shard]
        if len(parts) < len(shards):
            raise InputError(
                f"{source}: {name} is in only {len(parts)} of {len(shards)} files; the files do not belong together"
            )
        yield name, parts[0] if len(parts) == 1 else _join(source, name, parts, expected.get(name, parts[0].shape))


def _join(source: Path, name: str, parts: Sequence[Tensor], shape: torch.Size) -> Tensor:
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


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a directory in this format with one file of weights. Tied embeddings are stored once, under both names.

    Raises:
        InputError: As `checked_tensors` does.
    """
    path.mkdir(parents=True, exist_ok=True)
    write_companions(checkpoint, path)
    if not (
        path / "tokenizer.model"
    ).is_file():  # what Meta's code reads: ranks only, so the tokenizer file is kept beside it
        read_tokenizer(checkpoint).save(path / "tokenizer.model")
    write_json(path / PARAMS, checkpoint.config.to_params())
    # torch.save writes the whole storage of a tensor, so a tensor that is only a part of its storage is copied.
    weights = {
        name: tensor if tensor.nbytes == tensor.untyped_storage().nbytes() else tensor.clone()
        for name, tensor in checked_tensors(checkpoint)
    }
    if checkpoint.config.tied_embeddings:
        weights[TIED] = weights[EMBEDDINGS]
    with replacing(path / WEIGHTS) as file:
        torch.save(weights, file)

"""Meta's own format: a directory with consolidated.00.pth, params.json and tokenizer.model."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import torch

from bpe.errors import InputError
from model.checkpoint.assemble import EMBEDDINGS, TIED, Checkpoint, read_config

PARAMS = "params.json"
DESCRIPTION = f"{PARAMS} with consolidated.00.pth"
_DERIVED = ("rope.freqs",)  # in some of Meta's files; follows from the configuration


def recognises(path: Path) -> bool:
    """Whether this is a directory of this format, or a file in one."""
    directory = path if path.is_dir() else path.parent
    return (directory / "consolidated.00.pth").is_file() and (directory / PARAMS).is_file()


def open_checkpoint(path: Path) -> Checkpoint:
    """What `recognises` accepts, opened. No pickle is executed: tensors only.

    A file that has an output matrix of its own makes an untied model, whatever the configuration says, unless it is the
    embedding matrix once more.
    """
    directory = path if path.is_dir() else path.parent
    paths = sorted(directory.glob("consolidated.*.pth"))
    if len(paths) > 1:
        raise InputError(
            f"{directory}: {len(paths)} files consolidated.*.pth, a model cut for {len(paths)} devices; "
            "only one file is read, so convert it to Hugging Face's format or merge it first"
        )
    path = paths[0]
    config = read_config(directory / PARAMS)
    weights = {name: tensor for name, tensor in _read(path).items() if name not in _DERIVED}
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{path}: {name!r} is a {type(value).__name__}; expected tensors only")
    embeddings, output = weights.get(EMBEDDINGS), weights.get(TIED)
    if config.tied_embeddings and embeddings is not None and output is not None and not torch.equal(embeddings, output):
        config = dataclasses.replace(config, tied_embeddings=False)
    dtype = torch.float32 if embeddings is None else embeddings.dtype
    return Checkpoint(config, dtype, path, directory, lambda: iter(weights.items()))


def _read(path: Path) -> dict[str, Any]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: holds something other than tensors, which is not loaded ({reason})") from None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a whole PyTorch checkpoint ({reason}); it may be truncated") from None
    if not isinstance(weights, dict):
        raise InputError(f"{path}: holds a {type(weights).__name__}; expected tensors by name")
    return weights

"""Meta's own format: a directory with consolidated.00.pth, params.json and tokenizer.model."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import torch

from bpe.errors import InputError
from model.checkpoint.assemble import TIED, assemble, read_config
from model.transformer import Transformer

PARAMS = "params.json"
DESCRIPTION = f"{PARAMS} with consolidated.00.pth"
_DERIVED = ("rope.freqs",)  # in some of Meta's files; follows from the configuration


def recognises(directory: Path) -> bool:
    """Whether a directory looks like this format."""
    return (directory / "consolidated.00.pth").is_file() and (directory / PARAMS).is_file()


def load(directory: Path, dtype: torch.dtype | None, device: torch.device) -> Transformer:
    """The model of a directory that `recognises` accepts. No pickle is executed: tensors only.

    A file that has an output matrix of its own makes an untied model, whatever the configuration says, unless it is the
    embedding matrix once more.
    """
    paths = sorted(directory.glob("consolidated.*.pth"))
    if len(paths) > 1:
        raise InputError(
            f"{directory}: {len(paths)} files consolidated.*.pth, a model cut for {len(paths)} devices; "
            "only one file is read, so convert it to Hugging Face's format or merge it first"
        )
    path = paths[0]
    config = read_config(directory / PARAMS)
    weights = _read(path)
    weights = {name: tensor for name, tensor in weights.items() if name not in _DERIVED}
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{path}: {name!r} is a {type(value).__name__}; expected tensors only")
    embeddings, output = weights.get("tok_embeddings.weight"), weights.get(TIED)
    if config.tied_embeddings and embeddings is not None and output is not None and not torch.equal(embeddings, output):
        config = dataclasses.replace(config, tied_embeddings=False)
    return assemble(config, weights.items(), path, dtype, device)


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

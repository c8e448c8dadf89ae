"""This project's own format: a directory with model.safetensors, params.json (Meta's keys) and the tokenizer file."""

from __future__ import annotations

from pathlib import Path

import torch

from bpe.files import write_json
from model.checkpoint.assemble import checked_tensors, expected_shapes
from model.checkpoint.companions import read_companions, write_companions
from model.checkpoint.opened import EMBEDDINGS, Checkpoint, read_params
from model.checkpoint.tensor_files import read_dtypes, read_tensors, write_tensors

WEIGHTS, PARAMS = "model.safetensors", "params.json"
DESCRIPTION = f"{PARAMS} with {WEIGHTS}"


def recognises(path: Path) -> bool:
    """Return whether the path is a directory in this format, or a file in such a directory."""
    directory = path if path.is_dir() else path.parent
    return all((directory / name).is_file() for name in (WEIGHTS, PARAMS))


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint that `recognises` accepts.

    Raises:
        InputError: When a file is damaged or its content is invalid; the message names it.
    """
    directory = path if path.is_dir() else path.parent
    weights = directory / WEIGHTS
    return Checkpoint(
        config=read_params(directory / PARAMS),
        dtype=read_dtypes(weights).get(EMBEDDINGS) or torch.float32,
        source=weights,
        tokenizer=directory,
        tensors=lambda dtype: read_tensors(weights),
        **read_companions(directory),
    )


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a model directory. Each file is replaced as a whole, the weights last.

    Raises:
        InputError: As `checked_tensors` does.
    """
    path.mkdir(parents=True, exist_ok=True)
    write_companions(checkpoint, path)
    write_json(path / PARAMS, checkpoint.config.to_params())
    shapes = expected_shapes(checkpoint.config)
    write_tensors({path / WEIGHTS: shapes}, checkpoint.dtype, checked_tensors(checkpoint))

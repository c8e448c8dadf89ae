"""This project's own format: a directory with model.safetensors, params.json (Meta's keys) and the tokenizer file."""

from __future__ import annotations

from pathlib import Path

from bpe.files import write_json
from model.checkpoint.companions import read_companions, write_companions
from model.checkpoint.opened import Checkpoint, read_params
from model.checkpoint.tensor_files import read_header, read_weights, write_tensors
from model.checkpoint.weights import DTYPES, EMBEDDINGS, expected_shapes

WEIGHTS, PARAMS = "model.safetensors", "params.json"
DESCRIPTION = f"{PARAMS} with {WEIGHTS}"


def recognises(path: Path) -> bool:
    """Return whether the path is a directory in this format, or a file in such a directory."""
    directory = path if path.is_dir() else path.parent
    return all((directory / name).is_file() for name in (WEIGHTS, PARAMS))


def open_checkpoint(path: Path, ignore_unknown: bool = False) -> Checkpoint:
    """Open a checkpoint that `recognises` accepts.

    Raises:
        InputError: When a file is damaged or its content is invalid; the message names it.
    """
    directory = path if path.is_dir() else path.parent
    weights = directory / WEIGHTS
    kinds = {name: place.kind for name, place in read_header(weights).places.items()}
    return Checkpoint(
        config=read_params(directory / PARAMS, ignore_unknown),
        dtype=DTYPES.get(kinds.get(EMBEDDINGS, ""), "float32"),
        source=weights,
        tokenizer=directory,
        weights=lambda: read_weights(weights),
        kinds=kinds,
        **read_companions(directory),
    )


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a model directory. Each file is replaced as a whole, the weights last.

    Raises:
        InputError: As `checked_tensors` does.
    """
    from model.checkpoint.assemble import checked_bytes

    path.mkdir(parents=True, exist_ok=True)
    write_companions(checkpoint, path)
    write_json(path / PARAMS, checkpoint.config.to_params())
    shapes = expected_shapes(checkpoint.config)
    write_tensors({path / WEIGHTS: shapes}, checkpoint.dtype, checked_bytes(checkpoint))

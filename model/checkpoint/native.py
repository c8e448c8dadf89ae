"""This project's own format: a directory with model.safetensors, params.json (Meta's keys) and the tokenizer's file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bpe.errors import InputError
from bpe.files import replacing, write_atomically, write_json
from bpe.formats import TOKENIZER_FILES
from model.checkpoint.assemble import EMBEDDINGS, TIED, Checkpoint, read_config
from model.transformer import Transformer

WEIGHTS, PARAMS = "model.safetensors", "params.json"
DESCRIPTION = f"{PARAMS} with {WEIGHTS}"


def recognises(path: Path) -> bool:
    """Whether this is a directory of this format, or a file in one."""
    directory = path if path.is_dir() else path.parent
    return all((directory / name).is_file() for name in (WEIGHTS, PARAMS))


def open_checkpoint(path: Path) -> Checkpoint:
    """What `recognises` accepts, opened."""
    directory = path if path.is_dir() else path.parent
    weights = directory / WEIGHTS
    return Checkpoint(
        config=read_config(directory / PARAMS),
        dtype=next((tensor.dtype for name, tensor in _tensors(weights) if name == EMBEDDINGS), torch.float32),
        source=weights,
        tokenizer=directory,
        tensors=lambda: _tensors(weights),
    )


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in file.keys():  # noqa: SIM118, it is no dictionary
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); it may be truncated") from None


def save(directory: str | os.PathLike[str], model: Transformer, tokenizer_file: str | os.PathLike[str]) -> None:
    """Write a model directory. Each file is replaced as a whole, the weights last."""
    directory, tokenizer_file = Path(directory), Path(tokenizer_file)
    directory.mkdir(parents=True, exist_ok=True)
    content = tokenizer_file.read_bytes()
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tied_embeddings:
        del weights[TIED]
    name = tokenizer_file.name if tokenizer_file.name in TOKENIZER_FILES else f"tokenizer{tokenizer_file.suffix}"
    with write_atomically(directory / name) as file:
        file.write(content)
    write_json(directory / PARAMS, model.config.to_params())
    with replacing(directory / WEIGHTS) as path:
        save_file(weights, path, metadata={"format": "pt"})

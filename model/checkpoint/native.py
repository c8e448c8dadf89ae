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
from model.checkpoint.assemble import TIED, assemble, read_config
from model.transformer import Transformer

WEIGHTS, PARAMS = "model.safetensors", "params.json"
DESCRIPTION = f"{PARAMS} with {WEIGHTS}"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer.tiktoken")


def recognises(directory: Path) -> bool:
    """Whether a directory looks like this format."""
    return (directory / WEIGHTS).is_file() and (directory / PARAMS).is_file()


def load(directory: Path, dtype: torch.dtype | None, device: torch.device) -> Transformer:
    """The model of a directory that `recognises` accepts."""
    return assemble(read_config(directory / PARAMS), _tensors(directory / WEIGHTS), directory / WEIGHTS, dtype, device)


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
    name = tokenizer_file.name if tokenizer_file.name in TOKENIZERS else f"tokenizer{tokenizer_file.suffix}"
    with write_atomically(directory / name) as file:
        file.write(content)
    write_json(directory / PARAMS, model.config.to_params())
    with replacing(directory / WEIGHTS) as path:
        save_file(weights, path, metadata={"format": "pt"})


def find_tokenizer(directory: Path) -> Path:
    """The tokenizer's file in a model directory: one of the usual names, or else the only tokenizer.*"""
    for name in TOKENIZERS:
        if (directory / name).is_file():
            return directory / name
    others = sorted(path for path in directory.glob("tokenizer.*") if path.is_file())
    if len(others) == 1:
        return others[0]
    found = f"found {', '.join(path.name for path in others)}" if others else "found none"
    raise InputError(f"{directory}: expected a tokenizer, one of {', '.join(TOKENIZERS)}; {found}")

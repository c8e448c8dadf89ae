"""Meta's own format: a directory with params.json, tokenizer.model, and the weights in consolidated.00.pth.

Larger models are split across several devices, with one file for each: consolidated.00.pth, consolidated.01.pth, ...
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpe.errors import InputError
from bpe.files import replacing, write_json
from model.checkpoint.companions import read_companions, read_tokenizer, write_companions
from model.checkpoint.meta_vision import TOKENS, config_of_vision, is_vision, names, vision_tensors, width_of
from model.checkpoint.opened import Checkpoint, config_from, config_of_params, read_json
from model.checkpoint.weights import EMBEDDINGS, TIED
from model.dtypes import dtype_name
from model.torch_needed import require_torch

if TYPE_CHECKING:
    from torch import Tensor

PARAMS, WEIGHTS = "params.json", "consolidated.00.pth"
DESCRIPTION = f"{PARAMS} with {WEIGHTS}"
_SHARDS = "consolidated.*.pth"
_LONE = "consolidated.pth"  # Llama 3.2 Vision of 11B


def recognises(path: Path) -> bool:
    """Return whether the path is a directory in this format, or a file in such a directory."""
    directory = path if path.is_dir() else path.parent
    return (directory / PARAMS).is_file() and any(directory.glob("consolidated*.pth"))


def open_checkpoint(path: Path, ignore_unknown: bool = False) -> Checkpoint:
    """Open a checkpoint that `recognises` accepts. Only tensors are loaded; no pickle is executed.

    If the file has an output matrix that differs from the embedding matrix, the model is untied even if the
    configuration says that it is tied.

    Raises:
        InputError: When a file is missing or damaged, or holds something other than tensors; the message names it.
    """
    directory = path if path.is_dir() else path.parent
    paths = _numbered(directory)
    require_torch(f"{paths[0]}: reading it")
    from model.checkpoint.meta_tensors import differs_from_embeddings, joined, read_shard

    shards = [read_shard(path) for path in paths]
    params = read_json(directory / PARAMS)
    source = paths[0] if len(paths) == 1 else directory
    if is_vision(params):
        return _open_vision(directory, source, shards, params, ignore_unknown)
    embeddings = [shard[EMBEDDINGS] for shard in shards if EMBEDDINGS in shard]
    if params.get("vocab_size") == -1 and embeddings and isinstance(params.get("dim"), int) and params["dim"] > 0:
        # Llama 1 and 2 leave vocab_size to the tokenizer. The quotient is right for either axis of the split.
        params["vocab_size"] = sum(part.numel() for part in embeddings) // params["dim"]
    config = config_from(directory / PARAMS, functools.partial(config_of_params, ignore_unknown=ignore_unknown), params)
    if config.tied_embeddings and differs_from_embeddings(source, shards, config):
        config = dataclasses.replace(config, tied_embeddings=False)
    dtype = dtype_name(embeddings[0].dtype) if embeddings else "float32"
    return Checkpoint(
        config, dtype, source, directory, lambda dtype: joined(source, shards, config), **read_companions(directory)
    )


def _open_vision(
    directory: Path, source: Path, shards: Sequence[Mapping[str, Tensor]], params: dict[str, Any], ignore_unknown: bool
) -> Checkpoint:
    """Open a checkpoint of Llama 3.2 Vision, given its params.json and the tensors of each file."""
    text_config = functools.partial(config_of_params, ignore_unknown=ignore_unknown)
    config_of = functools.partial(config_of_vision, width=width_of(source, shards), config_of_params=text_config)
    config = config_from(directory / PARAMS, config_of, params)
    dtype = dtype_name(shards[0][TOKENS].dtype) if TOKENS in shards[0] else "float32"
    theirs = names(config)
    return Checkpoint(
        config, dtype, source, directory, lambda dtype: vision_tensors(source, shards, config),
        name_of=lambda name: theirs.get(name, name), **read_companions(directory),
    )  # fmt: skip


def _numbered(directory: Path) -> list[Path]:
    """Return consolidated.00.pth and all that follow; none may be missing. A lone file may have no number."""
    numbers = {int(match[1]) for path in directory.glob(_SHARDS) if (match := re.search(r"\.(\d+)\.pth$", path.name))}
    if not numbers and (directory / _LONE).is_file():
        return [directory / _LONE]
    missing = [number for number in range(max(numbers, default=0) + 1) if number not in numbers]
    if missing:
        raise InputError(
            f"{directory}: consolidated.{missing[0]:02}.pth is missing, one of at least"
            f" {max(numbers, default=0) + 1} files; download it again"
        )
    return [directory / f"consolidated.{number:02}.pth" for number in sorted(numbers)]


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a directory in this format with one file of weights. Tied embeddings are stored once, under both names.

    Raises:
        InputError: As `checked_tensors` does.
    """
    import torch

    from model.checkpoint.assemble import checked_tensors

    unlike = checkpoint.config.unlike_llama()
    if unlike:
        raise InputError(
            f"{checkpoint.source}: Meta's format has no {', '.join(unlike)}; use the format huggingface or bpe-llama"
        )
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

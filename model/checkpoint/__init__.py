"""Checkpoints: weights, configuration and tokenizer on disk. One module for each format; this one finds out which.

A format is a module with ``DESCRIPTION``, ``recognises(path)``, ``open_checkpoint(path)``, and a line in ``FORMATS``.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from bpe.errors import InputError
from model.checkpoint import meta, native
from model.checkpoint.assemble import Checkpoint, assemble
from model.checkpoint.native import save
from model.transformer import Transformer

if TYPE_CHECKING:
    from bpe import Tokenizer

__all__ = ["Checkpoint", "load", "open_checkpoint", "save"]

FORMATS: dict[str, ModuleType] = {"native": native, "meta": meta}


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """What a directory, or a file in it, holds: the configuration, and the tensors when they are asked for.

    Raises InputError where there is no model, and where one is incomplete or not supported.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or directory")
    for file_format in FORMATS.values():
        if file_format.recognises(path):
            checkpoint: Checkpoint = file_format.open_checkpoint(path)
            return checkpoint
    expected = ", or ".join(file_format.DESCRIPTION for file_format in FORMATS.values())
    raise InputError(f"{path}: no model here; expected {expected}")


def load(
    path: str | os.PathLike[str], dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> tuple[Transformer, Tokenizer]:
    """The model and the tokenizer of a checkpoint: a known name, a file, or a directory; the format is found out.

    dtype: of the weights; None keeps that of the file, and takes bfloat16 for quantized weights.

    Weights are mapped from the file where dtype and device allow, so that they are in memory once; what has to be
    converted is converted tensor by tensor. Raises InputError where a file is missing, truncated, or does not fit the
    others; the message names it.
    """
    from bpe import Tokenizer
    from bpe.locate import locate

    checkpoint = open_checkpoint(locate(os.fspath(path)))
    tokenizer = Tokenizer.from_file(checkpoint.tokenizer)
    if tokenizer.n_vocab > checkpoint.config.vocab_size:
        raise InputError(
            f"{checkpoint.tokenizer}: {tokenizer.n_vocab} tokens, and the model has {checkpoint.config.vocab_size}; "
            "they do not belong together"
        )
    return assemble(checkpoint, dtype, torch.device(device)), tokenizer

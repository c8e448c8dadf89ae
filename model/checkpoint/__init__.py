"""Checkpoints: weights, configuration and tokenizer on disk. One module for each format; this one finds out which."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bpe.errors import InputError
from model.checkpoint import meta, native
from model.checkpoint.native import save
from model.transformer import Transformer

if TYPE_CHECKING:
    from bpe import Tokenizer

__all__ = ["load", "save"]

FORMATS = (native, meta)


def load(
    path: str | os.PathLike[str], dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> tuple[Transformer, Tokenizer]:
    """The model and the tokenizer that a directory (or a file in it) holds; the format is found out.

    dtype: of the weights; None keeps that of the file.

    Weights are mapped from the file where dtype and device allow, so that they are in memory once. Raises InputError
    where a file is missing, truncated, or does not fit the others; the message names it.
    """
    path = Path(path)
    directory = path.parent if path.is_file() else path
    if not directory.is_dir():
        raise InputError(f"{path}: there is no such file or directory")
    for file_format in FORMATS:
        if file_format.recognises(directory):
            model = file_format.load(directory, dtype, torch.device(device))
            return model, _load_tokenizer(directory, model.config.vocab_size)
    expected = ", or ".join(file_format.DESCRIPTION for file_format in FORMATS)
    raise InputError(f"{directory}: no model here; expected {expected}")


def _load_tokenizer(directory: Path, vocab_size: int) -> Tokenizer:
    from bpe import Tokenizer

    path = native.find_tokenizer(directory)
    tokenizer = Tokenizer.from_file(path)
    if tokenizer.n_vocab > vocab_size:
        raise InputError(
            f"{path}: {tokenizer.n_vocab} tokens, and the model has {vocab_size}; they do not belong together"
        )
    return tokenizer

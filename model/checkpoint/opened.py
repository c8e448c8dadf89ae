"""TODO: opened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpe import Tokenizer
from bpe.errors import InputError
from model.config import ModelConfig

EMBEDDINGS = "tok_embeddings.weight"
TIED = "output.weight"  # the same matrix as tok_embeddings.weight, where embeddings are tied
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was opened, of which only what describes it has been read."""

    config: ModelConfig
    dtype: torch.dtype
    """The weights' own; bfloat16 where they are quantized. When it is written, the one that is written."""
    source: Path
    """The file, or the directory, that messages about the weights name."""
    tokenizer: Path
    """What `Tokenizer.from_file` reads."""
    tensors: Callable[[torch.dtype], Iterable[tuple[str, Tensor]]]
    """The tensors in turn, given the dtype that they are wanted in, which only those that have to be computed
    need have. They are under Meta's names and in Meta's order of queries and keys: mapped, or made when
    their turn comes and not kept."""
    chat_template: str | None = None
    """The jinja template that dialogs are written with, where the checkpoint has one."""
    bos: int | None = None
    """The id of the token that begins a text, where the checkpoint names one; some have it and don't use it."""
    eos: tuple[int, ...] = ()
    """The ids that end what the model writes, where the checkpoint names them."""
    name_of: Callable[[str], str] = str
    """What the file calls the tensor of this name of Meta's."""
    stored: str = ""
    """How the file holds the weights, where dtype does not say it, such as "Q4_1, F32"."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """The type of each tensor by its name, such as "Q4_1", where the file names types."""
    rows: Callable[[], Iterable[tuple[str, tuple[int, ...], memoryview]]] | None = None
    """Those tensors in turn as they are stored, with their shapes: the bytes of their rows."""
    make_tokenizer: Callable[[], Tokenizer] | None = None
    """Makes the tokenizer of what has been read already, where `tokenizer` is the file of the weights."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); it may be truncated") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def named(path: Path, config_of: Callable[[dict[str, Any]], ModelConfig], values: dict[str, Any]) -> ModelConfig:
    """The configuration of `values`; an error names the file that they stand in."""
    try:
        return config_of(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_params(path: Path) -> ModelConfig:
    """The configuration in a params.json."""
    return named(path, ModelConfig.from_params, read_json(path))

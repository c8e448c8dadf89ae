"""An opened checkpoint: what every format reads and writes.

A format's module turns files into a `Checkpoint`, whose tensors have Meta's names and are read only when they are
asked for. Everything above the formats works on this class and knows no format.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpe import Tokenizer, files
from bpe.errors import InputError
from model.checkpoint.config_values import refuse_unknown
from model.checkpoint.weights import DTYPES, StoredTensor
from model.config import PARAMS_KEYS, ModelConfig
from model.dtypes import DType

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been opened: its description has been read, its tensors have not."""

    config: ModelConfig
    dtype: str
    """The name of the dtype of the weights; "bfloat16" if they are quantized. For a checkpoint to be written, the dtype
    to write."""
    source: Path
    """The file or directory that error messages about the weights name."""
    tokenizer: Path
    """The path that `Tokenizer.from_file` reads."""
    computed: Callable[[torch.dtype], Iterable[tuple[str, Tensor]]] | None = None
    """Yields each tensor as `tensors` does, if the tensors are computed by torch or in memory; None otherwise."""
    weights: Callable[[], Iterable[StoredTensor]] | None = None
    """Yields each tensor as the file stores it; None for a checkpoint that is `computed`."""
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    """The jinja templates for dialogs by name, as `bpe.chat.TemplateChat` takes them."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """The settings of sampling that the checkpoint asks for; see `model.checkpoint.sampling_settings`."""
    unused_settings: tuple[str, ...] = ()
    """The names of settings of generation in the checkpoint that are not implemented."""
    name_of: Callable[[str], str] = str
    """Translates Meta's name of a tensor to the name in the file, for error messages."""
    stored: str = ""
    """The types of the stored weights, such as "Q4_1, F32", if `dtype` does not say it."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """The stored type, such as "Q4_1" or "BF16", of each of the `weights` by Meta's name; empty without them."""
    make_tokenizer: Callable[[], Tokenizer] | None = None
    """Makes the tokenizer, if that takes more than reading the file `tokenizer`: from metadata that is already read, or
    with what begins and ends a text taken from elsewhere."""

    def tensors(self, dtype: DType) -> Iterable[tuple[str, Tensor]]:
        """Yield each tensor with Meta's name and in Meta's row order of queries and keys. This imports torch.

        A tensor is either mapped from the file, or made when its turn comes and not kept.

        Args:
            dtype: The wanted dtype. Only computed (dequantized or merged) tensors need to have it.
        """
        from model.checkpoint.dequantize import tensors_of, torch_dtype

        if self.computed is not None:
            return self.computed(torch_dtype(dtype))
        assert self.weights is not None
        return tensors_of(self.weights(), torch_dtype(dtype))

    @property
    def is_quantized(self) -> bool:
        """Whether any tensor is stored in a block format."""
        return any(kind not in DTYPES for kind in self.kinds.values())

    @property
    def chat_template(self) -> str | None:
        """The jinja template for all dialogs, if the checkpoint has one."""
        return self.chat_templates.get("default")


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        InputError: When the file cannot be read or does not hold a JSON object.
    """
    try:
        return files.read_json(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def read_optional_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file as `read_json` does; {} if there is no such file."""
    return read_json(path) if path.is_file() else {}


def config_from(path: Path, config_of: Callable[[dict[str, Any]], ModelConfig], values: dict[str, Any]) -> ModelConfig:
    """Return `config_of(values)`; an error names the file that the values were read from."""
    try:
        return config_of(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def config_of_params(params: Mapping[str, Any], ignore_unknown: bool = False) -> ModelConfig:
    """Return the configuration that the content of a params.json describes; see `ModelConfig.from_params`.

    Args:
        params: The content.
        ignore_unknown: Warn about keys that are not known, instead of raising.

    Raises:
        InputError: When the configuration is invalid.
    """
    unknown = [(key, value) for key, value in params.items() if key not in PARAMS_KEYS]
    if ignore_unknown:
        refuse_unknown(unknown, ignore_unknown)
        params = {key: value for key, value in params.items() if key in PARAMS_KEYS}
    try:
        return ModelConfig.from_params(params)
    except InputError as error:
        if not unknown or "unknown" not in str(error):
            raise
        raise InputError(f"{error}; --ignore-unknown (ignore_unknown=True) passes over unknown keys") from None


def read_params(path: Path, ignore_unknown: bool = False) -> ModelConfig:
    """Read the configuration in a params.json.

    Raises:
        InputError: When the file cannot be read, or the configuration is invalid; the message names the file.
    """
    return config_from(path, functools.partial(config_of_params, ignore_unknown=ignore_unknown), read_json(path))

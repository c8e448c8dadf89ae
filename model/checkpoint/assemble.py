"""A model from what a checkpoint holds; shared by all formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bpe.errors import InputError
from model.config import ModelConfig
from model.cpu import widen
from model.transformer import Transformer

EMBEDDINGS = "tok_embeddings.weight"
TIED = "output.weight"  # the same matrix as tok_embeddings.weight, where embeddings are tied


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was opened, of which only what describes it has been read."""

    config: ModelConfig
    dtype: torch.dtype
    """The weights' own; bfloat16 where they are quantized."""
    source: Path
    """The file, or the directory, that messages about the weights name."""
    tokenizer: Path
    """What `Tokenizer.from_file` reads."""
    tensors: Callable[[], Iterable[tuple[str, Tensor]]]
    """The tensors one after the other, under Meta's names and in Meta's order of queries and keys: mapped, or made when
    their turn comes and not kept."""


def read_config(path: Path) -> ModelConfig:
    """The configuration in a params.json."""
    try:
        params = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(params, dict):
        raise InputError(f"{path}: expected a JSON object with the sizes of a model")
    try:
        return ModelConfig.from_params(params)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def assemble(checkpoint: Checkpoint, dtype: torch.dtype | None, device: torch.device) -> Transformer:
    """The model of a checkpoint. Its weights are the tensors themselves, or copies where dtype or device ask for them.

    The model is built without memory of its own and takes tensor by tensor, so no weight is held twice. With dtype
    None, weights get the dtype of the checkpoint. Raises InputError, naming tensor and source, where one is missing,
    unknown, misshapen, there twice, no floating-point tensor, or holds a number that is not finite.
    """
    config, source, dtype = checkpoint.config, checkpoint.source, dtype or checkpoint.dtype
    with torch.device("meta"):
        model = Transformer(config)
    expected = {name: parameter.shape for name, parameter in model.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for name, tensor in checkpoint.tensors():
        if name not in expected:
            raise InputError(f"{source}: a tensor {name!r} that a model of this configuration does not have")
        if name in weights:
            raise InputError(f"{source}: two tensors {name!r}")
        if tensor.shape != expected[name]:
            raise InputError(f"{source}: {name} has the shape {list(tensor.shape)}, expected {list(expected[name])}")
        if not tensor.is_floating_point():
            raise InputError(f"{source}: {name} holds {tensor.dtype}, expected floating-point numbers")
        if not _all_finite(tensor):
            raise InputError(
                f"{source}: {name} holds numbers that are not finite (NaN or infinity); the file is damaged"
            )
        weights[name] = tensor.to(device=device, dtype=dtype)
    if config.tied_embeddings and EMBEDDINGS in weights:
        embeddings = weights[EMBEDDINGS]
        if not torch.equal(weights.setdefault(TIED, embeddings), embeddings):
            raise InputError(f"{source}: {TIED} differs from {EMBEDDINGS}, but the configuration ties them")
    missing = [name for name in expected if name not in weights]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{source}: without {', '.join(missing[:3])}{more}; the file is incomplete, or of another model"
        )
    model.load_state_dict(weights, assign=True)
    if config.tied_embeddings:
        model.output.weight = model.tok_embeddings.weight
    widen(model)
    return model


def _all_finite(tensor: Tensor) -> bool:
    # The extremes are NaN if any number is; unlike isfinite, this takes no memory of the tensor's size.
    smallest, largest = torch.aminmax(tensor)
    return bool(torch.isfinite(smallest)) and bool(torch.isfinite(largest))

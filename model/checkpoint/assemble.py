"""A model from a configuration and named tensors; shared by all formats."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from bpe.errors import InputError
from model.config import ModelConfig
from model.transformer import Transformer

TIED = "output.weight"  # the same matrix as tok_embeddings.weight, where embeddings are tied


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


def assemble(
    config: ModelConfig,
    tensors: Iterable[tuple[str, Tensor]],
    source: Path,
    dtype: torch.dtype | None,
    device: torch.device,
) -> Transformer:
    """A model whose weights are the given tensors themselves, under Meta's names, or copies where dtype or device ask.

    The model is built without memory of its own, so no weight is held twice. With dtype None, all weights get the dtype
    of the embeddings. Raises InputError, naming tensor and `source`, where one is missing, unknown, misshapen, no
    floating-point tensor, or holds a number that is not finite.
    """
    with torch.device("meta"):
        model = Transformer(config)
    expected = {name: parameter.shape for name, parameter in model.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if name not in expected:
            raise InputError(f"{source}: a tensor {name!r} that a model of this configuration does not have")
        if tensor.shape != expected[name]:
            raise InputError(f"{source}: {name} has the shape {list(tensor.shape)}, expected {list(expected[name])}")
        if not tensor.is_floating_point():
            raise InputError(f"{source}: {name} holds {tensor.dtype}, expected floating-point numbers")
        if not _all_finite(tensor):
            raise InputError(
                f"{source}: {name} holds numbers that are not finite (NaN or infinity); the file is damaged"
            )
        weights[name] = tensor
    if config.tied_embeddings:
        embeddings = weights.get("tok_embeddings.weight")
        tied = weights.setdefault(TIED, embeddings) if embeddings is not None else None
        if tied is not None and embeddings is not None and not torch.equal(tied, embeddings):
            raise InputError(f"{source}: {TIED} differs from tok_embeddings.weight, but the configuration ties them")
    missing = [name for name in expected if name not in weights]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{source}: without {', '.join(missing[:3])}{more}; the file is incomplete, or of another model"
        )
    dtype = dtype or weights["tok_embeddings.weight"].dtype
    converted = {name: tensor.to(device=device, dtype=dtype) for name, tensor in weights.items()}
    model.load_state_dict(converted, assign=True)
    if config.tied_embeddings:
        model.output.weight = model.tok_embeddings.weight
    return model


def _all_finite(tensor: Tensor) -> bool:
    # The extremes are NaN if any number is; unlike isfinite, this takes no memory of the tensor's size.
    smallest, largest = torch.aminmax(tensor)
    return bool(torch.isfinite(smallest)) and bool(torch.isfinite(largest))

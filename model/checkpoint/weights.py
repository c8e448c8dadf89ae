"""The tensors of a checkpoint as they are stored: bytes, with a shape and the name of a type. Needs NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from model.config import ModelConfig

EMBEDDINGS = "tok_embeddings.weight"
TIED = "output.weight"  # the same matrix as tok_embeddings.weight, where embeddings are tied

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
"""The dtype of each stored type that is no block format."""
KINDS = {dtype: kind for kind, dtype in DTYPES.items()}
"""The stored type of each dtype."""


def _keep(begin: int, size: int) -> None:
    """Release nothing."""


class StoredTensor(NamedTuple):
    """A tensor as its file stores it, under Meta's name and in Meta's row order of queries and keys."""

    name: str
    shape: tuple[int, ...]
    kind: str
    """The stored type, such as "BF16" or "Q4_1"."""
    data: memoryview
    """The bytes of its rows. They may be mapped from the file, and are writable."""
    release: Callable[[int, int], None] = _keep
    """Returns memory of `data` to the system, given the first byte and the number of bytes. The bytes are read from the
    file again when they are used again."""


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a model by name, in the model's order; tied embeddings once."""
    shapes: dict[str, tuple[int, ...]] = {EMBEDDINGS: (config.vocab_size, config.dim)}
    for layer in range(config.n_layers):
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in _layer_shapes(config, layer).items()}
    shapes["norm.weight"] = (config.dim,)
    if not config.tied_embeddings:
        shapes[TIED] = (config.vocab_size, config.dim)
    return shapes


def _layer_shapes(config: ModelConfig, layer: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a layer by their names within it."""
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    matrices = {
        "attention.wq": (queries, config.dim, config.qkv_bias),
        "attention.wk": (keys, config.dim, config.qkv_bias),
        "attention.wv": (keys, config.dim, config.qkv_bias),
        "attention.wo": (config.dim, queries, config.wo_bias),
    }
    networks = {"feed_forward": config.hidden_dim}
    if config.has_experts(layer):
        matrices["feed_forward.router"] = (config.n_experts, config.dim, False)
        networks = {f"feed_forward.experts.{number}": config.expert_size for number in range(config.n_experts)}
    for network, hidden_dim in networks.items():
        matrices[f"{network}.w1"] = (hidden_dim, config.dim, config.ffn_bias)
        matrices[f"{network}.w2"] = (config.dim, hidden_dim, config.ffn_bias)
        matrices[f"{network}.w3"] = (hidden_dim, config.dim, config.ffn_bias)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (rows, columns, has_bias) in matrices.items():
        shapes[f"{name}.weight"] = (rows, columns)
        if has_bias:
            shapes[f"{name}.bias"] = (rows,)
    if config.qk_norm != "none":
        whole = config.qk_norm == "all"
        shapes["attention.q_norm.weight"] = (queries if whole else config.head_dim,)
        shapes["attention.k_norm.weight"] = (keys if whole else config.head_dim,)
    for part in ("attention", "ffn"):
        if config.pre_norm:
            shapes[f"{part}_norm.weight"] = (config.dim,)
        if config.post_norm:
            shapes[f"{part}_post_norm.weight"] = (config.dim,)
    return shapes


def is_router(name: str) -> bool:
    """Return whether a tensor, under Meta's name, chooses experts. Routers stay in float32, as norms and biases do."""
    return name.endswith("feed_forward.router.weight")


def size_of(shape: tuple[int, ...]) -> int:
    """Return the number of numbers in a tensor of this shape."""
    return math.prod(shape)

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
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {EMBEDDINGS: (config.vocab_size, config.dim)}
    for layer in range(config.n_layers):
        matrices = {
            "attention.wq": (queries, config.dim, config.qkv_bias),
            "attention.wk": (keys, config.dim, config.qkv_bias),
            "attention.wv": (keys, config.dim, config.qkv_bias),
            "attention.wo": (config.dim, queries, config.wo_bias),
            "feed_forward.w1": (config.hidden_dim, config.dim, False),
            "feed_forward.w2": (config.dim, config.hidden_dim, False),
            "feed_forward.w3": (config.hidden_dim, config.dim, False),
        }
        for name, (rows, columns, has_bias) in matrices.items():
            shapes[f"layers.{layer}.{name}.weight"] = (rows, columns)
            if has_bias:
                shapes[f"layers.{layer}.{name}.bias"] = (rows,)
        shapes[f"layers.{layer}.attention_norm.weight"] = (config.dim,)
        shapes[f"layers.{layer}.ffn_norm.weight"] = (config.dim,)
    shapes["norm.weight"] = (config.dim,)
    if not config.tied_embeddings:
        shapes[TIED] = (config.vocab_size, config.dim)
    return shapes


def size_of(shape: tuple[int, ...]) -> int:
    """Return the number of numbers in a tensor of this shape."""
    return math.prod(shape)

"""The tensors of a checkpoint as they are stored: bytes, with a shape and the name of a type. Needs NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from model.config import ModelConfig
from model.vision_config import VisionConfig

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
    shapes: dict[str, tuple[int, ...]] = {EMBEDDINGS: (config.embedding_rows, config.dim)}
    if config.vision is not None:
        shapes |= {f"vision.{name}": shape for name, shape in vision_shapes(config.vision, config.dim).items()}
    for layer in range(config.n_layers):
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in _layer_shapes(config, layer).items()}
    shapes["norm.weight"] = (config.dim,)
    if not config.tied_embeddings:
        shapes[TIED] = (config.vocab_size, config.dim)
    return shapes


def _layer_shapes(config: ModelConfig, layer: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a layer by their names within it."""
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    crossing = layer in config.cross_attention_layers
    attention = "cross_attention" if crossing else "attention"
    matrices = {
        f"{attention}.wq": (queries, config.dim, config.qkv_bias),
        f"{attention}.wk": (keys, config.dim, config.qkv_bias),
        f"{attention}.wv": (keys, config.dim, config.qkv_bias),
        f"{attention}.wo": (config.dim, queries, config.wo_bias),
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
    if crossing:
        shapes |= {f"cross_attention.{name}_norm.weight": (config.head_dim,) for name in "qk"}
        shapes |= {f"{part}_gate.weight": (1,) for part in ("attention", "ffn")}
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


def vision_shapes(vision: VisionConfig, dim: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of an image encoder by their names within it.

    Args:
        vision: The configuration of the encoder.
        dim: The size of the language model.
    """
    ids, width, patches = len(vision.aspect_ratios) + 1, vision.dim, vision.n_patches
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (width, vision.channels * vision.patch_size**2),
        "class_embedding.weight": (1, width),
        "position_embedding.weight": (patches, width),
    }
    for name, vectors in (("tile_positions", patches), ("tiles_before", 1), ("tiles_after", 1)):
        shapes[f"{name}.embedding.weight"] = (ids, vision.max_tiles * vectors * width)
        shapes[f"{name}.gate.weight"] = (1,)
    norms = [(f"{name}.{kind}", (width,)) for name in ("norm_before", "norm_after") for kind in ("weight", "bias")]
    shapes |= dict(norms)
    for layers, count in (("layers", vision.n_layers), ("global_layers", vision.n_global_layers)):
        for layer in range(count):
            block = f"{layers}.{layer}"
            shapes |= {f"{block}.attention.{name}.weight": (width, width) for name in ("wq", "wk", "wv", "wo")}
            shapes |= {
                f"{block}.{part}_norm.{kind}": (width,) for part in ("attention", "ffn") for kind in ("weight", "bias")
            }
            shapes |= {
                f"{block}.feed_forward.w1.weight": (vision.hidden_dim, width),
                f"{block}.feed_forward.w1.bias": (vision.hidden_dim,),
                f"{block}.feed_forward.w2.weight": (width, vision.hidden_dim),
                f"{block}.feed_forward.w2.bias": (width,),
            }
            if layers == "global_layers":
                shapes |= {f"{block}.{part}_gate.weight": (1,) for part in ("attention", "ffn")}
    return shapes | {"projection.weight": (dim, vision.output_dim), "projection.bias": (dim,)}


def size_of(shape: tuple[int, ...]) -> int:
    """Return the number of numbers in a tensor of this shape."""
    return math.prod(shape)

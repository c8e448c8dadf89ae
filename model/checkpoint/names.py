"""TODO: names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_NAMES = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_METAS = {theirs: metas for metas, theirs in _NAMES.items()}
_ROTATED = ("attention.wq", "attention.wk")


def _renamed(name: str, names: Mapping[str, str], layers: str, new_layers: str) -> str:
    """The name of a tensor by the other convention; a name that is not known stays."""
    match = re.fullmatch(rf"(?:{re.escape(layers)}\.(\d+)\.)?(.+)\.(weight|bias)", name)
    if match is None or match[2] not in names:
        return name
    layer = "" if match[1] is None else f"{new_layers}.{match[1]}."
    return f"{layer}{names[match[2]]}.{match[3]}"


def metas_name(name: str) -> str:
    """Meta's name of a tensor.

    >>> metas_name("model.layers.3.self_attn.q_proj.weight")
    'layers.3.attention.wq.weight'
    """
    return _renamed(name, _METAS, "model.layers", "layers")


def their_name(name: str) -> str:
    """Hugging Face's name of a tensor.

    >>> their_name("layers.3.attention.wq.bias")
    'model.layers.3.self_attn.q_proj.bias'
    """
    return _renamed(name, _NAMES, "layers", "model.layers")


def is_rotated(name: str) -> bool:
    """Whether rows of the tensor of this name of Meta's are in another order there."""
    return name.rsplit(".", 1)[0].endswith(_ROTATED)


def interleaved(tensor: Tensor, head_dim: int) -> Tensor:
    """Rows [heads * head_dim, ...] in Meta's order: of each head, those that are rotated together side by side."""
    if tensor.dim() == 0 or tensor.shape[0] % head_dim:
        return tensor  # misshapen, as will be said where shapes are checked
    return tensor.reshape(-1, 2, head_dim // 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def halved(tensor: Tensor, head_dim: int) -> Tensor:
    """The inverse of `interleaved`: of each head, first one of every two, then the other."""
    return tensor.reshape(-1, head_dim // 2, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)

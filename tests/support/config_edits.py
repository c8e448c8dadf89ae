"""Edits of config.json: one key changed, added or removed, over all families of `support.model_families`."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any, NamedTuple

import transformers

from support.model_families import FAMILIES, SHAPE

_LABELS = ("full_attention", "sliding_attention")
_OLD = ("rope_theta", "rope_scaling", "rope_local_base_freq", "partial_rotary_factor")

OWN_VALUES: dict[str, list[Any]] = {
    "partial_rotary_factor": [0.5, 1.0], "attention_bias": [True, False, 1], "mlp_bias": [True, False],
    "sliding_window": [None, 5, 4096, 0, "x"], "use_sliding_window": [True, False], "max_window_layers": [0, 2, 10],
    "hidden_act": ["gelu", "relu", "silu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", None],
    "hidden_activation": ["gelu", "silu", None], "rope_theta": [500.0, 1e6, None, "x", 0],
    "layer_types": [[*_LABELS] * 2, [_LABELS[0]] * 4, [_LABELS[1]] * 4, None, ["chunked_attention"] * 4, []],
    "head_dim": [8, 24, None, 0, "16", 7], "num_key_value_heads": [1, 4, None, 3, 0],
    "tie_word_embeddings": [True, False, None, "false"], "rms_norm_eps": [1e-2, None, "x"],
    "query_pre_attn_scalar": [16, 100, 0, None], "attn_logit_softcapping": [None, 5.0, 0.0],
    "final_logit_softcapping": [None, 2.0, 0.0], "sliding_window_pattern": [2, 3, 0],
    "rope_local_base_freq": [50.0, None], "no_rope_layers": [[1] * 4, [0] * 4, [1, 0, 1, 0], [1]],
    "no_rope_layer_interval": [2, 0], "embedding_multiplier": [3.0], "residual_multiplier": [0.5],
    "attention_multiplier": [0.1], "logits_scaling": [2.0, 0.0], "num_experts_per_tok": [1, 2, 9],
    "norm_topk_prob": [True, False], "decoder_sparse_step": [2, 0], "mlp_only_layers": [[0], [1, 3], [9], "x"],
    "num_local_experts": [3, 6], "num_experts": [3, 6, 0], "moe_intermediate_size": [16],
    "max_position_embeddings": [30, 50, None], "original_max_position_embeddings": [16, True, 0, 256],
    "use_bidirectional_attention": [True, False, None], "attention_dropout": [0.5], "pretraining_tp": [2],
    "is_decoder": [True], "add_cross_attention": [True], "rope_interleaved": [True, False], "qk_norm": [True],
    "unknown_thing": [3], "auto_map": [{"AutoModel": "x.Y"}], "use_mrope": [False, True], "unk_token_id": [0],
    "max_sequence_length": [99], "attn_implementation": ["eager"], "hidden_size": [64, 50, 0],
    "intermediate_size": [40], "num_hidden_layers": [2, 0, "4"], "vocab_size": [290], "num_attention_heads": [2, 5],
    "router_jitter_noise": [0.1], "clip_qkv": [1.0], "scale_embedding": [True], "rotary_pct": [0.5],
    "norm_type": ["layer"], "logit_scale": [3.0], "model_type": ["gpt2", None], "architectures": [["LlamaModel"]],
}  # fmt: skip
"""Plausible values of keys, right and wrong."""


def _scaled(kind: str, **keys: Any) -> dict[str, Any]:
    return {"rope_type": kind, **keys}


_SIX = {"short_factor": [1.0] * 6, "long_factor": [2.0] * 6}
_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPES: list[Any] = [
    _scaled("default"), _scaled("default", rope_theta=500), _scaled("default", rope_theta=None),
    _scaled("default", partial_rotary_factor=0.5), _scaled("default", factor=2.0), _scaled("linear"),
    _scaled("linear", factor=2), _scaled("linear", factor="2"), _scaled("linear", factor=0),
    _scaled("linear", factor=0.5), _scaled("linear", factor=2.0, rope_theta=777.0),
    _scaled("linear", factor=2.0, original_max_position_embeddings=16), _scaled("dynamic", factor=2.0),
    _scaled("dynamic", factor=2.0, alpha=3.0), _scaled("yarn"), _scaled("yarn", factor=4.0),
    _scaled("yarn", factor=0.5), _scaled("yarn", factor=4.0, original_max_position_embeddings=16),
    _scaled("yarn", factor=4.0, mscale=0.7), _scaled("yarn", factor=4.0, mscale=0.7, mscale_all_dim=1.0),
    _scaled("yarn", factor=4.0, attention_factor=1.3, beta_fast=10, beta_slow=2),
    _scaled("yarn", factor=4.0, beta_fast="x"), _scaled("yarn", factor=4.0, finetuned=True),
    _scaled("yarn", factor=4.0, truncate=False),
    _scaled("llama3", **_LLAMA3), _scaled("llama3", **_LLAMA3, original_max_position_embeddings=16),
    _scaled("llama3", factor=8.0), _scaled("longrope", **_SIX),
    _scaled("longrope", **_SIX, original_max_position_embeddings=16),
    _scaled("longrope", **_SIX, original_max_position_embeddings=16, factor=3.0, attention_factor=1.1),
    _scaled("longrope", **_SIX, original_max_position_embeddings=1), _scaled("longrope", short_factor="x"),
    _scaled("mrope", mrope_section=[2, 2, 2]), _scaled("proportional", factor=2.0), _scaled("nonsense"), "x", [], {},
]  # fmt: skip
"""RoPE as config.json describes it, right and wrong."""
_THETA, _LINEAR = _scaled("default", rope_theta=333.0), _scaled("linear", factor=2.0, rope_theta=99.0)
LAYERED: list[Any] = [
    dict(zip(_LABELS, pair, strict=True))
    for pair in (
        (_THETA, _THETA), (_LINEAR, _THETA), (_THETA, _LINEAR), (_THETA, None), (None, _THETA), ({}, {}), ("x", []),
        (_scaled("yarn", factor=2.0), _THETA), ({"type": "linear", "factor": 2.0}, _THETA),
        ({**_THETA, "partial_rotary_factor": 0.5}, _THETA), (_THETA, {**_THETA, "partial_rotary_factor": 0.5}),
    )
] + [{_LABELS[0]: _THETA}, {**_THETA, _LABELS[1]: _THETA}]  # fmt: skip
"""RoPE by the types of layers, as transformers 5 describes it."""


class Edit(NamedTuple):
    """An edit of the config.json of a family."""

    name: str
    """The family, of `support.model_families`."""
    spelling: str
    """"new" or "old": how the positions of the other keys are spelled, as in transformers 5 or before."""
    key: str
    value: Any

    def applied(self) -> dict[str, Any]:
        """Return the edited config.json; the value "(removed)" removes the key."""
        data = _old(config(self.name)) if self.spelling == "old" else dict(config(self.name))
        if self.value == "(removed)":
            data.pop(self.key, None)
            return data
        return {**data, self.key: self.value}


@cache
def config(name: str) -> dict[str, Any]:
    """Return the whole config.json of a family, with every key that transformers has."""
    kind, keys = FAMILIES[name]
    made = transformers.AutoConfig.for_model(kind, **{**SHAPE, **keys})
    data: dict[str, Any] = json.loads(made.to_json_string(use_diff=False))
    return data


def _old(data: dict[str, Any]) -> dict[str, Any]:
    """Return a config.json with the positions as transformers 4 spells them."""
    data = dict(data)
    rope = data.pop("rope_parameters", None) or {}
    if {*_LABELS} & {*rope}:
        data["rope_local_base_freq"] = rope[_LABELS[1]].get("rope_theta")
        rope = rope[_LABELS[0]]
    rope = dict(rope)
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rope:
            data[key] = rope.pop(key)
    data["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    return data


def edits(name: str) -> list[Edit]:
    """Return all edits of a family, in a fixed order."""
    found = []
    for key, values in OWN_VALUES.items():
        found += [Edit(name, "old" if key in _OLD else "new", key, value) for value in values]
    for key, value in config(name).items():
        found += [Edit(name, "new", key, "(removed)"), Edit(name, "new", key, None)]
        if isinstance(value, int | float) and not isinstance(value, bool):
            found += [Edit(name, "new", key, other) for other in (value * 2, 0, -1, str(value), True)]
    for rope in ROPES:
        found += [Edit(name, "new", "rope_parameters", rope), Edit(name, "old", "rope_scaling", rope)]
        if isinstance(rope, dict) and rope:
            named = {("type" if key == "rope_type" else key): value for key, value in rope.items()}
            found.append(Edit(name, "old", "rope_scaling", named))
    for rope in LAYERED:
        found += [Edit(name, "new", "rope_parameters", rope), Edit(name, "old", "rope_scaling", rope)]
    return found


def some(name: str, count: int, seed: int) -> list[Edit]:
    """Return some edits of a family, at random."""
    return random.Random(f"{seed} {name}").sample(edits(name), count)

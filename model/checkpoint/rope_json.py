"""The scaling of RoPE in a config.json, in the spellings of transformers 4 and 5."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bpe.errors import InputError
from model.checkpoint.config_values import Values, is_number, number, positive
from model.checkpoint.families import Family
from model.config import ModelConfig

_ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        *("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
        *("attention_factor", "truncate"),
    ),
    "longrope": ("factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"),
}
"""The keys of each type of RoPE."""
_PASSED = {"linear": ("original_max_position_embeddings",), "yarn": ("finetuned",)}
"""Keys of published files that say how the model was trained, and change no result in transformers."""


def rope_fields(family: Family, values: Values) -> dict[str, Any]:
    """Return the fields of RoPE, from rope_theta and rope_scaling, or from transformers 5's rope_parameters."""
    key = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    rope = values.get(key) or {}
    fields: dict[str, Any] = {}
    if "rope_local_base_freq" in values and isinstance(rope, dict):
        rope, local = _global_and_local(values, key, rope)
        if isinstance(rope, dict) and rope.get("truncate") is False:  # transformers looks for it one level above
            raise InputError(f"{key}: truncate is false, which transformers ignores for this model type; remove it")
        if not isinstance(local, dict):
            raise InputError(f"{key}: sliding_attention is {local!r}; expected an object")
        kind = local.get("rope_type", local.get("type", "default"))
        if kind != "default":
            raise InputError(f"{key}: sliding_attention has the type {kind!r}; only default is supported")
        _refuse_rope(f"{key}: sliding_attention: ", local, "default")
        fields["local_rope_theta"] = local.get("rope_theta", values["rope_local_base_freq"])
    if not isinstance(rope, dict):
        raise InputError(f"{key} is {rope!r}; expected an object")
    rope = {name: value for name, value in rope.items() if value is not None}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if family.architecture.startswith("Phi3") and kind in ("su", "yarn"):  # earlier names, as transformers reads them
        kind = "longrope"
    if kind not in family.rope_types:
        raise InputError(f"{key} is of type {kind!r}, which is not supported; {', '.join(family.rope_types)} are")
    _refuse_rope(f"{key}: ", rope, kind)
    share = rope.get("partial_rotary_factor", values.get("partial_rotary_factor", 1.0))
    if share != 1 and "partial_rotary_factor" not in family.keys:
        raise InputError(f"partial_rotary_factor is {share!r}, which a {values['model_type']} model does not have")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise InputError(f"partial_rotary_factor is {share!r}; expected a number from 0 to 1")
    heads = positive(values, "num_attention_heads")
    head_dim: int = values["head_dim"] or positive(values, "hidden_size") // heads
    fields |= {"rope_theta": rope.get("rope_theta", values["rope_theta"]), "rotary_dim": int(head_dim * share)}
    return fields | _READERS[kind](rope, values, key)


def _global_and_local(values: Values, key: str, rope: Values) -> tuple[Any, Any]:
    """Return the RoPE of layers that see everything, and that of layers with windows, of Gemma 3.

    transformers 5 ignores what is written in another way, such as the key "type" for rope_type, without a word.

    Raises:
        InputError: When it would be ignored.
    """
    if values.get("rope_scaling") and values.get("rope_parameters"):
        raise InputError("rope_scaling and rope_parameters are both set; remove rope_scaling")
    if key == "rope_scaling":
        if {*rope} & {"full_attention", "sliding_attention"}:
            raise InputError("rope_scaling has an object for each type of layers; call it rope_parameters")
        if "rope_type" not in rope:
            raise InputError("rope_scaling has no rope_type, without which transformers ignores it; add rope_type")
        return rope, {}
    others = {*rope} - {"full_attention", "sliding_attention"}
    if others:
        raise InputError(
            f"rope_parameters: {min(others)} is outside of full_attention and sliding_attention; move it into them"
        )
    full, local = (rope.get(f"{name}_attention") or {} for name in ("full", "sliding"))
    return full, local


def _refuse_rope(prefix: str, rope: Values, kind: str) -> None:
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *_ROPE_KEYS[kind]}
    for name, value in rope.items():
        if name in _PASSED.get(kind, ()):
            continue
        if name not in known:
            raise InputError(f"{prefix}{name} (value {value!r}) is not a key of the type {kind}; remove it")
        if name == "truncate":
            fits, expected = isinstance(value, bool), "true or false"
        elif name in ("short_factor", "long_factor"):
            fits, expected = isinstance(value, list) and all(map(is_number, value)), "a list of numbers"
        else:
            fits, expected = name in ("rope_type", "type") or is_number(value), "a number"
        if not fits and value is not None:
            raise InputError(f"{prefix}{name} is {value!r}; expected {expected}")


def _original(rope: Values, values: Values, key: str) -> Any:
    """Return the context before scaling, which Phi-3 gives outside of the object."""
    name = "original_max_position_embeddings"
    length = values.get(name) or number(rope, name, key, values["max_position_embeddings"])
    if isinstance(length, bool) or not is_number(length) or length <= 1:
        raise InputError(f"{name} is {length!r}; expected a whole number above 1")
    return length


def _linear(rope: Values, values: Values, key: str) -> dict[str, Any]:
    return {"rope_scaling": "linear", "rope_scaling_factor": number(rope, "factor", key)}


def _dynamic(rope: Values, values: Values, key: str) -> dict[str, Any]:
    factor, original = number(rope, "factor", key), positive(values, "max_position_embeddings")
    return {
        "rope_scaling": "dynamic", "rope_scaling_factor": factor, "rope_original_length": original,
        "max_seq_len": max(original, int(factor * original)),
    }  # fmt: skip


def _llama3(rope: Values, values: Values, key: str) -> dict[str, Any]:
    return {
        "rope_scaling": "llama3",
        "rope_scaling_factor": number(rope, "factor", key),
        "rope_low_freq_factor": number(rope, "low_freq_factor", key),
        "rope_high_freq_factor": number(rope, "high_freq_factor", key),
        "rope_original_length": _original(rope, values, key),
    }


def _yarn(rope: Values, values: Values, key: str) -> dict[str, Any]:
    original = _original(rope, values, key)
    factor = number(rope, "factor", key)
    size = rope.get("attention_factor")
    if size is None:
        mscale, over = rope.get("mscale"), rope.get("mscale_all_dim")
        size = _yarn_size(factor, mscale) / _yarn_size(factor, over) if mscale and over else _yarn_size(factor, 1)
    return {
        "rope_scaling": "yarn", "rope_scaling_factor": factor, "rope_original_length": original,
        "rope_beta_fast": rope.get("beta_fast") or 32, "rope_beta_slow": rope.get("beta_slow") or 1,
        "rope_truncate": rope.get("truncate", True), "rope_attention_factor": size,
    }  # fmt: skip


def _yarn_size(factor: float, mscale: float) -> float:
    """Return the factor of rotated vectors in YaRN (arXiv:2309.00071, section 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _longrope(rope: Values, values: Values, key: str) -> dict[str, Any]:
    original = _original(rope, values, key)
    factor = number(rope, "factor", key, values["max_position_embeddings"] / original)
    size = rope.get("attention_factor")
    if size is None:
        size = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    missing = [name for name in ("short_factor", "long_factor") if not isinstance(rope.get(name), list)]
    if missing:
        raise InputError(f"{key}: {missing[0]} must be a list of numbers")
    return {
        "rope_scaling": "longrope", "rope_original_length": original, "rope_attention_factor": size,
        "rope_short_factors": rope["short_factor"], "rope_long_factors": rope["long_factor"],
    }  # fmt: skip


_READERS: dict[str, Callable[[Values, Values, str], dict[str, Any]]] = {
    "default": lambda rope, values, key: {},
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}


def rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
    """Return the object that describes the scaling of RoPE; None without scaling."""
    factor, original = config.rope_scaling_factor, config.rope_original_length
    size = {"attention_factor": config.rope_attention_factor}
    keys: dict[str, dict[str, Any]] = {
        "linear": {"factor": factor},
        "dynamic": {"factor": factor},
        "llama3": {
            "factor": factor,
            "low_freq_factor": config.rope_low_freq_factor,
            "high_freq_factor": config.rope_high_freq_factor,
            "original_max_position_embeddings": original,
        },
        "yarn": {
            "factor": factor, "original_max_position_embeddings": original, "beta_fast": config.rope_beta_fast,
            "beta_slow": config.rope_beta_slow, "truncate": config.rope_truncate, **size,
        },
        "longrope": {
            "original_max_position_embeddings": original, "short_factor": list(config.rope_short_factors),
            "long_factor": list(config.rope_long_factors), **size,
        },
    }  # fmt: skip
    kind = config.rope_scaling
    return None if kind == "none" else {"rope_type": kind, **keys[kind]}

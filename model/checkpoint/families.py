"""The supported model types of transformers, as data: the keys of their config.json with transformers' defaults, and
the settings that all models of a type share. `model.checkpoint.config_json` reads and writes the files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from bpe.errors import InputError
from model.checkpoint.config_values import Values, positive
from model.config import Activation

REQUIRED = {
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "vocab_size": "vocab_size",
}
FIELDS = {
    **REQUIRED,
    "num_key_value_heads": "n_kv_heads",
    "head_dim": "head_dim",
    "max_position_embeddings": "max_seq_len",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tied_embeddings",
}
"""The field of each key that all families have."""
COMMON: dict[str, Any] = {
    "num_key_value_heads": None, "head_dim": None, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "hidden_act": "silu", "rope_theta": 10000.0, "sliding_window": None,
    "layer_types": None,
}  # fmt: skip
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh",
}  # fmt: skip


# --- windows: the window of each layer, from a config.json ---


def _no_window(values: Values) -> tuple[int, ...]:
    window, context = values["sliding_window"], values["max_position_embeddings"]
    if window is not None and not (isinstance(window, int) and isinstance(context, int) and window >= context):
        raise InputError(
            f"sliding_window is {window!r}, which a model of type {values['model_type']} does not have; remove the key"
        )
    return ()


def _every_layer(values: Values) -> tuple[int, ...]:
    return (_window(values),) * layers(values)


def _by_layer_types(sliding: Callable[[Values, int], bool]) -> Callable[[Values], tuple[int, ...]]:
    """Return a reader of windows: in the layers of layer_types that are sliding, or else those chosen by a rule."""

    def windows(values: Values) -> tuple[int, ...]:
        kinds = values["layer_types"]
        if kinds is None:
            return tuple(_window(values) * sliding(values, layer) for layer in range(layers(values)))
        if not isinstance(kinds, list) or len(kinds) != layers(values):
            raise InputError(f"layer_types must be a list with one of {layers(values)} layers' types each")
        unknown = [kind for kind in kinds if kind not in ("full_attention", "sliding_attention")]
        if unknown:
            raise InputError(f"layer_types has {unknown[0]!r}; full_attention and sliding_attention are supported")
        if "sliding_attention" in kinds and not _window(values):
            raise InputError("layer_types has sliding_attention, but sliding_window is not set")
        return tuple(_window(values) * (kind == "sliding_attention") for kind in kinds)

    return windows


def _window(values: Values) -> int:
    """Return the width of the windows; 0 for none."""
    window = values["sliding_window"]
    if window is None or not values.get("use_sliding_window", True):
        return 0
    if isinstance(window, bool) or not isinstance(window, int) or window <= 0:
        raise InputError(f"sliding_window is {window!r}; expected a positive whole number, or null")
    return window


def layers(values: Values) -> int:
    count = values["num_hidden_layers"]
    if isinstance(count, bool) or not isinstance(count, int) or not 0 < count <= 1024:
        raise InputError(f"num_hidden_layers is {count!r}; expected a whole number from 1 to 1024")
    return count


def _after_max_window_layers(values: Values, layer: int) -> bool:
    first = values["max_window_layers"]
    if isinstance(first, bool) or not isinstance(first, int):
        raise InputError(f"max_window_layers is {first!r}; expected a whole number")
    return layer >= first


def _but_each_nth(values: Values, layer: int) -> bool:
    return bool((layer + 1) % positive(values, "sliding_window_pattern"))


# --- other keys that take more than a copy ---


def _unrotated(values: Values) -> tuple[int, ...]:
    """Return SmolLM3's layers without rotary positions."""
    rotated = values["no_rope_layers"]
    if rotated is None:
        interval = positive(values, "no_rope_layer_interval")
        return tuple(layer for layer in range(layers(values)) if (layer + 1) % interval == 0)
    if not isinstance(rotated, list) or len(rotated) != layers(values) or not {*rotated} <= {0, 1}:
        raise InputError(f"no_rope_layers must be a list of {layers(values)} numbers, 0 for a layer without positions")
    return tuple(layer for layer, is_rotated in enumerate(rotated) if not is_rotated)


def _dense_layers(values: Values) -> tuple[int, ...]:
    """Return Qwen3-MoE's layers without experts."""
    step, dense = positive(values, "decoder_sparse_step"), values["mlp_only_layers"] or []
    if not isinstance(dense, list) or not all(isinstance(layer, int) for layer in dense):
        raise InputError(f"mlp_only_layers is {dense!r}; expected a list of layers")
    return tuple(layer for layer in range(layers(values)) if layer in dense or (layer + 1) % step)


def _inverse_root(values: Values) -> float:
    scalar = values["query_pre_attn_scalar"]
    if isinstance(scalar, bool) or not isinstance(scalar, int | float) or not scalar > 0:
        raise InputError(f"query_pre_attn_scalar is {scalar!r}; expected a positive number")
    return float(scalar**-0.5)


def _experts(values: Values, default: int) -> int:
    """Return the number of experts, which has two names."""
    given = {name: values[name] for name in ("num_experts", "num_local_experts") if values[name] is not None}
    if len({str(value) for value in given.values()}) > 1:
        raise InputError(
            f"num_experts is {values['num_experts']!r}, but num_local_experts {values['num_local_experts']!r}"
        )
    return positive(given, [*given][0]) if given else default


class Family(NamedTuple):
    """A model type of transformers."""

    architecture: str
    """The class that config.json names."""
    keys: dict[str, Any]
    """The keys that change the result, beside those of `COMMON`, with transformers' defaults."""
    settings: dict[str, Any] = {}
    """The fields of `ModelConfig` that all models of the type have."""
    fields: dict[str, str] = {}
    """The field of each of `keys` that is copied; null is the field's default."""
    computed: dict[str, Callable[[Values], Any]] = {}
    """Fields that are computed from several keys."""
    windows: Callable[[Values], tuple[int, ...]] = _no_window
    """The windows of the layers."""
    rope_types: tuple[str, ...] = ("default", "llama3", "linear", "dynamic", "yarn", "longrope")
    activation: str = "hidden_act"
    """The key of the activation."""
    experts: str = "mlp.experts"
    """What tensors call the experts."""


_MOE = {"num_experts_per_tok": "n_experts_per_token"}
_GEMMA_SETTINGS = {"norm_offset": True}
_SANDWICH = {**_GEMMA_SETTINGS, "post_norm": True}
_GEMMA = {
    "head_dim": 256, "max_position_embeddings": 8192, "tie_word_embeddings": True, "attention_bias": False,
}  # fmt: skip
_GEMMA2 = {
    **_GEMMA, "hidden_activation": "gelu_pytorch_tanh", "num_key_value_heads": 4, "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}  # fmt: skip
SOFTCAPS = {"attn_logit_softcapping": "attention_softcap", "final_logit_softcapping": "logits_softcap"}
_SCALES = {
    "embedding_multiplier": "embedding_multiplier", "residual_multiplier": "residual_multiplier",
    "attention_multiplier": "attention_multiplier", "logits_scaling": "logits_scaling",
}  # fmt: skip
_QWEN_WINDOWS = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}

FAMILIES: dict[str, Family] = {
    "llama": Family(
        "LlamaForCausalLM",
        {"attention_bias": False, "mlp_bias": False, "attention_out_bias": None},
        fields={"mlp_bias": "ffn_bias"},
    ),
    "mistral": Family(
        "MistralForCausalLM",
        {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
        windows=_every_layer,
    ),
    "ministral": Family(
        "MinistralForCausalLM",
        {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
        windows=_by_layer_types(lambda values, layer: True),
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        {"num_key_value_heads": 32, "max_position_embeddings": 32768, **_QWEN_WINDOWS},
        {"qkv_bias": True},
        windows=_by_layer_types(_after_max_window_layers),
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        {
            "num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32768, "attention_bias": False,
            **_QWEN_WINDOWS,
        },
        {"qk_norm": "head"},
        windows=_by_layer_types(_after_max_window_layers),
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        {
            "num_key_value_heads": 4, "max_position_embeddings": 32768, "rope_theta": 2000000.0,
            "tie_word_embeddings": True, "attention_bias": False, "attention_out_bias": None, "mlp_bias": False,
            "use_sliding_window": False,
            "sliding_window": None,            "no_rope_layers": None, "no_rope_layer_interval": 4,
        },
        fields={"mlp_bias": "ffn_bias"},
        computed={"unrotated_layers": _unrotated},
        windows=_by_layer_types(lambda values, layer: layer in _unrotated(values)),
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        {
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096,
            "partial_rotary_factor": 1.0,
        },
        windows=_every_layer,
        rope_types=("default", "longrope"),
    ),
    "granite": Family(
        "GraniteForCausalLM",
        {"attention_bias": False, "mlp_bias": False, **dict.fromkeys(_SCALES, 1.0)},
        fields={"mlp_bias": "ffn_bias", **_SCALES},
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        {"attention_bias": False, "rms_norm_eps": 1e-5},
        {"pre_norm": False, "post_norm": True, "qk_norm": "all"},
    ),
    "gemma": Family(
        "GemmaForCausalLM",
        {**_GEMMA, "num_key_value_heads": 16, "hidden_act": "gelu_pytorch_tanh"},
        _GEMMA_SETTINGS,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        {**_GEMMA2, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window_pattern": 2},
        _SANDWICH,
        SOFTCAPS,
        {"attention_multiplier": _inverse_root},
        _by_layer_types(_but_each_nth),
        activation="hidden_activation",
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        {
            **_GEMMA2, "max_position_embeddings": 131072, "final_logit_softcapping": None, "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0, "sliding_window_pattern": 6,
        },
        {**_SANDWICH, "qk_norm": "head"},
        {"final_logit_softcapping": "logits_softcap"},  # transformers does not apply attn_logit_softcapping
        {"attention_multiplier": _inverse_root},
        _by_layer_types(_but_each_nth),
        activation="hidden_activation",
    ),
    "mixtral": Family(
        "MixtralForCausalLM",
        {
            "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
            "num_experts": None, "num_local_experts": None, "num_experts_per_tok": 2,
        },
        fields=_MOE,
        computed={"n_experts": functools.partial(_experts, default=8)},
        windows=_every_layer,
        experts="block_sparse_moe.experts",
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        {
            "num_key_value_heads": 4, "max_position_embeddings": 32768, "attention_bias": False,
            "use_sliding_window": False, "sliding_window": 4096, "num_experts": None, "num_local_experts": None,
            "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": False, "decoder_sparse_step": 1,
            "mlp_only_layers": None,
        },
        {"qk_norm": "head"},
        {**_MOE, "moe_intermediate_size": "expert_hidden_dim", "norm_topk_prob": "normalize_experts"},
        {"n_experts": functools.partial(_experts, default=128), "dense_layers": _dense_layers},
        _every_layer,
    ),
}  # fmt: skip
"""The supported model types, in the order in which a configuration is tried for writing."""

"""The config.json of each supported model type of transformers, from and to `ModelConfig`.

A family is data: its keys with transformers' defaults, and the settings that all of its models share. A configuration
is written for the first family whose config.json reads back as the same configuration.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bpe.errors import InputError
from model.config import Activation, ModelConfig
from model.dtypes import DType, dtype_name

Values = Mapping[str, Any]

REQUIRED = {
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "vocab_size": "vocab_size",
}
_FIELDS = {
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
_ACTIVATIONS: dict[str, Activation] = {
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
    return (_window(values),) * _layers(values)


def _by_layer_types(sliding: Callable[[Values, int], bool]) -> Callable[[Values], tuple[int, ...]]:
    """Return a reader of windows: in the layers of layer_types that are sliding, or else those chosen by a rule."""

    def windows(values: Values) -> tuple[int, ...]:
        kinds = values["layer_types"]
        if kinds is None:
            return tuple(_window(values) * sliding(values, layer) for layer in range(_layers(values)))
        if not isinstance(kinds, list) or len(kinds) != _layers(values):
            raise InputError(f"layer_types must be a list with one of {_layers(values)} layers' types each")
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


def _layers(values: Values) -> int:
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
    return bool((layer + 1) % _positive(values, "sliding_window_pattern"))


def _positive(values: Values, key: str) -> int:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InputError(f"{key} is {value!r}; expected a positive whole number")
    return value


# --- other keys that take more than a copy ---


def _unrotated(values: Values) -> tuple[int, ...]:
    """Return SmolLM3's layers without rotary positions."""
    rotated = values["no_rope_layers"]
    if rotated is None:
        interval = _positive(values, "no_rope_layer_interval")
        return tuple(layer for layer in range(_layers(values)) if (layer + 1) % interval == 0)
    if not isinstance(rotated, list) or len(rotated) != _layers(values) or not {*rotated} <= {0, 1}:
        raise InputError(f"no_rope_layers must be a list of {_layers(values)} numbers, 0 for a layer without positions")
    return tuple(layer for layer, is_rotated in enumerate(rotated) if not is_rotated)


def _dense_layers(values: Values) -> tuple[int, ...]:
    """Return Qwen3-MoE's layers without experts."""
    step, dense = _positive(values, "decoder_sparse_step"), values["mlp_only_layers"] or []
    if not isinstance(dense, list) or not all(isinstance(layer, int) for layer in dense):
        raise InputError(f"mlp_only_layers is {dense!r}; expected a list of layers")
    return tuple(layer for layer in range(_layers(values)) if layer in dense or (layer + 1) % step)


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
    return _positive(given, [*given][0]) if given else default


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
_SOFTCAPS = {"attn_logit_softcapping": "attention_softcap", "final_logit_softcapping": "logits_softcap"}
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
        _SOFTCAPS,
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

_FALSE = {"use_bidirectional_attention": (None, False), "rope_interleaved": (False,), "use_mrope": (False,)}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_activation": (None, "gelu_pytorch_tanh"),  # in Gemma's files, beside a hidden_act that means the same
    **_FALSE, "mlp_bias": (False,), "attention_bias": (False,), "partial_rotary_factor": (1.0,),
    "is_encoder_decoder": (False,), "is_decoder": (False,), "add_cross_attention": (False,),
    "tie_encoder_decoder": (False,), "pruned_heads": ({},), "use_sliding_window": (False,),
    "attn_logit_softcapping": (None,), "final_logit_softcapping": (None,), "quantization_config": (None,),
}  # fmt: skip
"""Keys that change the result unless they have one of these values, the only ones that families without them take."""
_HARMLESS = {
    # about the file and about training
    "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "initializer_range",
    "attention_dropout", "hidden_dropout", "dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "pretraining_tp",
    "use_cache", "gradient_checkpointing", "is_llama_config", "transformers.js_config", "unsloth_version",
    "unsloth_fixed", "name_or_path", "model_name", "auto_map", "attn_implementation", "cache_implementation",
    "output_router_logits", "router_aux_loss_coef", "router_jitter_noise", "max_window_layers", "layer_types",
    "base_model_name_or_path", "max_sequence_length", "model_max_length", "padding_side", "head_dim", "hidden_act",
    # about classification and return values
    "id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params", "return_dict",
    "output_attentions", "output_hidden_states", "use_return_dict", "torchscript", "chunk_size_feed_forward",
    "tokenizer_class", "prefix",
    # about generation, which takes its options from generation_config.json and from the caller
    "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id",
    "forced_bos_token_id", "forced_eos_token_id",
    "max_length", "min_length", "max_new_tokens", "do_sample", "temperature", "top_k",
    "top_p", "typical_p", "num_beams", "num_beam_groups", "num_return_sequences", "diversity_penalty",
    "length_penalty", "repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "early_stopping", "bad_words_ids", "begin_suppress_tokens", "suppress_tokens",
    "exponential_decay_length_penalty", "remove_invalid_values", "output_scores", "return_dict_in_generate",
    "cross_attention_hidden_size", "tf_legacy_loss", "use_bfloat16",
}  # fmt: skip
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


# --- reading ---


def config_of(data: Values, ignore_unknown: bool = False) -> ModelConfig:
    """Return the configuration that the content of a config.json describes.

    Args:
        data: The content.
        ignore_unknown: Pass over keys that are not known, instead of raising.

    Raises:
        InputError: When the model is not supported, or a key is unknown, since an unknown key may change the result.
            The message names the key.
    """
    kind = data.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"model_type is {kind!r}; supported are {', '.join(FAMILIES)}")
    architectures = data.get("architectures") or ["ForCausalLM"]
    if not isinstance(architectures, list) or not any(str(name).endswith("ForCausalLM") for name in architectures):
        raise InputError(f"architectures is {architectures!r}; expected a name that ends with ForCausalLM")
    family = FAMILIES[kind]
    defaults = {**COMMON, **family.keys}
    known = {*defaults, *REQUIRED, "rope_scaling", "rope_parameters"}
    refuse_others(data, known, ignore_unknown)
    missing = [key for key in REQUIRED if data.get(key) is None]
    if missing:
        raise InputError(f"missing {', '.join(missing)}")
    nullable = (
        "sliding_window",
        "num_key_value_heads",
        *(key for key, value in defaults.items() if value is None),
        *_SOFTCAPS,
    )
    own = {key: value for key, value in data.items() if key in known and (value is not None or key in nullable)}
    for key, value in data.items():
        if key in known:
            _check_type(key, value, defaults.get(key), key in nullable)
    values = {"model_type": kind, **defaults, **own}
    fields = {
        **{field: values[key] for key, field in _FIELDS.items()},
        **{field: values[key] for key, field in family.fields.items()},
        **{field: compute(values) for field, compute in family.computed.items()},
        **family.settings,
        "activation": _activation(kind, family, values),
        "windows": family.windows(values),
        **_rope(family, values),
    }
    kinds = [f"{'sliding' if window else 'full'}_attention" for window in fields["windows"] or (0,) * _layers(values)]
    if values["layer_types"] not in (None, kinds):
        raise InputError(
            f"layer_types is {values['layer_types']!r}, but a {kind} model of this configuration has {kinds}"
        )
    if values.get("attention_bias"):
        fields |= {"qkv_bias": True, "wo_bias": values.get("attention_out_bias") is not False}
    if kind.startswith("gemma"):
        fields["embedding_multiplier"] = math.sqrt(_positive(values, "hidden_size"))
    return ModelConfig(**{field: value for field, value in fields.items() if value is not None})


def refuse_others(data: Values, known: set[str], ignore_unknown: bool, prefix: str = "") -> None:
    """Raise InputError for a key that is neither known nor harmless; the message begins with the prefix.

    With `ignore_unknown`, warn about the unknown keys instead.
    """
    unknown = []
    for key, value in data.items():
        if key in known or key in _HARMLESS or key.startswith("_") or (value is None and key not in _NEUTRAL):
            continue
        if key in _NEUTRAL:
            if value not in _NEUTRAL[key]:
                needed = " or ".join(map(repr, _NEUTRAL[key]))
                raise InputError(f"{prefix}{key} is {value!r}, which is not supported; only {needed} is")
        else:
            unknown.append((prefix + key, value))
    refuse_unknown(unknown, ignore_unknown)


def refuse_unknown(unknown: Sequence[tuple[str, Any]], ignore_unknown: bool) -> None:
    """Raise InputError if there are unknown keys, or warn about them if they are to be ignored.

    Args:
        unknown: The keys, as a message names them, and their values.
        ignore_unknown: Whether to warn.
    """
    if not unknown:
        return
    if not ignore_unknown:
        raise InputError(
            f"{unknown[0][0]} (value {unknown[0][1]!r}) is not a known key and may change what the model computes; "
            "if it does not, --ignore-unknown (ignore_unknown=True) passes over it, also in bpe convert"
        )
    names = ", ".join(name for name, _ in unknown)
    warnings.warn(f"passed over {names}, which are not known and may change what the model computes", stacklevel=2)


def _check_type(key: str, value: Any, default: Any, is_nullable: bool) -> None:
    """Raise InputError unless a value has the type of a default; null is as good as no value where that is falsy."""
    if value is None:
        if default and not is_nullable:
            raise InputError(f"{key} is null; remove the key for its default ({default!r}), or give a value")
    elif isinstance(default, bool) and not isinstance(value, bool):
        raise InputError(f"{key} is {value!r}; expected true or false")
    elif key in _SOFTCAPS and not (_is_number(value) and value > 0):
        raise InputError(f"{key} is {value!r}; expected a positive number, or null for none")
    elif key == "head_dim" and (isinstance(value, bool) or not isinstance(value, int) or value <= 0):
        raise InputError(f"{key} is {value!r}; expected a positive whole number")
    elif isinstance(default, float) and not _is_number(value):
        raise InputError(f"{key} is {value!r}; expected a number")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _activation(kind: str, family: Family, values: Values) -> Activation:
    name = values[family.activation]
    if kind == "gemma" and name == "gelu":  # in Google's files, where it always meant the approximation
        name = "gelu_pytorch_tanh"
    if name not in _ACTIVATIONS:
        raise InputError(f"{family.activation} is {name!r}; supported are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _rope(family: Family, values: Values) -> dict[str, Any]:
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
    heads = _positive(values, "num_attention_heads")
    head_dim: int = values["head_dim"] or _positive(values, "hidden_size") // heads
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
        if name not in known:
            raise InputError(f"{prefix}{name} (value {value!r}) is not a key of the type {kind}; remove it")
        if name == "truncate":
            fits, expected = isinstance(value, bool), "true or false"
        elif name in ("short_factor", "long_factor"):
            fits, expected = isinstance(value, list) and all(map(_is_number, value)), "a list of numbers"
        else:
            fits, expected = name in ("rope_type", "type") or _is_number(value), "a number"
        if not fits and value is not None:
            raise InputError(f"{prefix}{name} is {value!r}; expected {expected}")


def _number(rope: Values, name: str, key: str, default: float | None = None) -> float:
    value = rope.get(name, default)
    if value is None:
        raise InputError(f"{key}: missing {name}")
    if not _is_number(value):
        raise InputError(f"{key}: {name} is {value!r}; expected a number")
    number: float = value
    return number


def _original(rope: Values, values: Values, key: str) -> Any:
    """Return the context before scaling, which Phi-3 gives outside of the object."""
    name = "original_max_position_embeddings"
    length = values.get(name) or _number(rope, name, key, values["max_position_embeddings"])
    if isinstance(length, bool) or not _is_number(length) or length <= 1:
        raise InputError(f"{name} is {length!r}; expected a whole number above 1")
    return length


def _linear(rope: Values, values: Values, key: str) -> dict[str, Any]:
    return {"rope_scaling": "linear", "rope_scaling_factor": _number(rope, "factor", key)}


def _dynamic(rope: Values, values: Values, key: str) -> dict[str, Any]:
    factor, original = _number(rope, "factor", key), _positive(values, "max_position_embeddings")
    return {
        "rope_scaling": "dynamic", "rope_scaling_factor": factor, "rope_original_length": original,
        "max_seq_len": max(original, int(factor * original)),
    }  # fmt: skip


def _llama3(rope: Values, values: Values, key: str) -> dict[str, Any]:
    return {
        "rope_scaling": "llama3",
        "rope_scaling_factor": _number(rope, "factor", key),
        "rope_low_freq_factor": _number(rope, "low_freq_factor", key),
        "rope_high_freq_factor": _number(rope, "high_freq_factor", key),
        "rope_original_length": _original(rope, values, key),
    }


def _yarn(rope: Values, values: Values, key: str) -> dict[str, Any]:
    original = _original(rope, values, key)
    factor = _number(rope, "factor", key)
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
    factor = _number(rope, "factor", key, values["max_position_embeddings"] / original)
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


# --- writing ---


def config_json(config: ModelConfig, dtype: DType) -> dict[str, Any]:
    """Return the content of a config.json, in the spelling that all versions of transformers read.

    Args:
        config: The configuration to write.
        dtype: The dtype of the weights.

    Raises:
        InputError: When no model type of transformers fits the configuration.
    """
    if config.dim % config.n_heads:
        raise InputError(
            f"Hugging Face's Llama requires dim ({config.dim}) to be divisible by n_heads ({config.n_heads});"
            " use the format bpe-llama"
        )
    for kind, family in FAMILIES.items():
        data = _written(kind, family, config)
        try:
            fits = config_of(data) == config
        except InputError:
            fits = False
        if fits:
            return data | {"torch_dtype": dtype_name(dtype), "use_cache": True}
    raise InputError(f"no Hugging Face model type computes what {config} does; use the format bpe-llama")


def _written(kind: str, family: Family, config: ModelConfig) -> dict[str, Any]:
    """Return a config.json of a family, which may describe another configuration if the family does not fit."""
    names = {name: key for key, name in _ACTIVATIONS.items() if key not in ("swish", "gelu_new")}
    window = max(config.windows, default=0)
    own: dict[str, Any] = {
        "attention_bias": config.wo_bias,
        "sliding_window": window or None,
        "use_sliding_window": window > 0,
        "max_window_layers": config.n_layers,
        "query_pre_attn_scalar": _shortest(config.attention_scale**-2),
        "no_rope_layers": [int(layer not in config.unrotated_layers) for layer in range(config.n_layers)],
        "partial_rotary_factor": config.rotated_dim / config.head_dim,
        "original_max_position_embeddings": config.rope_original_length,
        "rope_local_base_freq": config.local_rope_theta,
        "num_experts": config.n_experts,
        "num_local_experts": config.n_experts,
        "mlp_only_layers": list(config.dense_layers),
        **{key: getattr(config, _RESOLVED.get(field, field)) for key, field in family.fields.items()},
        **{key: getattr(config, field) or None for key, field in _SOFTCAPS.items()},
    }
    data = {
        "architectures": [family.architecture],
        "model_type": kind,
        **{key: getattr(config, field) for key, field in _FIELDS.items()},
        family.activation: names[config.activation],
        **{key: own[key] for key in family.keys if key in own},
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling(config),
    }
    if kind in ("smollm3", "phi3"):  # transformers' default is an id that a small vocabulary does not have
        data["pad_token_id"] = None
    if config.rope_scaling == "dynamic":
        data["max_position_embeddings"] = config.rope_original_length
    if "use_sliding_window" in data and not window:
        data.pop("sliding_window", None)
        data.pop("max_window_layers", None)
    if 0 < sum(map(bool, config.windows)) < config.n_layers or "max_window_layers" in data:
        data["layer_types"] = [f"{'sliding' if window else 'full'}_attention" for window in config.windows]
    return data


_RESOLVED = {"attention_multiplier": "attention_scale", "expert_hidden_dim": "expert_size"}
"""What is written for fields that are 0 by default."""


def _shortest(number: float) -> float:
    """Return the whole number that a power was meant to be, if it is one."""
    return round(number) if math.isclose(number, round(number), rel_tol=1e-9) else number


def _rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
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

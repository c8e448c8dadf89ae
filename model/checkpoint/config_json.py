"""A config.json of Hugging Face, from and to `ModelConfig`.

A configuration is written for the first family whose config.json reads back as the same configuration.
"""

from __future__ import annotations

import math
import re
from typing import Any

from bpe.errors import InputError
from model.checkpoint.config_values import Values, is_number, positive, refuse_unknown
from model.checkpoint.families import ACTIVATIONS, COMMON, FAMILIES, FIELDS, REQUIRED, SOFTCAPS, Family, layers
from model.checkpoint.rope_json import rope_fields, rope_scaling
from model.config import Activation, ModelConfig
from model.dtypes import DType, dtype_name

_FALSE = {"use_bidirectional_attention": (None, False), "rope_interleaved": (False,), "use_mrope": (False,)}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_activation": (None, "gelu_pytorch_tanh"),  # in Gemma's files, beside a hidden_act that means the same
    **_FALSE, "mlp_bias": (False,), "attention_bias": (False,), "partial_rotary_factor": (1.0,),
    "is_encoder_decoder": (False,), "add_cross_attention": (False,),
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
    "tokenizer_class", "prefix", "is_decoder",
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
        *SOFTCAPS,
    )
    own = {key: value for key, value in data.items() if key in known and (value is not None or key in nullable)}
    for key, value in data.items():
        if key in known:
            _check_type(key, value, defaults.get(key), key in nullable)
    values = {"model_type": kind, **defaults, **own}
    fields = {
        **{field: values[key] for key, field in FIELDS.items()},
        **{field: values[key] for key, field in family.fields.items()},
        **{field: compute(values) for field, compute in family.computed.items()},
        **family.settings,
        "activation": _activation(kind, family, values),
        "windows": family.windows(values),
        **rope_fields(family, values),
    }
    kinds = [f"{'sliding' if window else 'full'}_attention" for window in fields["windows"] or (0,) * layers(values)]
    if values["layer_types"] not in (None, kinds):
        raise InputError(
            f"layer_types is {values['layer_types']!r}, but a {kind} model of this configuration has {kinds}"
        )
    if values.get("attention_bias"):
        fields |= {"qkv_bias": True, "wo_bias": values.get("attention_out_bias") is not False}
    if kind.startswith("gemma"):
        fields["embedding_multiplier"] = math.sqrt(positive(values, "hidden_size"))
    given = {field: value for field, value in fields.items() if value is not None}
    try:
        return ModelConfig(**given)
    except InputError as error:
        raise InputError(_with_keys(str(error), family)) from None


def _with_keys(message: str, family: Family) -> str:
    """Return a message with the keys of config.json instead of the names of fields."""
    keys = {field: key for key, field in {**FIELDS, **family.fields}.items()}
    keys["n_experts"] = "num_experts" if "mlp_only_layers" in family.keys else "num_local_experts"
    return re.sub(r"\w+", lambda word: keys.get(word[0], word[0]), message)


def refuse_others(data: Values, known: set[str], ignore_unknown: bool, prefix: str = "") -> None:
    """Raise InputError for a key that is neither known nor harmless; the message begins with the prefix.

    With `ignore_unknown`, warn about the unknown keys instead.
    """
    unknown = []
    for key, value in data.items():
        if key in known or key in _HARMLESS or key.startswith("_") or (value is None and key not in _NEUTRAL):
            continue
        if key == "quantization_config" and value is not None:
            method = value.get("quant_method") if isinstance(value, dict) else None
            by = f" by {method}" if isinstance(method, str) else ""
            raise InputError(
                f"{prefix}{key}: weights quantized{by} are not read; download the original model, or a GGUF of it"
            )
        if key in _NEUTRAL:
            if value not in _NEUTRAL[key]:
                needed = " or ".join(map(repr, _NEUTRAL[key]))
                raise InputError(f"{prefix}{key} is {value!r}, which is not supported; only {needed} is")
        else:
            unknown.append((prefix + key, value))
    refuse_unknown(unknown, ignore_unknown)


def _check_type(key: str, value: Any, default: Any, is_nullable: bool) -> None:
    """Raise InputError unless a value has the type of a default; null is as good as no value where that is falsy."""
    if value is None:
        if default and not is_nullable:
            raise InputError(f"{key} is null; remove the key for its default ({default!r}), or give a value")
    elif isinstance(default, bool) and not isinstance(value, bool):
        raise InputError(f"{key} is {value!r}; expected true or false")
    elif key in SOFTCAPS and not (is_number(value) and value > 0):
        raise InputError(f"{key} is {value!r}; expected a positive number, or null for none")
    elif key == "head_dim" and (isinstance(value, bool) or not isinstance(value, int) or value <= 0):
        raise InputError(f"{key} is {value!r}; expected a positive whole number")
    elif isinstance(default, float) and not is_number(value):
        raise InputError(f"{key} is {value!r}; expected a number")


def _activation(kind: str, family: Family, values: Values) -> Activation:
    name = values[family.activation]
    if kind == "gemma" and name == "gelu":  # in Google's files, where it always meant the approximation
        name = "gelu_pytorch_tanh"
    if name not in ACTIVATIONS:
        raise InputError(f"{family.activation} is {name!r}; supported are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


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
    names = {name: key for key, name in ACTIVATIONS.items() if key not in ("swish", "gelu_new")}
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
        **{key: getattr(config, field) or None for key, field in SOFTCAPS.items()},
    }
    data = {
        "architectures": [family.architecture],
        "model_type": kind,
        **{key: getattr(config, field) for key, field in FIELDS.items()},
        family.activation: names[config.activation],
        **{key: own[key] for key in family.keys if key in own},
        "rope_theta": config.rope_theta,
        "rope_scaling": rope_scaling(config),
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

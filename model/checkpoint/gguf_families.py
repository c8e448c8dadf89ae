"""The metadata of GGUF for each supported architecture of llama.cpp, from and to `ModelConfig`.

An architecture is data: its keys, the settings that its graph in llama.cpp hard-codes, and what its files may hold. A
configuration is written for the first architecture whose metadata and tensors read back as the same configuration, so
what llama.cpp would compute differently is never written.
"""

from __future__ import annotations

import dataclasses
import math
import re
from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bpe.errors import InputError, did_you_mean
from bpe.formats.gguf_container import shown
from model.checkpoint.config_values import refuse_unknown
from model.checkpoint.gguf_rope import ROPE_KEYS, Numbers, rope_fields, rope_metadata, rope_tensors
from model.checkpoint.gguf_tensors import EMBEDDINGS, OUTPUT, layout, whole_shape
from model.config import ModelConfig

Values = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

_FIELDS = {
    "embedding_length": "dim",
    "block_count": "n_layers",
    "attention.head_count": "n_heads",
    "attention.head_count_kv": "n_kv_heads",
    "attention.key_length": "head_dim",
    "feed_forward_length": "hidden_dim",
    "vocab_size": "vocab_size",
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "rope.freq_base": "rope_theta",
    "context_length": "max_seq_len",
}
"""The field of each key that all architectures have."""
_REQUIRED = (
    *("embedding_length", "block_count", "attention.head_count", "feed_forward_length", "context_length"),
    "attention.layer_norm_rms_epsilon",
)
_MOST_PARAMETERS = 2**48
# The largest whole number and the longest text among the keys of an architecture.
_LARGEST, _LONGEST_TEXT = 2**48, 80
_WINDOW, _PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
_EXPERTS = {"expert_count": "n_experts", "expert_used_count": "n_experts_per_token"}
_BIASES = {
    "qkv_bias": ("blk.0.attn_q.bias", "blk.0.attn_qkv.bias"),
    "wo_bias": ("blk.0.attn_output.bias",),
    "ffn_bias": ("blk.0.ffn_gate.bias",),
}
"""The tensors whose presence sets a field."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,), "expert_used_count": (0,), "attention.causal": (True,), "expert_weights_scale": (0.0, 1.0),
    "expert_weights_norm": (True,), "expert_gating_func": (0, 1), "expert_shared_count": (0,),
    "expert_group_count": (0, 1), "expert_group_used_count": (0, 1), "leading_dense_block_count": (0,),
    "nextn_predict_layers": (0,), "logit_scale": (0.0, 1.0), "attention.clamp_kqv": (0.0,),
    "embedding_scale": (0.0, 1.0), "residual_scale": (0.0, 1.0), "attention.scale": (0.0,),
    "attn_logit_softcapping": (0.0,), "final_logit_softcapping": (0.0,), "use_parallel_residual": (True,),
}  # fmt: skip
"""Keys that change the result unless they have one of these values, the only ones that architectures without them
take."""
_OTHERS = ("attention.value_length", "rope.dimension_count", _WINDOW, "rope.scaling.finetuned", "tensor_data_layout")
"""Keys that are checked elsewhere, and keys that change nothing."""


class Architecture(NamedTuple):
    """An architecture of llama.cpp."""

    halved: bool = True
    """Whether the rows of queries and keys are in halved order; see `model.checkpoint.names`."""
    settings: Mapping[str, Any] = {}
    """The fields of `ModelConfig` that all models of the architecture have."""
    fields: Mapping[str, str] = {}
    """The field of each key beside those of all architectures."""
    defaults: Mapping[str, Any] = {}
    """The values of keys that are missing."""
    biases: tuple[str, ...] = ()
    """The fields of biases that a file may have."""
    windows: bool = False
    """Whether every layer may have a window. llama.cpp passes over it: beyond the window, it attends to all tokens."""
    pattern: int = 0
    """If positive, every layer has the window except each of this number."""
    scalings: tuple[str, ...] = ("linear", "yarn")
    """The scalings of RoPE."""
    partial: bool = False
    """Whether a part of a head may be rotated."""
    square: bool = False
    """Whether the heads together must have the size of the residual stream."""
    tied: bool | None = None
    """Whether the output matrix is the embedding matrix; None if that follows from the tensors."""
    fused: bool = False
    """Whether files join the matrices of queries, keys and values, and those of the gate and its input."""
    experts: bool = False
    """Whether every layer may have experts."""
    largest_layers: int = 0
    """The number of layers of the model whose attention is scaled by dim / n_heads instead of the size of a head."""


_SOFTCAPS = {"attn_logit_softcapping": "attention_softcap", "final_logit_softcapping": "logits_softcap"}
_GEMMA = {"activation": "gelu_tanh", "norm_offset": True}
_ALL = ("linear", "yarn", "llama3", "longrope")

ARCHITECTURES: dict[str, Architecture] = {
    "qwen2": Architecture(settings={"qkv_bias": True}, square=True),
    "llama": Architecture(
        halved=False,
        fields=_EXPERTS,
        biases=("qkv_bias", "wo_bias", "ffn_bias"),
        windows=True,
        scalings=_ALL,
        experts=True,
    ),
    "qwen3": Architecture(settings={"qk_norm": "head"}, biases=("qkv_bias",)),
    "qwen3moe": Architecture(
        settings={"qk_norm": "head"},
        fields={**_EXPERTS, "expert_feed_forward_length": "expert_hidden_dim"},
        biases=("qkv_bias",),
        experts=True,
    ),
    "phi3": Architecture(windows=True, scalings=("linear", "yarn", "longrope"), partial=True, square=True, fused=True),
    "granite": Architecture(
        halved=False,
        fields={
            "logit_scale": "logits_scaling",
            "embedding_scale": "embedding_multiplier",
            "residual_scale": "residual_multiplier",
            "attention.scale": "attention_multiplier",
        },
        biases=("qkv_bias", "wo_bias", "ffn_bias"),
        scalings=_ALL,
    ),
    "olmo2": Architecture(
        settings={"pre_norm": False, "post_norm": True, "qk_norm": "all"},
        biases=("qkv_bias",),
        square=True,
        tied=False,
    ),
    "smollm3": Architecture(halved=False, biases=("qkv_bias",)),
    "gemma": Architecture(settings=_GEMMA, biases=("qkv_bias",), tied=True),
    "gemma2": Architecture(
        settings={**_GEMMA, "post_norm": True},
        fields=_SOFTCAPS,
        defaults={"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, _WINDOW: 4096},
        biases=("qkv_bias",),
        pattern=2,
        tied=True,
        largest_layers=46,
    ),
    "gemma3": Architecture(
        settings={**_GEMMA, "post_norm": True, "qk_norm": "head"},
        fields={"final_logit_softcapping": "logits_softcap", "rope.freq_base_swa": "local_rope_theta"},
        defaults={"rope.freq_base_swa": 10000.0},
        biases=("qkv_bias",),
        pattern=6,
        scalings=("linear",),
        largest_layers=62,
    ),
}
"""The supported architectures, in the order in which a configuration is tried for writing."""
_UNROTATED_STEP = 4  # of smollm3: each fourth layer has no positions


# --- reading ---


def architecture_of(metadata: Values) -> str:
    """Return the name of the architecture of a file.

    Raises:
        InputError: When it is missing or not supported.
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        meant = did_you_mean(name, ARCHITECTURES) if isinstance(name, str) else ""
        raise InputError(f"general.architecture is {shown(name)}; supported are {', '.join(ARCHITECTURES)}{meant}")
    return name


def config_of(metadata: Values, tensors: Shapes, numbers: Numbers, ignore_unknown: bool = False) -> ModelConfig:
    """Return the configuration that the metadata and the tensors of a file describe.

    Args:
        metadata: The metadata.
        tensors: The shape of each tensor by llama.cpp's name.
        numbers: Returns the numbers of a tensor in float32; see `gguf_rope.rope_fields`.
        ignore_unknown: Pass over keys that are not known, instead of raising.

    Raises:
        InputError: When the model is not supported, or a key is unknown, since an unknown key may change the result.
            The message names the key.
    """
    name = architecture_of(metadata)
    architecture, prefix = ARCHITECTURES[name], f"{name}."
    values = {
        key[len(prefix) :]: _single(key, value, key == prefix + _PATTERN)
        for key, value in metadata.items()
        if key.startswith(prefix)
    }
    _refuse_others(prefix, architecture, values, ignore_unknown)
    missing = [prefix + key for key in _REQUIRED if key not in values]
    if missing:
        raise InputError(f"missing {', '.join(missing)}")
    if EMBEDDINGS in tensors:
        rows = tensors[EMBEDDINGS][0] if tensors[EMBEDDINGS] else 0
        if values.setdefault("vocab_size", rows) != rows:
            raise InputError(f"{prefix}vocab_size is {values['vocab_size']!r}, but {EMBEDDINGS} has {rows} rows")
    values = {**architecture.defaults, **values}
    given = {field: values[key] for key, field in (_FIELDS | {**architecture.fields}).items() if key in values}
    for key, field in architecture.fields.items():
        if key.endswith("_scale") and given.get(field) == 0:  # llama.cpp takes 0 for no scale
            del given[field]
        if key == "rope.freq_base_swa" and given[field] == 0:
            raise InputError(f"{prefix}{key} is {given[field]!r}; it must be a positive number")
    tied = OUTPUT not in tensors if architecture.tied is None else architecture.tied
    fields = {
        "rope_theta": 10000.0,
        **given,
        **architecture.settings,
        **{field: any(each in tensors for each in _BIASES[field]) for field in architecture.biases},
        "tied_embeddings": tied,
    }
    try:
        config = ModelConfig(**fields)
    except InputError as error:
        raise InputError(f"{error}{_keys_in(str(error), prefix, architecture)}") from None
    if config.n_parameters > _MOST_PARAMETERS:  # torch overflows on the sizes of much larger tensors
        raise InputError(f"the metadata describe a model of {config.n_parameters:,} parameters; the file is damaged")
    more = _more_fields(prefix, architecture, values, config)
    config = dataclasses.replace(config, **more)
    scaling = rope_fields(prefix, architecture.scalings, values, tensors, numbers, config)
    return dataclasses.replace(config, **scaling)


def _keys_in(message: str, prefix: str, architecture: Architecture) -> str:
    """Return the keys of the fields that a message names, in brackets."""
    keys = {field: prefix + key for key, field in (_FIELDS | {**architecture.fields}).items()}
    found = [keys[word] for word in dict.fromkeys(re.findall(r"\w+", message)) if word in keys]
    return f" (in the file: {', '.join(found)})" if found else ""


def _more_fields(prefix: str, architecture: Architecture, values: Values, config: ModelConfig) -> dict[str, Any]:
    """Return the fields that depend on others or on the architecture."""
    more: dict[str, Any] = {"windows": _windows(prefix, architecture, values, config)}
    if values.get("attention.value_length", config.head_dim) != config.head_dim:
        raise InputError(
            f"{prefix}attention.value_length is {values['attention.value_length']!r}, but a head has"
            f" {config.head_dim} numbers; the two must be equal"
        )
    rotated = values.get("rope.dimension_count", config.head_dim)
    if rotated != config.head_dim and not architecture.partial:
        raise InputError(
            f"{prefix}rope.dimension_count is {rotated!r}, but a head has {config.head_dim} numbers; the two must be"
            " equal"
        )
    more["rotary_dim"] = rotated
    if config.norm_offset:
        more["embedding_multiplier"] = math.sqrt(config.dim)
    if config.n_layers == architecture.largest_layers:
        more["attention_multiplier"] = float((config.dim // config.n_heads) ** -0.5)
    if prefix == "smollm3.":
        more["unrotated_layers"] = tuple(range(_UNROTATED_STEP - 1, config.n_layers, _UNROTATED_STEP))
    if prefix == "granite." and values.get("rope.scaling.finetuned", True) is not True:
        raise InputError(f"{prefix}rope.scaling.finetuned is false: a model without positions, which is not supported")
    if architecture.square and config.n_heads * config.head_dim != config.dim:
        raise InputError(
            f"{prefix}attention.key_length is {config.head_dim}, but {config.n_heads} heads must have"
            f" {prefix}embedding_length ({config.dim}) numbers together"
        )
    return more


def _windows(prefix: str, architecture: Architecture, values: Values, config: ModelConfig) -> tuple[int, ...]:
    window, pattern = values.get(_WINDOW, 0), values.get(_PATTERN)
    if isinstance(window, bool) or not isinstance(window, int) or window < 0:
        raise InputError(f"{prefix}{_WINDOW} is {window!r}; expected a number of tokens, or 0 for none")
    if not architecture.pattern:
        if window == 0 or window >= config.max_seq_len:
            return ()
        if architecture.windows:
            return (window,) * config.n_layers
        raise InputError(
            f"{prefix}{_WINDOW} is {window!r}, less than the context of {config.max_seq_len} tokens, which is not"
            " supported for this architecture"
        )
    if isinstance(pattern, list):
        if len(pattern) != config.n_layers:
            raise InputError(f"{prefix}{_PATTERN} has {len(pattern)} values; expected one for each layer")
        if any(slides not in (0, 1) for slides in pattern):
            raise InputError(f"{prefix}{_PATTERN} is {shown(pattern)}; expected 1 or 0 for each layer")
        return tuple(window * bool(slides) for slides in pattern)
    step = architecture.pattern if pattern is None else pattern
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise InputError(f"{prefix}{_PATTERN} is {step!r}; expected a number of layers, or a value for each layer")
    return tuple(window * (step == 0 or layer % step < step - 1) for layer in range(config.n_layers))


def _single(key: str, value: Any, is_list: bool = False) -> Any:
    """Return the shortest decimal of a float32 value: 1e-5 for 9.99999974737875e-06; a list of values for a pattern."""
    if isinstance(value, (list, memoryview)):
        if is_list:
            return [*value]
        if not value:
            raise InputError(f"{key} is an empty array; expected a value, or one for each layer")
        if len({*value}) != 1:
            raise InputError(f"{key} differs from layer to layer, which is not supported")
        value = value[0]
    if isinstance(value, str) and len(value) > _LONGEST_TEXT or isinstance(value, int) and value > _LARGEST:
        raise InputError(f"{key} is {shown(value)}; the file is damaged")
    if isinstance(value, float):
        with np.errstate(over="ignore", under="ignore"):
            narrow = np.float32(value)
        if math.isfinite(value) and (math.isinf(narrow) or narrow == 0 != value):
            raise InputError(f"{key} is {value!r}, which is beyond the range of a float32; the file is damaged")
        if float(narrow) == value:
            return float(str(narrow))
    return value


def _refuse_others(prefix: str, architecture: Architecture, values: Values, ignore_unknown: bool) -> None:
    unknown = []
    known = {*_FIELDS, *architecture.fields, *_OTHERS, *ROPE_KEYS, *([_PATTERN] if architecture.pattern else [])}
    for key, value in values.items():
        if key in known:
            continue
        if key in _NEUTRAL:
            if value not in _NEUTRAL[key]:
                raise InputError(f"{prefix}{key} is {value!r}, which is not supported; only {_NEUTRAL[key][-1]!r} is")
        else:
            unknown.append((prefix + key, value))
    refuse_unknown(unknown, ignore_unknown)
    if values.get("expert_count") and architecture.experts and not values.get("expert_used_count"):
        raise InputError(
            f"{prefix}expert_count is {values['expert_count']!r}, but {prefix}expert_used_count is missing"
        )


# --- writing ---

_STRUCTURE = ("activation", "n_experts", "norm_offset", "post_norm", "pre_norm", "qk_norm")
"""The fields in which architectures differ most. They decide which one a message names as the closest."""
_RESOLVED = {"attention_multiplier": "attention_scale", "expert_hidden_dim": "expert_size"}
"""The number that is meant by fields that are 0 by default."""


def described(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Return the architecture of a configuration, and its metadata.

    Raises:
        InputError: When no architecture computes what the configuration says; the message names the fields of the
            architecture that comes closest.
    """
    closest: tuple[int, str, str] | None = None
    for name, architecture in ARCHITECTURES.items():
        metadata = _metadata(name, architecture, config)
        tensors = {
            theirs: whole_shape(theirs, parts, config) for theirs, parts in layout(config, architecture.fused).items()
        }
        extra = rope_tensors(config) if config.rope_scaling in architecture.scalings else {}
        tensors |= {theirs: numbers.shape for theirs, numbers in extra.items()}
        try:
            read = config_of(metadata, tensors, extra.__getitem__)
        except InputError:
            continue
        different = _differences(config, read)
        if not different:
            return name, metadata
        distance = sum(3 if field in _STRUCTURE else 1 for field in different)
        if closest is None or distance < closest[0]:
            field = _RESOLVED.get(different[0], different[0])
            more = f" (nor {', '.join(different[1:4])})" if different[1:] else ""
            wanted, found = (getattr(each, field) for each in (config, read))
            closest = (distance, name, f"{different[0]} {wanted!r}{more}: llama.cpp computes with {found!r}")
    images = "cross_attention_layers, vision" if config.vision is not None else "its sizes"
    _, name, reason = closest or (0, "llama", images)
    raise InputError(
        f"GGUF's architecture {name}, the closest, cannot hold {reason}; use the format huggingface or bpe-llama"
    )


def differences_in_llama_cpp(name: str, config: ModelConfig) -> list[str]:
    """Return a sentence for each setting that a file holds, but that llama.cpp applies otherwise.

    Published files of these models have the same settings. Up to a number of tokens, which the sentence names,
    llama.cpp computes the same.

    Args:
        name: The architecture that `described` returns.
        config: The configuration.
    """
    found = []
    window = max(config.windows, default=0)
    if ARCHITECTURES[name].windows and 0 < window < config.max_seq_len:
        found.append(
            f"llama.cpp passes over {name}.{_WINDOW}: in texts of more than {window} tokens, it attends to all of them"
            " and its logits differ"
        )
    if config.rope_scaling == "longrope" and config.rope_original_length < config.max_seq_len:
        found.append(
            f"llama.cpp chooses the factors of longrope by the size of its context, not by the length of the text: up"
            f" to {config.rope_original_length} tokens, give it -c {config.rope_original_length} for the same logits"
        )
    return found


def _metadata(name: str, architecture: Architecture, config: ModelConfig) -> dict[str, Any]:
    """Return the metadata of a configuration, which may describe another one if the architecture does not fit."""
    values = {key: getattr(config, field) for key, field in _FIELDS.items()}
    rotated = config.rotated_dim if architecture.partial else config.head_dim
    values |= {"attention.value_length": config.head_dim, "rope.dimension_count": rotated}
    for key, field in architecture.fields.items():
        value = config.expert_size if field == "expert_hidden_dim" else getattr(config, field)
        if value or key == "logit_scale":
            values[key] = value
    window = max(config.windows, default=0)
    if architecture.windows and window or architecture.pattern:
        values[_WINDOW] = window
    if architecture.pattern and window:
        slides = [bool(each) for each in config.windows]
        if slides != [layer % architecture.pattern < architecture.pattern - 1 for layer in range(config.n_layers)]:
            steps = [
                step
                for step in range(2, config.n_layers + 1)
                if slides == [layer % step < step - 1 for layer in range(config.n_layers)]
            ]
            values[_PATTERN] = steps[0] if steps else memoryview(array("b", slides)).cast("B").cast("?")
    if config.rope_scaling in architecture.scalings:
        values |= rope_metadata(config)
    return {"general.architecture": name, **{f"{name}.{key}": value for key, value in values.items()}}


def _differences(config: ModelConfig, other: ModelConfig) -> list[str]:
    """Return the names of the fields that differ, beyond the precision of a float32."""
    return [
        field.name
        for field in dataclasses.fields(config)
        if not _are_close(*(_comparable(each, field.name) for each in (config, other)))
    ]


def _comparable(config: ModelConfig, name: str) -> Any:
    value = getattr(config, name)
    if name == "windows" and not config.local_rope_theta:
        windows = tuple(window * (0 < window < config.max_seq_len) for window in value)
        return windows if any(windows) else ()
    return value


def _are_close(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_are_close, one, other))
    return bool(one == other)

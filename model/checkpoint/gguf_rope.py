"""The scaling of RoPE in a GGUF: keys, and tensors of divisors, from and to the fields of `ModelConfig`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bpe.errors import InputError
from model.config import ModelConfig
from model.rotary import rope_frequencies

Floats = npt.NDArray[np.float32]
Numbers = Callable[[str], Floats]
"""Returns the numbers of a tensor of the file in float32."""

DIVISORS = "rope_freqs.weight"
_LONG, _SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
ROPE_TENSORS = (DIVISORS, _LONG, _SHORT)
"""The tensors of RoPE, which hold no weights of the model."""
_TYPE, _FACTOR, _ORIGINAL = "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"
_ATTENTION = "rope.scaling.attn_factor"
_YARN = {"rope.scaling.yarn_beta_fast": "rope_beta_fast", "rope.scaling.yarn_beta_slow": "rope_beta_slow"}
_LLAMA3 = {
    "rope.scaling.llama3.factor": "rope_scaling_factor",
    "rope.scaling.llama3.low_freq_factor": "rope_low_freq_factor",
    "rope.scaling.llama3.high_freq_factor": "rope_high_freq_factor",
}
"""Keys of our own for numbers that do not follow from the tensor of divisors. llama.cpp only uses the tensor."""
_NEUTRAL: dict[str, tuple[float, ...]] = {
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "rope.scaling.yarn_ext_factor": (-1.0, 1.0),
    "rope.scaling.yarn_attn_factor": (-1.0, 1.0),
}
ROPE_KEYS = (_TYPE, _FACTOR, "rope.scale_linear", _ORIGINAL, _ATTENTION, *_YARN, *_LLAMA3, *_NEUTRAL)
"""The keys of scaling, without the architecture in front."""


def rope_fields(
    prefix: str,
    scalings: tuple[str, ...],
    values: Mapping[str, Any],
    tensors: Mapping[str, tuple[int, ...]],
    numbers: Numbers,
    config: ModelConfig,
) -> dict[str, Any]:
    """Return the fields that scale RoPE.

    Args:
        prefix: What precedes each key, for messages.
        scalings: The scalings that the architecture computes.
        values: The metadata without the prefix.
        tensors: The shapes of the tensors of the file.
        numbers: Returns the numbers of a tensor.
        config: The configuration without scaling.

    Raises:
        InputError: When the scaling is not supported; the message names the key or tensor.
    """
    for key, allowed in _NEUTRAL.items():
        if values.get(key, allowed[-1]) not in allowed:
            raise InputError(f"{prefix}{key} is {values[key]!r}, which is not supported; only {allowed[-1]!r} is")
    for key in (_FACTOR, "rope.scale_linear", _ORIGINAL, _ATTENTION, *_YARN, *_LLAMA3):
        value = values.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise InputError(f"{prefix}{key} is {value!r}; expected a positive number")
    kind, factor = values.get(_TYPE, "linear"), values.get(_FACTOR, values.get("rope.scale_linear", 1.0)) or 1.0
    attention = values.get(_ATTENTION, 1.0)
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise InputError(f"{prefix}{_TYPE} is {kind!r}; supported are none, linear, yarn and longrope")
    found = [name for name in ROPE_TENSORS if name in tensors]
    by_tensor = {DIVISORS: "llama3", _LONG: "longrope", _SHORT: "longrope"}
    unused = [name for name in found if by_tensor[name] not in scalings]
    if unused:
        raise InputError(f"{unused[0]} scales RoPE, which a model of the architecture {prefix[:-1]} does not do by it")
    fields: dict[str, Any] = {}
    if kind == "longrope" or _LONG in found or _SHORT in found:
        missing = [name for name in (_LONG, _SHORT) if name not in found]
        if missing:
            raise InputError(f"{prefix}{_TYPE} is {kind!r}, but the tensor {missing[0]} is missing")
        original = values.get(_ORIGINAL, config.max_seq_len)
        fields = {
            "rope_scaling": "longrope",
            "rope_original_length": original,
            "rope_attention_factor": _longrope_size(attention, original, config.max_seq_len),
            "rope_short_factors": _shortest(_divisors(_SHORT, tensors, numbers, config)),
            "rope_long_factors": _shortest(_divisors(_LONG, tensors, numbers, config)),
        }
    elif DIVISORS in found:
        fields = _llama3(prefix, values, _divisors(DIVISORS, tensors, numbers, config), config)
    if fields:
        if factor != 1:
            raise InputError(f"{prefix}{_FACTOR} is {factor!r}, but {found[0]} scales RoPE already; remove one of them")
    elif factor != 1:
        fields = _by_factor(prefix, kind, factor, values, config)
    if fields.get("rope_scaling", "none") not in ("none", *scalings):
        raise InputError(f"{prefix}{_TYPE} is {kind!r}, which is not supported; {', '.join(scalings)} are")
    _refuse_lost_divisors(prefix, scalings, values, found, fields)
    if attention != 1 and "rope_attention_factor" not in fields:
        raise InputError(f"{prefix}{_ATTENTION} is {attention!r}, which is not supported without yarn or longrope")
    return fields


def _refuse_lost_divisors(
    prefix: str,
    scalings: tuple[str, ...],
    values: Mapping[str, Any],
    found: Sequence[str],
    fields: Mapping[str, Any],
) -> None:
    """Raise InputError if keys belong to Llama 3.1's scaling, but its tensor is missing."""
    keys = [key for key in _LLAMA3 if key in values]
    if "llama3" in scalings and not found and not fields and _TYPE not in values and values.get(_ORIGINAL):
        keys.append(_ORIGINAL)
    if keys and fields.get("rope_scaling") != "llama3":
        raise InputError(
            f"{prefix}{keys[0]} is {values[keys[0]]!r}, but the tensor {DIVISORS}, which scales RoPE, is missing;"
            " convert the model again"
        )


def _by_factor(prefix: str, kind: str, factor: float, values: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Return the fields of the scalings that a factor describes."""
    if kind == "none":
        raise InputError(f"{prefix}{_FACTOR} is {factor!r}, but {prefix}{_TYPE} is 'none'; remove one of them")
    if kind == "linear":
        return {"rope_scaling": "linear", "rope_scaling_factor": factor}
    return {
        "rope_scaling": "yarn",
        "rope_scaling_factor": factor,
        "rope_original_length": values.get(_ORIGINAL, config.max_seq_len),
        **{field: values[key] for key, field in _YARN.items() if key in values},
        "rope_attention_factor": _times_yarn_size(values.get(_ATTENTION, 1.0), factor),
    }


def _times_yarn_size(attention: float, factor: float) -> float:
    """Return the factor of rotated vectors, of which a file has the quotient with YaRN's in float32."""
    size = _yarn_size(factor)
    return size if attention == 1 else float(f"{attention * size:.7g}")


def _yarn_size(factor: float) -> float:
    """Return the factor of rotated vectors in YaRN (arXiv:2309.00071, section 3.4)."""
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def _longrope_size(stored: float, original: int, longest: int) -> float:
    """Return the factor of rotated vectors in LongRoPE, of which a file has the float32."""
    if 1 < original < longest:
        exact = math.sqrt(1 + math.log(longest / original) / math.log(original))
        return exact if np.float32(exact) == np.float32(stored) else stored
    return stored


def _divisors(name: str, tensors: Mapping[str, tuple[int, ...]], numbers: Numbers, config: ModelConfig) -> Floats:
    count = config.rotated_dim // 2
    if tensors[name] != (count,):
        raise InputError(f"{name} has the shape {[*tensors[name]]}, expected [{count}]")
    return numbers(name)


def _shortest(divisors: Floats) -> tuple[float, ...]:
    """Return the shortest decimals of some numbers, as JSON has them."""
    return tuple(float(str(number)) for number in divisors)


def _llama3(prefix: str, values: Mapping[str, Any], found: Floats, config: ModelConfig) -> dict[str, Any]:
    """Return the fields of Llama 3.1's scaling, by its tensor of divisors.

    The tensor is determined by four numbers. Three are the same in all of Meta's models, so the fourth, the factor,
    follows from the divisor of any scaled frequency. Raises InputError if these four do not reproduce the tensor.
    """
    divisors = found.astype(np.float64)
    own = {field: values[key] for key, field in _LLAMA3.items() if key in values}
    if np.array_equal(divisors, np.ones_like(divisors)) and not own:
        return {}
    fields = {
        "rope_scaling": "llama3", "rope_original_length": values.get(_ORIGINAL, 8192), "rope_low_freq_factor": 1.0,
        "rope_high_freq_factor": 4.0, **own,
    }  # fmt: skip
    if "rope_scaling_factor" not in own:
        # A divisor is 1 / (kept + (1 - kept) / factor), where kept is the share of the frequency that an infinite
        # factor would leave.
        slowest = dataclasses.replace(config, **{**fields, "rope_scaling_factor": 1e300})
        kept = rope_frequencies(slowest)[-1] / rope_frequencies(config)[-1]
        with np.errstate(all="ignore"):
            fields["rope_scaling_factor"] = round(float((1 - kept) / (1 / divisors[-1] - kept)), 3)
    if math.isfinite(fields["rope_scaling_factor"]) and fields["rope_scaling_factor"] > 0:
        scaled = dataclasses.replace(config, **fields)
        if np.allclose(divisors, rope_divisors(scaled), rtol=1e-4):
            return fields
    raise InputError(
        f"{DIVISORS} does not scale RoPE as Llama 3.1 does, from an original context of"
        f" {fields['rope_original_length']} tokens ({prefix}{_ORIGINAL}); other scalings are not supported"
    )


def rope_divisors(config: ModelConfig) -> Floats:
    """Return the divisor of each RoPE frequency under Llama 3.1's scaling: float32 [head_dim / 2]."""
    return rope_frequencies(dataclasses.replace(config, rope_scaling="none")) / rope_frequencies(config)


# --- writing ---


def rope_tensors(config: ModelConfig) -> dict[str, Floats]:
    """Return the tensors that scale RoPE, by name: float32 [rotary_dim / 2]."""
    if config.rope_scaling == "llama3":
        return {DIVISORS: rope_divisors(config)}
    if config.rope_scaling == "longrope":
        factors = {_LONG: config.rope_long_factors, _SHORT: config.rope_short_factors}
        return {name: np.array(numbers, np.float32) for name, numbers in factors.items()}
    return {}


def rope_metadata(config: ModelConfig) -> dict[str, Any]:
    """Return the keys that scale RoPE, without the architecture in front."""
    kind, original = config.rope_scaling, {_ORIGINAL: config.rope_original_length}
    if kind == "linear":
        return {_TYPE: kind, _FACTOR: config.rope_scaling_factor}
    if kind == "yarn":
        size = config.rope_attention_factor / _yarn_size(config.rope_scaling_factor)
        attention = {} if math.isclose(size, 1, rel_tol=1e-9) else {_ATTENTION: size}
        return {_TYPE: kind, _FACTOR: config.rope_scaling_factor, **original, **attention}
    if kind == "longrope":
        return {_TYPE: kind, **original, _ATTENTION: config.rope_attention_factor}
    if kind == "llama3":
        return original | _own_llama3(config, original)
    return {}


def _own_llama3(config: ModelConfig, original: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of Llama 3.1's scaling that do not follow from the tensor of divisors."""
    plain = dataclasses.replace(config, rope_scaling="none")
    own = {key: getattr(config, field) for key, field in _LLAMA3.items()}
    try:
        read = _llama3("", original, rope_divisors(config), plain)
        follows = dataclasses.replace(plain, **read) == config
    except InputError:
        follows = False
    return {} if follows else own

"""How a checkpoint asks to be sampled: in generation_config.json, or in the metadata of a GGUF.

The settings have the names of the fields of `model.generation.sampling.Sampling`. A temperature of 0 takes the most
likely token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpe.errors import InputError
from model.checkpoint.opened import read_optional_json

GENERATION = "generation_config.json"
_NAMES = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
_IN_GGUF = dict(zip(("temp", "top_k", "top_p", "min_p", "penalty_repeat"), _NAMES, strict=True))
_PREFIX = "general.sampling."
# transformers samples with these where do_sample is true and the file does not set them.
_WHERE_SAMPLED = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}
# Settings of transformers that change the generated text and are not implemented here, with their neutral values.
_UNUSED: dict[str, tuple[object, ...]] = {
    "num_beams": (1,), "no_repeat_ngram_size": (0,), "encoder_no_repeat_ngram_size": (0,), "typical_p": (1.0,),
    "bad_words_ids": (), "suppress_tokens": ([],), "begin_suppress_tokens": ([],), "sequence_bias": ({},),
    "forced_bos_token_id": (), "forced_eos_token_id": (), "min_length": (0,), "min_new_tokens": (0,),
    "penalty_alpha": (0,), "encoder_repetition_penalty": (1.0,), "epsilon_cutoff": (0.0,), "eta_cutoff": (0.0,),
    "top_h": (), "guidance_scale": (1.0,), "exponential_decay_length_penalty": (), "watermarking_config": (),
}  # fmt: skip


def read_sampling(directory: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read the settings in the generation_config.json of a directory.

    Returns:
        The settings, and the names of settings in the file that are not implemented. Both are empty without a file.

    Raises:
        InputError: When the file is damaged, or a setting is not a number; the message names it.
    """
    path = directory / GENERATION
    given = {key: value for key, value in read_optional_json(path).items() if value is not None}
    sampled = given.get("do_sample")
    if sampled not in (None, True, False):
        raise InputError(f"{path}: do_sample is {sampled!r}; expected true or false")
    settings = {name: given[name] for name in _NAMES if name in given and (sampled or name == "repetition_penalty")}
    if sampled:
        settings = _WHERE_SAMPLED | settings
    elif sampled is False:
        settings["temperature"] = 0.0
    unused = (name for name, neutral in _UNUSED.items() if name in given and given[name] not in neutral)
    return _checked(settings, f"{path}: "), tuple(unused)


def sampling_in_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in the metadata of a GGUF.

    Raises:
        InputError: When a setting is not a number; the message names its key.
    """
    settings = {name: metadata[_PREFIX + key] for key, name in _IN_GGUF.items() if _PREFIX + key in metadata}
    checked = _checked(settings, _PREFIX)
    # 0.7 for the float32 0.699999988079071
    return {name: float(f"{value:.7g}") if isinstance(value, float) else value for name, value in checked.items()}


def _checked(settings: dict[str, Any], where: str) -> dict[str, Any]:
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"{where}{name} is {value!r}; expected a number")
    if "top_k" in settings:
        settings["top_k"] = int(settings["top_k"]) or None  # 0 for no limit
    return settings


def sampling_metadata(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a GGUF for settings."""
    return {_PREFIX + key: _written(name, settings[name]) for key, name in _IN_GGUF.items() if name in settings}


def _written(name: str, value: Any) -> float | int:
    """Return a setting in the type that files have: top_k is 0 for no limit."""
    return int(value or 0) if name == "top_k" else float(value)


def generation_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a generation_config.json for settings."""
    if not settings:
        return {}
    if settings.get("temperature", 1.0) == 0:
        kept = {"repetition_penalty": settings["repetition_penalty"]} if "repetition_penalty" in settings else {}
        return {"do_sample": False, **kept}
    sampled = {"do_sample": True} if "temperature" in settings else {}
    return sampled | {name: _written(name, value) for name, value in settings.items()}

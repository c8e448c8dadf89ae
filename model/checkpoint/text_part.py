"""The text part of checkpoints that also read images, opened as a model of text alone: Gemma 3 of 4B and more, and
Mistral Small 3.1 and later."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from bpe.errors import InputError
from model.checkpoint.config_json import config_of
from model.config import ModelConfig

TYPES = {"gemma3": "gemma3_text", "mistral3": "mistral"}
"""The model type of the text part, by that of the whole model."""
_DEFAULTS = {
    "gemma3_text": {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "vocab_size": 262208,
    },
    "mistral": {},
}  # fmt: skip
"""transformers' defaults of keys that published files leave out."""
_IMAGES = re.compile(r"(?:model\.)?(?:vision_tower|multi_modal_projector)\..+")
_TEXT = re.compile(r"(?:model\.)?language_model\.(?:model\.)?")


def config_of_text(data: Mapping[str, Any], ignore_unknown: bool = False) -> ModelConfig:
    """Return the configuration of the text part, and warn that the rest is left out.

    Args:
        data: The content of the config.json of the whole model.
        ignore_unknown: As for `config_of`.

    Raises:
        InputError: When there is no text part, or as `config_of` does.
    """
    text = data.get("text_config")
    if not isinstance(text, dict):
        raise InputError(f"text_config is {text!r}; expected an object that describes the text part")
    expected = TYPES[data["model_type"]]
    kind = text.get("model_type") or expected
    if kind != expected:
        raise InputError(f"text_config: model_type is {kind!r}; expected {expected!r}")
    tied = data.get("tie_word_embeddings", True)  # transformers ignores the key of the text part
    if tied is None:
        raise InputError("tie_word_embeddings is null; remove the key for its default (True), or give a value")
    try:
        given = {**_DEFAULTS[kind], **text, "model_type": kind, "architectures": None, "tie_word_embeddings": tied}
        config = config_of(given, ignore_unknown)
    except InputError as error:
        raise InputError(f"text_config: {error}") from None
    warnings.warn(
        "only the text part of this model is opened; vision_tower and multi_modal_projector, which read images, are"
        " left out",
        stacklevel=2,
    )
    return config


def text_name(name: str) -> str | None:
    """Return the name of a tensor in a model of text alone; None for a tensor that reads images.

    >>> text_name("language_model.model.norm.weight")
    'model.norm.weight'
    """
    if _IMAGES.fullmatch(name):
        return None
    plain = _TEXT.sub("", name, count=1) if _TEXT.match(name) else name.removeprefix("model.")
    return plain if plain.startswith("lm_head.") else f"model.{plain}"

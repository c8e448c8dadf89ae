"""Llama 3.2 Vision in Hugging Face's format: its config.json, whose parts are nested, and the names of its tensors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from bpe.errors import InputError
from model.checkpoint.config_json import config_json, config_of, refuse_others
from model.checkpoint.config_values import Values
from model.checkpoint.names import TensorNames
from model.checkpoint.weights import expected_shapes
from model.config import ModelConfig
from model.dtypes import DType, dtype_name
from model.vision_config import VisionConfig

TYPE = "mllama"
_ARCHITECTURE = "MllamaForConditionalGeneration"
_TEXT = {
    "vocab_size": 128256, "hidden_size": 4096, "hidden_act": "silu", "num_hidden_layers": 40,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072, "tie_word_embeddings": False, "rope_theta": 500000.0,
}  # fmt: skip
"""The keys of text_config beside those of rotary positions, with transformers' defaults."""
_PADDING = 128004
_CROSS_ATTENTION = [3, 8, 13, 18, 23, 28, 33, 38]
_VISION = {
    "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_global_layers": "n_global_layers",
    "attention_heads": "n_heads", "intermediate_size": "hidden_dim", "image_size": "image_size",
    "patch_size": "patch_size", "num_channels": "channels", "max_num_tiles": "max_tiles", "norm_eps": "norm_eps",
    "intermediate_layers_indices": "feature_layers", "supported_aspect_ratios": "aspect_ratios",
    "hidden_act": "activation",
}  # fmt: skip
"""The field of each key of vision_config."""
_VISION_DEFAULTS = {"image_size": 448, "vision_output_dim": 7680}
"""The keys of vision_config whose defaults differ from those of `VisionConfig`."""
_ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}


def config_of_mllama(data: Values, ignore_unknown: bool = False) -> ModelConfig:
    """Return the configuration that the content of a config.json of Llama 3.2 Vision describes.

    Args:
        data: The content.
        ignore_unknown: Pass over keys that are not known, instead of raising.

    Raises:
        InputError: When a key is unknown, or a value is not supported; the message names the key.
    """
    architectures = data.get("architectures") or [_ARCHITECTURE]
    if not isinstance(architectures, list) or _ARCHITECTURE not in architectures:
        raise InputError(f"architectures is {architectures!r}; of the type {TYPE}, only {_ARCHITECTURE} is supported")
    refuse_others(data, {"text_config", "vision_config", "image_token_index", "tie_word_embeddings"}, ignore_unknown)
    if data.get("tie_word_embeddings"):
        raise InputError("tie_word_embeddings is true, but an mllama model has its own output matrix; remove the key")
    text, vision = (_object(data, name) for name in ("text_config", "vision_config"))
    crossing = text.pop("cross_attention_layers", _CROSS_ATTENTION)
    if "head_dim" in text:
        raise InputError("text_config: head_dim is not a key of an mllama model; remove it")
    try:
        plain = config_of({**_TEXT, **text, "model_type": "llama", "architectures": None}, ignore_unknown)
    except InputError as error:
        raise InputError(f"text_config: {error}") from None
    token = data.get("image_token_index", 128256)
    fields = {**_vision_fields(vision, ignore_unknown), "image_token": token}
    return dataclasses.replace(plain, cross_attention_layers=_layers(crossing), vision=VisionConfig(**fields))


def with_preprocessor(config: ModelConfig, data: Values) -> ModelConfig:
    """Return a configuration with the colours that the content of a preprocessor_config.json gives.

    Raises:
        InputError: When the file prepares images in a way that is not supported; the message names the key.
    """
    assert config.vision is not None
    size = config.vision.image_size
    for key, only in {
        "size": {"height": size, "width": size}, "max_image_tiles": config.vision.max_tiles, "resample": 2,
        "do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": True, "do_convert_rgb": True,
    }.items():  # fmt: skip
        if data.get(key, only) != only:
            raise InputError(f"{key} is {data[key]!r}, which is not supported; only {only!r} is")
    factor = data.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or abs(factor * 255 - 1) > 1e-12:
        raise InputError(f"rescale_factor is {factor!r}, which is not supported; only 1/255 is")
    colours = {ours: data.get(key) for ours, key in (("mean", "image_mean"), ("std", "image_std"))}
    given = {name: value for name, value in colours.items() if value is not None}
    return dataclasses.replace(config, vision=dataclasses.replace(config.vision, **given))


def preprocessor_json(config: ModelConfig) -> dict[str, Any]:
    """Return the content of a preprocessor_config.json."""
    vision = config.vision
    assert vision is not None
    return {
        "image_processor_type": "MllamaImageProcessor", "processor_class": "MllamaProcessor",
        "size": {"height": vision.image_size, "width": vision.image_size}, "max_image_tiles": vision.max_tiles,
        "resample": 2, "do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": True,
        "do_convert_rgb": True, "rescale_factor": 1 / 255, "image_mean": [*vision.mean], "image_std": [*vision.std],
    }  # fmt: skip


def _object(data: Values, name: str) -> dict[str, Any]:
    value = data.get(name)
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {value!r}; expected an object with the sizes of a part of the model")
    return {key: item for key, item in value.items() if item is not None}


def _layers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or any(isinstance(layer, bool) or not isinstance(layer, int) for layer in value):
        raise InputError(f"text_config: cross_attention_layers is {value!r}; expected a list of layers")
    return tuple(value)


def _vision_fields(given: dict[str, Any], ignore_unknown: bool) -> dict[str, Any]:
    """Return the fields of `VisionConfig` that a vision_config describes."""
    if "num_attention_heads" in given:  # another name of the key
        given.setdefault("attention_heads", given.pop("num_attention_heads"))
    refuse_others(given, {*_VISION, "vision_output_dim"}, ignore_unknown, "vision_config: ")
    values = {**_VISION_DEFAULTS, **given}
    for name in ("image_size", "patch_size"):
        size = values.get(name)
        if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
            values[name] = size[0]
    activation = values.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise InputError(f"vision_config: hidden_act is {activation!r}; supported are {', '.join(_ACTIVATIONS)}")
    values["hidden_act"] = _ACTIVATIONS[activation]
    layers, count = values.get("intermediate_layers_indices"), values.get("num_hidden_layers", 32)
    if isinstance(layers, list) and isinstance(count, int):  # negative numbers count from the end
        values["intermediate_layers_indices"] = [
            layer + count if isinstance(layer, int) and layer < 0 else layer for layer in layers
        ]
    output = values.pop("vision_output_dim")
    fields = {_VISION[key]: value for key, value in values.items() if key in _VISION}
    for name in ("feature_layers", "aspect_ratios"):
        if name in fields and not isinstance(fields[name], list):
            raise InputError(f"vision_config: {name} is {fields[name]!r}; expected a list")
    vision = VisionConfig(**fields)
    if output != vision.output_dim:
        raise InputError(
            f"vision_config: vision_output_dim is {output!r}, but hidden_size and intermediate_layers_indices make it"
            f" {vision.output_dim}"
        )
    return fields


def mllama_json(config: ModelConfig, dtype: DType) -> dict[str, Any]:
    """Return the content of a config.json of Llama 3.2 Vision.

    Args:
        config: The configuration to write, which has an image encoder.
        dtype: The dtype of the weights.
    """
    assert config.vision is not None
    plain = config_json(dataclasses.replace(config, vision=None, cross_attention_layers=()), dtype)
    dropped = ("architectures", "attention_bias", "mlp_bias", "head_dim", "torch_dtype")
    text = {key: value for key, value in plain.items() if key not in dropped}
    if config.vocab_size <= _PADDING:  # transformers' default would be no row of the embeddings
        text["pad_token_id"] = None
    vision: dict[str, Any] = {key: getattr(config.vision, field) for key, field in _VISION.items()}
    vision["hidden_act"] = next(name for name, ours in _ACTIVATIONS.items() if ours == config.vision.activation)
    vision["intermediate_layers_indices"] = [*config.vision.feature_layers]
    vision["supported_aspect_ratios"] = [[*pair] for pair in config.vision.aspect_ratios]
    return {
        "architectures": [_ARCHITECTURE],
        "model_type": TYPE,
        "image_token_index": config.image_token,
        "torch_dtype": dtype_name(dtype),
        "text_config": {
            **text, "model_type": "mllama_text_model", "cross_attention_layers": [*config.cross_attention_layers],
        },
        "vision_config": {
            **vision, "model_type": "mllama_vision_model", "vision_output_dim": config.vision.output_dim,
        },
    }  # fmt: skip


_TEXT_NAMES = (
    (r"tok_embeddings\.", "embed_tokens."),
    (r"attention_norm", "input_layernorm"),
    (r"ffn_norm", "post_attention_layernorm"),
    (r"attention_gate\.weight", "cross_attn_attn_gate"),
    (r"ffn_gate\.weight", "cross_attn_mlp_gate"),
    (r"feed_forward\.w1", "mlp.gate_proj"),
    (r"feed_forward\.w2", "mlp.down_proj"),
    (r"feed_forward\.w3", "mlp.up_proj"),
    (r"cross_attention\.", "cross_attn."),
    (r"attention\.", "self_attn."),
    (r"\.w([qkvo])\.", r".\1_proj."),
)
_VISION_NAMES = (
    (r"^projection", "multi_modal_projector"),
    (r"^(?!multi_modal)", "vision_model."),
    (r"class_embedding\.weight", "class_embedding"),
    (r"\.position_embedding\.weight", ".gated_positional_embedding.embedding"),
    (r"tile_positions\.embedding", "gated_positional_embedding.tile_embedding"),
    (r"tile_positions\.gate\.weight", "gated_positional_embedding.gate"),
    (r"tiles_before\.gate\.weight", "pre_tile_positional_embedding.gate"),
    (r"tiles_after\.gate\.weight", "post_tile_positional_embedding.gate"),
    (r"tiles_before", "pre_tile_positional_embedding"),
    (r"tiles_after", "post_tile_positional_embedding"),
    (r"norm_before", "layernorm_pre"),
    (r"norm_after", "layernorm_post"),
    (r"\.global_layers\.", ".global_transformer.layers."),
    (r"vision_model\.layers\.", "vision_model.transformer.layers."),
    (r"attention_gate\.weight", "gate_attn"),
    (r"ffn_gate\.weight", "gate_ffn"),
    (r"attention_norm", "input_layernorm"),
    (r"ffn_norm", "post_attention_layernorm"),
    (r"attention\.w([qkvo])", r"self_attn.\1_proj"),
    (r"feed_forward\.w([12])", r"mlp.fc\1"),
)
"""Parts of names and transformers' words for them, replaced in this order."""
_NEWER = (
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.(vision_model|multi_modal_projector)", r"\1"),
)
"""The names that transformers 5 has in memory, and some files have, and those of published files."""


class MllamaNames(TensorNames):
    """The names of the tensors of Llama 3.2 Vision in published files, each by its whole name."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__("language_model.model.layers", {name: _theirs(name) for name in expected_shapes(config)})

    def from_meta(self, name: str) -> str:
        """Return the format's name of a tensor; a name that the model does not have is returned unchanged."""
        return self.modules.get(name, name)

    def to_meta(self, name: str) -> str | None:
        """Return our name of a tensor, or None for a name that the format does not have."""
        return self._meta.get(_replaced(name, _NEWER))


def _theirs(name: str) -> str:
    if name.startswith("vision."):
        return _replaced(name.removeprefix("vision."), _VISION_NAMES)
    if name.startswith("output."):
        return f"language_model.lm_{name.replace('output', 'head')}"
    return f"language_model.model.{_replaced(name, _TEXT_NAMES)}"


def _replaced(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for pattern, words in pairs:
        name = re.sub(pattern, words, name)
    return name


def stored_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that files store with other axes than the model, by our names."""
    vision = config.vision
    if vision is None:
        return {}
    return {
        "vision.patch_embedding.weight": (vision.dim, vision.channels, vision.patch_size, vision.patch_size),
        "vision.class_embedding.weight": (vision.dim,),
    }

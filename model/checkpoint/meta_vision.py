"""Llama 3.2 Vision in Meta's format: the keys of its params.json, and the names and shapes of its tensors.

params.json has few sizes of the image encoder; Meta's code fixes the others, and so does this module.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpe.errors import InputError
from model.checkpoint.weights import EMBEDDINGS, expected_shapes
from model.config import ModelConfig
from model.vision_config import EXTRA_EMBEDDINGS, VisionConfig

if TYPE_CHECKING:
    from torch import Tensor

LEARNED = "text_model.learnable_embedding.weight"
"""The rows of the embedding matrix after the vocabulary, which Meta's files keep apart."""
TOKENS = f"text_model.{EMBEDDINGS}"
_PREFIX = "vision_model.vision_encoder."
_CLASS = f"{_PREFIX}class_embedding"
_SIZE, _CHUNKS, _CROSSING = "vision_chunk_size", "vision_max_num_chunks", "vision_num_cross_attention_layers"
_DERIVED = ("text_model.rope.freqs",)  # in some of Meta's files; computed from the configuration
# The numbers 3, 7, 15, 23 and 30 of Meta's code are those of the layers that read the features. A feature is therefore
# the result of the layer before. transformers 5 takes the layer's own result; transformers 4 did at first as Meta does.
_FEATURE_LAYERS = tuple(layer - 1 for layer in (3, 7, 15, 23, 30))
_TILES = {"tile_positions": "gated_positional_embedding", "tiles_before": "pre_tile_pos_embed.embedding",
          "tiles_after": "post_tile_pos_embed.embedding"}  # fmt: skip
_TEXT_NAMES = (
    (r"cross_attention\.", "attention."),
    (r"attention_gate\.weight", "gate_attn"),
    (r"ffn_gate\.weight", "gate_ffwd"),
)
_VISION_NAMES = (
    (r"^projection", "vision_projection"),
    (r"^(?!vision_projection)", "vision_encoder."),
    (r"patch_embedding", "conv1._linear"),
    (r"class_embedding\.weight", "class_embedding"),
    (r"\.position_embedding\.weight", ".positional_embedding"),
    (r"tile_positions\.gate\.weight", "gated_positional_embedding_gate"),
    (r"tiles_before\.gate\.weight", "pre_tile_pos_embed.gate"),
    (r"tiles_after\.gate\.weight", "post_tile_pos_embed.gate"),
    *((rf"{ours}\.embedding\.weight", theirs) for ours, theirs in _TILES.items()),
    (r"norm_before", "ln_pre"),
    (r"norm_after", "ln_post"),
    (r"\.global_layers\.", ".global_transformer.resblocks."),
    (r"\.layers\.", ".transformer.resblocks."),
    (r"attention_gate\.weight", "gate_attn"),
    (r"ffn_gate\.weight", "gate_ffn"),
    (r"attention_norm", "ln_1"),
    (r"ffn_norm", "ln_2"),
    (r"attention\.", "attn."),
    (r"feed_forward\.w1", "mlp.c_fc"),
    (r"feed_forward\.w2", "mlp.c_proj"),
)
"""Parts of names and Meta's words for them, replaced in this order."""


def is_vision(params: Mapping[str, Any]) -> bool:
    """Return whether the content of a params.json describes Llama 3.2 Vision."""
    return any(key.startswith("vision_") for key in params)


def config_of_vision(
    params: Mapping[str, Any], width: int, config_of_params: Callable[[dict[str, Any]], ModelConfig]
) -> ModelConfig:
    """Return the configuration that the content of a params.json of Llama 3.2 Vision describes.

    Args:
        params: The content.
        width: The size of the encoder's stream, which params.json does not have.
        config_of_params: Makes the configuration from the keys that models of text have.

    Raises:
        InputError: When a key is missing or unknown, or a value is not supported; the message names the key.
    """
    text = dict(params)
    size, crossing = (_positive(text, key) for key in (_SIZE, _CROSSING))
    for key, only in ((_CHUNKS, VisionConfig.max_tiles), ("n_special_tokens", EXTRA_EMBEDDINGS)):
        value = text.pop(key, only)
        if isinstance(value, bool) or value != only:
            raise InputError(f"{key} is {value!r}, which is not supported; only {only} is")
    for key in ("vision", "cross_attention_layers"):
        if key in text:
            raise InputError(f"{key} is not a key of Meta's form of a model with images; remove it")
    count = _positive(text, "n_layers")
    if crossing > count:
        raise InputError(f"{_CROSSING} is {crossing}, but n_layers is {count}; expected at most as many")
    after = _layers_after(count, crossing)
    text["n_layers"] = count + len(after)
    text.setdefault("tied_embeddings", False)
    plain = config_of_params(text)
    vision = VisionConfig(dim=width, hidden_dim=4 * width, image_size=size, feature_layers=_FEATURE_LAYERS)
    layers = tuple(number + layer for number, layer in enumerate(sorted(after)))
    return dataclasses.replace(plain, cross_attention_layers=layers, vision=vision)


def _positive(params: dict[str, Any], key: str) -> int:
    """Remove a key and return its value."""
    if key not in params:
        raise InputError(f"missing {key}, which a params.json of Llama 3.2 Vision has; download the file again")
    value = params.pop(key)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InputError(f"{key} is {value!r}; expected a positive whole number")
    return value


def _layers_after(count: int, crossing: int) -> range:
    """Return the numbers of the layers that read text and come after a layer that reads images, the last first.

    The layers that read images are spread evenly from the end.

    Args:
        count: The number of layers that read text.
        crossing: The number of layers that read images.
    """
    return range(count - 1, -1, -math.ceil(count / crossing))[:crossing]


def width_of(source: Path, shards: Sequence[Mapping[str, Tensor]]) -> int:
    """Return the size of the encoder's stream.

    Raises:
        InputError: When the tensor that has it is missing or misshapen.
    """
    found = shards[0].get(_CLASS)
    if found is None:
        raise InputError(f"{source}: missing {_CLASS}; the file is incomplete, or belongs to another model")
    if found.dim() != 1 or not found.numel() or found.numel() % VisionConfig.n_heads:
        raise InputError(
            f"{source}: {_CLASS} has the shape {[*found.shape]}, expected one axis of a multiple of"
            f" {VisionConfig.n_heads} numbers"
        )
    return found.numel()


def names(config: ModelConfig) -> dict[str, str]:
    """Map the name of each tensor of a model to its name in Meta's files."""
    crossing = config.cross_attention_layers
    reading = [layer for layer in range(config.n_layers) if layer not in crossing]
    found = {}
    for name in expected_shapes(config):
        match = re.match(r"layers\.(\d+)\.(.*)", name)
        if name.startswith("vision."):
            found[name] = f"vision_model.{_replaced(name.removeprefix('vision.'), _VISION_NAMES)}"
        elif match is None:
            found[name] = f"text_model.{name}"
        else:
            layer = int(match[1])
            kind, numbers = ("cross_attention_layers", crossing) if layer in crossing else ("layers", reading)
            found[name] = f"text_model.{kind}.{numbers.index(layer)}.{_replaced(match[2], _TEXT_NAMES)}"
    return found


def _replaced(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for pattern, words in pairs:
        name = re.sub(pattern, words, name)
    return name


def _stored_shapes(config: ModelConfig, theirs: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in Meta's files by their names there."""
    assert config.vision is not None
    vision, width, most = config.vision, config.vision.dim, config.vision.max_tiles
    shapes = {theirs[name]: shape for name, shape in expected_shapes(config).items()}
    shapes[TOKENS] = (config.vocab_size, config.dim)
    shapes[LEARNED] = (EXTRA_EMBEDDINGS, config.dim)
    shapes[_CLASS] = (width,)
    for ours, name in _TILES.items():
        shapes[_PREFIX + name] = (most, most, vision.n_patches if ours == "tile_positions" else 1, width)
    return shapes


def vision_tensors(
    source: Path, shards: Sequence[Mapping[str, Tensor]], config: ModelConfig
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the files of all devices with the model's names and axes.

    Args:
        source: The path that error messages name.
        shards: The tensors of each file.
        config: The configuration of the model.

    Raises:
        InputError: When the files do not belong together, or a tensor is unknown or misshapen.
    """
    import torch

    from model.checkpoint.meta_tensors import join_all

    theirs = names(config)
    ours, shapes = {name: own for own, name in theirs.items()}, _stored_shapes(config, theirs)
    tables = {_PREFIX + name for name in _TILES.values()}
    embeddings: dict[str, Tensor] = {}
    for name, tensor in join_all(source, shards, shapes):
        if name in _DERIVED:
            continue
        if name not in shapes:
            raise InputError(f"{source}: unknown tensor {name!r}; a model of this configuration does not have it")
        if shapes[name] == (1,) and tensor.dim() == 1 and tensor.numel() and bool((tensor == tensor[0]).all()):
            tensor = tensor[:1]  # a gate, which may be repeated
        if tuple(tensor.shape) != shapes[name]:
            raise InputError(
                f"{source}: {name} has the shape {[*tensor.shape]}, expected {[*shapes[name]]}; the file belongs to"
                " another model, or to another params.json"
            )
        if name in (TOKENS, LEARNED):
            embeddings[name] = tensor
        else:
            shape = (1, -1) if name == _CLASS else tensor.shape
            yield ours[name], _by_ratio(tensor, config) if name in tables else tensor.reshape(shape)
    if len(embeddings) == 1:
        missing = LEARNED if TOKENS in embeddings else TOKENS
        raise InputError(f"{source}: missing {missing}; the file is incomplete, or belongs to another model")
    if embeddings:
        yield EMBEDDINGS, torch.cat((embeddings[TOKENS], embeddings[LEARNED]))


def _by_ratio(grid: Tensor, config: ModelConfig) -> Tensor:
    """Return the vectors of tiles for each aspect ratio, given those of each row and column [tiles, tiles, p, d].

    Row 0 is that of no image.
    """
    assert config.vision is not None
    ratios = config.vision.aspect_ratios
    found = grid.new_zeros(len(ratios) + 1, config.vision.max_tiles, *grid.shape[2:])
    for number, (rows, columns) in enumerate(ratios, 1):
        found[number, : rows * columns] = grid[:rows, :columns].flatten(0, 1)
    return found.flatten(1)

"""The configuration of the image encoder of Llama 3.2 Vision. Nothing here imports torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from bpe.arguments import checked
from bpe.errors import InputError

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DEFAULT_RATIOS = ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1))
EXTRA_EMBEDDINGS = 8
"""The rows of the embedding matrix after the vocabulary. The first is that of the image token."""


@checked
@dataclass(frozen=True)
class VisionConfig:
    """The sizes of an image encoder, which turns the tiles of images into vectors that a Llama attends to.

    The defaults are those of Llama 3.2 Vision.

    Args:
        dim: The size of the encoder's stream.
        n_layers: The number of layers that read all patches of an image.
        n_global_layers: The number of gated layers after them.
        n_heads: The number of heads.
        hidden_dim: The size of the feed-forward networks.
        image_size: The height and width of a tile, in pixels.
        patch_size: The height and width of a patch, in pixels.
        channels: The number of colours of a pixel.
        max_tiles: The largest number of tiles of an image.
        feature_layers: The numbers of the layers, from 0, whose results are part of the output.
        aspect_ratios: The arrangements of tiles, (rows, columns) each. The encoder knows them by their numbers from 1.
        norm_eps: The epsilon of the layers' LayerNorm.
        activation: The function of the feed-forward networks: "gelu" or "gelu_tanh".
        mean: What is subtracted from each colour, from 0 to 1, before an image is read.
        std: What each colour is then divided by.
        image_token: The id of the token that stands for an image in a text; 0 means vocab_size of the model.

    Raises:
        InputError: When a value has the wrong type or range; the message names the field.
    """

    dim: int = 1280
    n_layers: int = 32
    n_global_layers: int = 8
    n_heads: int = 16
    hidden_dim: int = 5120
    image_size: int = 560
    patch_size: int = 14
    channels: int = 3
    max_tiles: int = 4
    feature_layers: tuple[int, ...] = (3, 7, 15, 23, 30)
    aspect_ratios: tuple[tuple[int, int], ...] = DEFAULT_RATIOS
    norm_eps: float = 1e-5
    activation: str = "gelu"
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD
    image_token: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (value <= 0 if field.name != "image_token" else value < 0):
                raise InputError(f"vision: {field.name} is {value}; it must be positive")
        for name in ("n_layers", "n_global_layers"):
            if getattr(self, name) > 1024:
                raise InputError(f"vision: {name} is {getattr(self, name)}; it must be at most 1024")
        if not (math.isfinite(self.norm_eps) and self.norm_eps > 0):
            raise InputError(f"vision: norm_eps is {self.norm_eps}; it must be a positive number")
        if self.activation not in ("gelu", "gelu_tanh"):
            raise InputError(f"vision: activation is {self.activation!r}; expected 'gelu' or 'gelu_tanh'")
        if self.dim % self.n_heads:
            raise InputError(f"vision: dim ({self.dim}) is not divisible by n_heads ({self.n_heads})")
        if self.patch_size > self.image_size:
            raise InputError(f"vision: patch_size ({self.patch_size}) exceeds image_size ({self.image_size})")
        self._check_layers()
        self._check_colours()
        self._check_ratios()

    def _check_colours(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != self.channels:
                raise InputError(f"vision: {name} is {values!r}; expected {self.channels} numbers, one for each colour")
            if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
                raise InputError(f"vision: {name} is {values!r}; expected numbers")
            object.__setattr__(self, name, tuple(map(float, values)))
        if not all(self.std):
            raise InputError(f"vision: std is {self.std}; no number may be 0")

    def _check_layers(self) -> None:
        layers = _whole_numbers("feature_layers", self.feature_layers)
        if not layers:
            raise InputError("vision: feature_layers is empty; it must have at least one layer")
        wrong = [layer for layer in layers if not 0 <= layer < self.n_layers]
        if wrong:
            raise InputError(f"vision: feature_layers has {wrong[0]}; the layers are 0 to {self.n_layers - 1}")
        object.__setattr__(self, "feature_layers", layers)

    def _check_ratios(self) -> None:
        if isinstance(self.aspect_ratios, str) or not all(hasattr(pair, "__len__") for pair in self.aspect_ratios):
            raise InputError(f"vision: aspect_ratios is {self.aspect_ratios!r}; expected a list of pairs")
        ratios = tuple(_whole_numbers("aspect_ratios", pair) for pair in self.aspect_ratios)
        for pair in ratios:
            if len(pair) != 2 or min(pair) <= 0 or math.prod(pair) > self.max_tiles:
                raise InputError(
                    f"vision: aspect_ratios has {[*pair]}; expected rows and columns of at most {self.max_tiles} tiles"
                )
        if not ratios:
            raise InputError("vision: aspect_ratios is empty; it must have at least [1, 1]")
        object.__setattr__(self, "aspect_ratios", ratios)

    def set_fields(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {field.name: values[field.name] for field in fields(self) if values[field.name] != field.default}

    @property
    def n_patches(self) -> int:
        """The number of vectors of a tile: one for each patch, and the class token in front."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def output_dim(self) -> int:
        """The size of the encoder's output: its last result beside those of the feature layers."""
        return self.dim * (1 + len(self.feature_layers))

    def parameters(self, dim: int) -> int:
        """Return the number of parameters of the encoder, with the projection to a model of size `dim`."""
        ids, patches = len(self.aspect_ratios) + 1, self.n_patches
        embeddings = self.channels * self.patch_size**2 * self.dim + self.dim  # of patches, and the class token
        positions = patches * self.dim + ids * self.max_tiles * patches * self.dim + 1
        tiles = 2 * (ids * self.max_tiles * self.dim + 1)
        layer = 4 * self.dim**2 + 2 * self.dim * self.hidden_dim + self.hidden_dim + self.dim + 4 * self.dim
        layers = (self.n_layers + self.n_global_layers) * layer + 2 * self.n_global_layers
        return embeddings + positions + tiles + layers + 4 * self.dim + self.output_dim * dim + dim


def all_ratios(tiles: int) -> tuple[tuple[int, int], ...]:
    """Return the rows and columns of all arrangements of at most so many tiles, in the order of their numbers."""
    pairs = ((rows, columns) for rows in range(1, tiles + 1) for columns in range(1, tiles + 1))
    return tuple(pair for pair in pairs if math.prod(pair) <= tiles)


def _whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise InputError(f"vision: {name} is {values!r}; expected a list of whole numbers")
    if any(isinstance(value, bool) or not hasattr(value, "__index__") for value in values):
        raise InputError(f"vision: {name} is {values!r}; expected whole numbers")
    return tuple(int(value) for value in values)

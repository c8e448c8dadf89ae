"""The image encoder of Llama 3.2 Vision: from the pixels of tiles to the vectors that cross-attention reads.

An image is cut into tiles, and each tile into patches. All patches of an image attend to each other. Comments give
shapes: i images of all texts together, t tiles of each, p vectors of a tile (one for each patch, and the class token),
n = t * (p rounded up to a multiple of 8), d numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpe.errors import InputError
from model.view import Images
from model.vision_config import VisionConfig

_MULTIPLE = 8  # of vectors of a tile, in all published models: zeros are added, and they are attended to


class VisionEncoder(nn.Module):
    """The encoder and the projection of its output to the size of the language model."""

    def __init__(self, config: VisionConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        ids, width = len(config.aspect_ratios) + 1, config.dim
        self.patch_embedding: nn.Linear = nn.Linear(config.channels * config.patch_size**2, width, bias=False)
        self.class_embedding: nn.Embedding = nn.Embedding(1, width)
        self.position_embedding: nn.Embedding = nn.Embedding(config.n_patches, width)
        self.tile_positions: TileEmbedding = TileEmbedding(ids, config.max_tiles, config.n_patches, width)
        self.tiles_before: TileEmbedding = TileEmbedding(ids, config.max_tiles, 1, width)
        self.tiles_after: TileEmbedding = TileEmbedding(ids, config.max_tiles, 1, width)
        self.norm_before: nn.LayerNorm = nn.LayerNorm(width)
        self.norm_after: nn.LayerNorm = nn.LayerNorm(width)
        self.layers: nn.ModuleList = nn.ModuleList(VisionBlock(config, False) for _ in range(config.n_layers))
        self.global_layers: nn.ModuleList = nn.ModuleList(
            VisionBlock(config, True) for _ in range(config.n_global_layers)
        )
        self.projection: nn.Linear = nn.Linear(config.output_dim, dim)

    def forward(self, images: Images) -> Tensor:
        """Return the vectors of the images of each text: [batch, images * tiles * patches, dim]."""
        batch, count, tiles = self._checked(images)
        ratios = images.ratios.flatten()
        x = self._embed(images.pixels.flatten(0, 1), ratios)  # [i, t, p, d]
        patches = x.shape[2]
        x = F.pad(x, (0, 0, 0, -patches % _MULTIPLE))
        mask = _mask(images.tiles.flatten(0, 1), patches, x.shape[2])
        padded = x.shape[:3]
        x = x.flatten(1, 2)  # [i, n, d]
        features = []
        for layer in self.layers:
            x = layer(x, mask)
            features.append(x)
        x = self.tiles_after(self.norm_after(x).view(*padded, -1), ratios).flatten(1, 2)
        for layer in self.global_layers:
            x = layer(x, mask)
        # The features of a number stand together, not those of a layer.
        kept = torch.stack([features[number] for number in self.config.feature_layers], -1).flatten(2)
        x = torch.cat((x, kept), -1).view(*padded, -1)[:, :, :patches]  # [i, t, p, output_dim]
        projected: Tensor = self.projection(x)
        return projected.reshape(batch, count * tiles * patches, -1)

    def _checked(self, images: Images) -> tuple[int, int, int]:
        """Return the numbers of texts, images and tiles."""
        config, shape = self.config, images.pixels.shape
        expected = (config.max_tiles, config.channels, config.image_size, config.image_size)
        if len(shape) != 6 or tuple(shape[2:]) != expected:
            raise InputError(f"pixels have the shape {[*shape]}; expected [batch, images, {str([*expected])[1:]}")
        if images.ratios.shape != shape[:2] or images.tiles.shape != shape[:3]:
            raise InputError(
                f"ratios have the shape {[*images.ratios.shape]} and tiles {[*images.tiles.shape]}; expected"
                f" {[*shape[:2]]} and {[*shape[:3]]}"
            )
        return shape[0], shape[1], shape[2]

    def _embed(self, pixels: Tensor, ratios: Tensor) -> Tensor:
        """Return the vectors of tiles [i, t, channels, height, width] with their positions: [i, t, p, d]."""
        size = self.config.patch_size
        rows = self.config.image_size // size
        cut = pixels[..., : rows * size, : rows * size].to(self.patch_embedding.weight)
        # [i, t, channels, rows * size, columns * size] -> [i, t, rows * columns, channels * size * size]
        cut = cut.reshape(*cut.shape[:3], rows, size, rows, size).permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)
        x = self.tiles_before(self.patch_embedding(cut), ratios)
        x = torch.cat((self.class_embedding.weight.expand(*x.shape[:2], 1, -1), x), 2)
        gate = self.tile_positions.gate.weight.tanh()
        x = self.tile_positions(x + (1 - gate) * self.position_embedding.weight, ratios)
        embedded: Tensor = self.norm_before(x)
        return embedded


def _mask(tiles: Tensor, patches: int, padded: int) -> Tensor:
    """Return the mask of attention, bool [i, 1, n, n], of images with the tiles [i, t].

    Vectors of the image attend to all vectors, padding included, as in Meta's code; padding attends to the image only.
    """
    real = F.pad(tiles[..., None].expand(-1, -1, patches), (0, padded - patches)).flatten(1)  # [i, n]
    return (real[:, :, None] | real[:, None])[:, None]


class Gate(nn.Module):
    """A number whose tanh is a factor."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.weight: nn.Parameter = nn.Parameter(torch.full((1,), start))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.tanh() * x


class TileEmbedding(nn.Module):
    """A vector for each tile, or for each patch of it, of an image with a given aspect ratio."""

    def __init__(self, ids: int, tiles: int, patches: int, dim: int) -> None:
        super().__init__()
        self.shape = (tiles, patches, dim)
        self.embedding: nn.Embedding = nn.Embedding(ids, tiles * patches * dim)
        self.gate: Gate = Gate()

    def forward(self, x: Tensor, ratios: Tensor) -> Tensor:
        """Return x [i, t, p, d] with the vectors of aspect ratios [i] added."""
        added: Tensor = x + self.gate(self.embedding(ratios).unflatten(-1, self.shape))
        return added


class VisionBlock(nn.Module):
    """One layer: attention of all patches to each other, then a feed-forward network."""

    def __init__(self, config: VisionConfig, gated: bool) -> None:
        super().__init__()
        self.attention: VisionAttention = VisionAttention(config)
        self.attention_norm: nn.LayerNorm = nn.LayerNorm(config.dim, config.norm_eps)
        self.feed_forward: VisionFeedForward = VisionFeedForward(config)
        self.ffn_norm: nn.LayerNorm = nn.LayerNorm(config.dim, config.norm_eps)
        self.attention_gate: nn.Module = Gate() if gated else nn.Identity()
        self.ffn_gate: nn.Module = Gate() if gated else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention_gate(self.attention(self.attention_norm(x), mask))
        x = x + self.ffn_gate(self.feed_forward(self.ffn_norm(x)))
        return x


class VisionAttention(nn.Module):
    """Multi-head attention without positions and without causality."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.n_heads: int = config.n_heads
        self.wq: nn.Linear = nn.Linear(config.dim, config.dim, bias=False)
        self.wk: nn.Linear = nn.Linear(config.dim, config.dim, bias=False)
        self.wv: nn.Linear = nn.Linear(config.dim, config.dim, bias=False)
        self.wo: nn.Linear = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        # [i, n, d] -> [i, heads, n, d / heads]
        queries, keys, values = (
            w(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for w in (self.wq, self.wk, self.wv)
        )
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        projected: Tensor = self.wo(attended.transpose(1, 2).flatten(2))
        return projected


class VisionFeedForward(nn.Module):
    """A feed-forward network without a gate, with biases."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.approximate: str = "tanh" if config.activation == "gelu_tanh" else "none"
        self.w1: nn.Linear = nn.Linear(config.dim, config.hidden_dim)
        self.w2: nn.Linear = nn.Linear(config.hidden_dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.w2(F.gelu(self.w1(x), approximate=self.approximate))
        return projected

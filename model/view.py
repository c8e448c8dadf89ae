"""What a text sees of its images: the vectors of the images, and which tokens attend to which tiles."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """The images of several texts, as the encoder reads them.

    Each text has the same number of images and each image the same number of tiles; those that a text lacks are
    padding, which no token attends to.
    """

    pixels: Tensor
    """[batch, images, tiles, channels, height, width], normalised."""
    ratios: Tensor
    """int64 [batch, images]: the number of the aspect ratio of each image, from 1; 0 for padding."""
    tiles: Tensor
    """bool [batch, images, tiles]: the tiles that are not padding. An image that is padding has one."""
    visible: Tensor
    """bool [batch, time, images, tiles]: the tiles that each token attends to. Later tokens attend to those of the last
    one."""


@dataclass(frozen=True)
class View:
    """The vectors of images, which tokens attend to in cross-attention."""

    states: Tensor
    """[batch, vectors, dim]: the vectors of all images, tile by tile."""
    visible: Tensor
    """bool [batch, time, images * tiles]; see `Images.visible`."""
    projected: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """For each layer that has been computed, keys and values [batch, kv_heads, vectors, head_dim] of `states`."""

    def glance(self, start: int, count: int) -> Glance:
        """Return what the tokens in `count` slots from `start` on see."""
        rows = torch.arange(start, start + count, device=self.visible.device).clamp(max=self.visible.shape[1] - 1)
        visible = self.visible[:, rows]  # [b, t, tiles]
        shown = visible.any(-1, keepdim=True)
        # Tokens that see no image attend to all vectors, as in transformers, where only their feed-forward network is
        # left out.
        vectors = (visible | ~shown).repeat_interleave(self.states.shape[1] // visible.shape[2], dim=2)
        return Glance(self, vectors[:, None], shown.to(self.states.dtype))

    def truncated(self, length: int) -> View | None:
        """Return the view of texts that are cut after `length` tokens."""
        return replace(self, visible=self.visible[:, :length]) if length else None

    def select(self, rows: Tensor) -> View:
        """Return the view of these texts, in this order: int64 [new batch]."""
        projected = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self.projected.items()}
        return View(self.states[rows], self.visible[rows], projected)


@dataclass(frozen=True)
class Glance:
    """What the tokens of a forward pass see of the images."""

    view: View
    visible: Tensor
    """bool [b, 1, t, s]: the vectors that each token attends to."""
    shown: Tensor
    """[b, t, 1]: 1 for the tokens that see an image, 0 for the others, in the dtype of the stream."""

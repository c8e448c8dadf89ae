"""The KV cache: the keys and values of tokens that were already read, so that each token is computed once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bpe.errors import InputError
from model.config import ModelConfig
from model.lengths import Lengths
from model.view import View

_PART = 2048  # tokens that are read again at a time, of all texts together; bounds the memory that long texts need


class KVCache:
    """The keys and values of several sequences, one pair of tensors for each layer.

    All sequences fill the same slots. If prompts differ in length, some slots are padding, and `positions` has the
    position of each slot in its sequence. The memory doubles when it runs out, and is freed with the object.

    For inference only: no gradient flows through the stored tensors.

    A model uses the cache in three calls: `reserve` before the first layer, `update` in each layer, `advance` after the
    last. An interrupted forward pass has not advanced, so the cache is unchanged.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int = 1,
        *,
        capacity: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Create a cache without tokens.

        Args:
            config: The configuration of the model.
            batch: The number of sequences.
            capacity: The number of slots to reserve memory for.
            dtype: The dtype of keys and values.
            device: The device of keys and values.

        Raises:
            InputError: When `batch` is not positive or `capacity` is negative.
        """
        if batch <= 0:
            raise InputError(f"the batch of a cache is {batch}; it must be positive")
        if capacity < 0:
            raise InputError(f"the capacity of a cache is {capacity}; it must not be negative")
        self.length: int = 0
        """The number of filled slots."""
        self.positions: Tensor | None = None
        """int64 [batch, capacity], the position of each slot in its sequence, or -1 for padding; None while there is no
        padding, so that slots and positions are equal."""
        self.view: View | None = None
        """The images of the texts, with the keys and values of the layers that read images."""
        self.lengths: Lengths | None = Lengths.of(config)
        """What a model needs whose rotations depend on the length of the text; None for other models."""
        shape = (batch, config.n_kv_heads, capacity, config.head_dim)
        layers = [layer for layer in range(config.n_layers) if layer not in config.cross_attention_layers]
        self._places = {layer: place for place, layer in enumerate(layers)}
        # For each layer of text [batch, kv_heads, capacity, head_dim], filled up to [:, :, :length].
        self._keys = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
        self._values = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]

    def __repr__(self) -> str:
        return f"<KVCache: {self.length:,} of {self.capacity:,} slots filled, batch {self.batch}>"

    @property
    def batch(self) -> int:
        """The number of sequences."""
        return self._keys[0].shape[0]

    @property
    def capacity(self) -> int:
        """The number of slots that have memory."""
        return self._keys[0].shape[2]

    @property
    def bytes(self) -> int:
        """The size of the memory for keys and values, filled or not, in bytes."""
        return sum(tensor.nbytes for tensor in (*self._keys, *self._values))

    def expect(self, length: int) -> None:
        """Announce a text of `length` positions that is read in several parts, so that all have the same rotations."""
        if self.lengths is not None:
            self.lengths.expected = length

    def next_positions(self, count: int) -> Tensor | None:
        """Return the positions of the next `count` tokens, [batch, count]; None if they equal the slots."""
        if self.positions is None:
            return None
        following = self.positions[:, : self.length].amax(-1, keepdim=True) + 1  # [b, 1]
        return following + torch.arange(count, device=following.device)

    def reserve(self, count: int, positions: Tensor | None = None) -> None:
        """Reserve memory for `count` more tokens of each sequence.

        Args:
            count: The number of new tokens.
            positions: Their positions, [batch, count]; None if they follow the tokens in the cache.
        """
        needed = self.length + count
        if needed > self.capacity:
            self.resize(max(needed, 2 * self.capacity, 64))
        if positions is not None and self.positions is None:
            slots = torch.arange(self.capacity, device=positions.device)
            self.positions = slots.repeat(self.batch, 1)
        if self.positions is not None:
            if self.positions.shape[1] < self.capacity:
                self.positions = F.pad(self.positions, (0, self.capacity - self.positions.shape[1]))
            following = self.next_positions(count) if positions is None else positions
            assert following is not None
            self.positions[:, self.length : needed] = following

    def resize(self, capacity: int) -> None:
        """Change the number of slots that have memory to `capacity`, at least the number of filled ones."""
        # Copy one tensor at a time, so that only one is in memory twice. The tensor that `capacity` reads comes last,
        # so that an interrupted copy is repeated.
        for tensors in (self._values, self._keys):
            for layer in reversed(range(len(tensors))):
                tensors[layer] = self._copy(tensors[layer], slice(None), capacity)

    def rotated_length(self, ids: Tensor, end: int, read: Callable[[Tensor, KVCache, Tensor | None], object]) -> int:
        """Return the number of positions that new tokens are rotated for, at least `end`.

        If the stored keys were rotated otherwise, their tokens are read again first; see `model.lengths`.

        Args:
            ids: The ids of the new tokens, [batch, new], for which memory is reserved.
            end: The number of positions up to the last of them.
            read: Reads ids [batch, time] into a cache, at positions [batch, time].
        """
        if self.lengths is None:
            return end
        lengths, known = self.lengths, self.length
        length = lengths.next(end)
        if known and lengths.is_outdated(length):
            assert lengths.ids is not None
            old = lengths.ids[:, :known]
            positions = None if self.positions is None else self.positions[:, :known].clone()
            view = self.view
            self.truncate(0)
            self.view, lengths.expected = view, length
            try:
                count = max(1, _PART // len(old))
                for start in range(0, known, count):
                    part = slice(start, min(start + count, known))
                    read(old[:, part], self, None if positions is None else positions[:, part])
            except BaseException:  # Ctrl-C between two parts
                self.truncate(0)
                raise
        lengths.add(known, ids, length)
        return length

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's keys and values of the new tokens.

        Args:
            layer: The number of the layer, from 0.
            keys: [batch, kv_heads, new, head_dim].
            values: [batch, kv_heads, new, head_dim].

        Returns:
            Views of the keys and values of all tokens, [batch, kv_heads, length + new, head_dim].
        """
        end, place = self.length + keys.shape[2], self._places[layer]
        self._keys[place][:, :, self.length : end] = keys.detach()
        self._values[place][:, :, self.length : end] = values.detach()
        return self._keys[place][:, :, :end], self._values[place][:, :, :end]

    def memory(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values of a layer in all slots, filled or not, [batch, kv_heads, capacity, head_dim].

        Writing to them changes the cache. `reserve` and `select` may replace them.
        """
        place = self._places[layer]
        return self._keys[place], self._values[place]

    def advance(self, count: int) -> None:
        """Record that every layer has filled `count` more slots."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Remove all slots from `length` on, and keep their memory.

        Raises:
            InputError: When the cache has fewer slots.
        """
        if not 0 <= length <= self.length:
            raise InputError(f"cannot truncate a cache of {self.length} slots to {length}")
        if self.lengths is not None and (length < self.length or not length):
            self.lengths.cut()
        self.length = length
        self.view = None if self.view is None else self.view.truncated(length)

    def select(self, rows: Tensor) -> None:
        """Keep these sequences, in this order: int64 [new batch]. A sequence named several times is copied."""
        for tensors in (self._keys, self._values):
            for layer, old in enumerate(tensors):
                tensors[layer] = self._copy(old, rows, self.capacity)
        if self.positions is not None:
            self.positions = self.positions[rows]
        if self.view is not None:
            self.view = self.view.select(rows)
        if self.lengths is not None and self.lengths.ids is not None:
            self.lengths.ids = self.lengths.ids[rows]

    def copied(self, length: int) -> KVCache:
        """Return a new cache with the first `length` slots."""
        new = copy.copy(self)
        new._keys, new._values = ([old[:, :, :length].clone() for old in kept] for kept in (self._keys, self._values))
        new.positions = None if self.positions is None else self.positions[:, :length].clone()
        new.lengths = copy.copy(self.lengths)
        new.truncate(length)
        return new

    def _copy(self, old: Tensor, rows: Tensor | slice, capacity: int) -> Tensor:
        """Return the filled slots of these sequences in a new tensor with `capacity` slots."""
        filled = old[rows, :, : self.length]
        batch, heads, _, head_dim = filled.shape
        copy = old.new_empty(batch, heads, capacity, head_dim)
        copy[:, :, : self.length] = filled
        return copy

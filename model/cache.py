"""The KV cache: the keys and values of the tokens already read, so that each token is computed once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bpe.errors import InputError
from model.config import ModelConfig


class KVCache:
    """Keys and values of `batch` sequences, one pair of tensors for each layer.

    All sequences fill the same slots. Where prompts differ in length, some slots of a sequence are padding: `positions`
    then says where in its text each slot stands. Memory is taken for `capacity` slots (default: none yet) and doubled
    when it runs out. It is freed with the object.

    For inference: no gradient flows through what is stored.

    A model reads from it and writes to it in three calls: `reserve` before the first layer, `update` in each layer,
    `advance` after the last. An interrupted forward pass has not advanced, so the cache is as it was.
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
        if batch <= 0:
            raise InputError(f"a cache for {batch} sequences; batch must be positive")
        if capacity < 0:
            raise InputError(f"a cache of {capacity} positions; it cannot be negative")
        self.length = 0
        """Slots that are filled."""
        self.positions: Tensor | None = None
        """int64 [batch, capacity], of each slot the position in its text, or -1 for padding; None while no sequence has
        any, so that slots are positions."""
        shape = (batch, config.n_kv_heads, capacity, config.head_dim)
        # keys, values: for each layer [batch, kv_heads, capacity, head_dim], of which [:, :, :length] is filled.
        self._keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self._values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]

    @property
    def batch(self) -> int:
        """How many sequences it holds."""
        return self._keys[0].shape[0]

    @property
    def capacity(self) -> int:
        """How many slots have memory."""
        return self._keys[0].shape[2]

    @property
    def bytes(self) -> int:
        """Bytes of memory taken for keys and values, filled or not."""
        return sum(tensor.nbytes for tensor in (*self._keys, *self._values))

    def next_positions(self, count: int) -> Tensor | None:
        """Positions of the next `count` tokens of each sequence, [batch, count]; None where they are the slots."""
        if self.positions is None:
            return None
        following = self.positions[:, : self.length].amax(-1, keepdim=True) + 1  # [b, 1]
        return following + torch.arange(count, device=following.device)

    def reserve(self, count: int, positions: Tensor | None = None) -> None:
        """Make room for `count` more tokens of each sequence; `positions` [batch, count] where slots are not these."""
        needed = self.length + count
        if needed > self.capacity:
            capacity = max(needed, 2 * self.capacity, 64)
            # One at a time, so that only one tensor is held twice; and last the one that `capacity` looks at, so that
            # what is interrupted is done again.
            for tensors in (self._values, self._keys):
                for layer in reversed(range(len(tensors))):
                    tensors[layer] = self._copy(tensors[layer], slice(None), capacity)
        if positions is not None and self.positions is None:
            slots = torch.arange(self.capacity, device=positions.device)
            self.positions = slots.repeat(self.batch, 1)
        if self.positions is not None:
            if self.positions.shape[1] < self.capacity:
                self.positions = F.pad(self.positions, (0, self.capacity - self.positions.shape[1]))
            following = self.next_positions(count) if positions is None else positions
            assert following is not None
            self.positions[:, self.length : needed] = following

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's keys and values of the newest tokens, [batch, kv_heads, new, head_dim].

        Returns views of all of them, the newest included: [batch, kv_heads, length + new, head_dim].
        """
        end = self.length + keys.shape[2]
        self._keys[layer][:, :, self.length : end] = keys.detach()
        self._values[layer][:, :, self.length : end] = values.detach()
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]

    def advance(self, count: int) -> None:
        """Count the slots that every layer has filled."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Forget all slots from `length` on, to go on differently from there. Memory stays for the next ones."""
        if not 0 <= length <= self.length:
            raise InputError(f"cannot cut a cache of {self.length} positions to {length}")
        self.length = length

    def select(self, rows: Tensor) -> None:
        """Keep these sequences, in this order: int64 [new batch]; one that is named several times is copied."""
        for tensors in (self._keys, self._values):
            for layer, old in enumerate(tensors):
                tensors[layer] = self._copy(old, rows, self.capacity)
        if self.positions is not None:
            self.positions = self.positions[rows]

    def _copy(self, old: Tensor, rows: Tensor | slice, capacity: int) -> Tensor:
        """What is filled of these sequences, with room for `capacity` slots."""
        filled = old[rows, :, : self.length]
        batch, heads, _, head_dim = filled.shape
        copy = old.new_empty(batch, heads, capacity, head_dim)
        copy[:, :, : self.length] = filled
        return copy

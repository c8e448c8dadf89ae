"""The KV cache: the keys and values of the tokens already read, so that each token is computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from bpe.errors import InputError
from model.config import ModelConfig


class KVCache:
    """Keys and values of `batch` sequences of equal length, one pair of tensors for each layer.

    Memory is taken for `capacity` positions (default: none yet) and doubled when it runs out, up to the context of
    the model, `config.max_seq_len`; reading further is refused. It is freed with the object.

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
        if not 0 <= capacity <= config.max_seq_len:
            raise InputError(f"a cache of {capacity} positions; the context of the model holds {config.max_seq_len}")
        self.length = 0
        self.capacity = capacity
        self.limit = config.max_seq_len
        shape = (batch, config.n_kv_heads, capacity, config.head_dim)
        # keys, values: for each layer [batch, kv_heads, capacity, head_dim], of which [:, :, :length] is filled.
        self._keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self._values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]

    @property
    def batch(self) -> int:
        """How many sequences it holds."""
        return self._keys[0].shape[0]

    @property
    def bytes(self) -> int:
        """Bytes of memory taken, filled or not."""
        return sum(tensor.nbytes for tensor in (*self._keys, *self._values))

    def reserve(self, count: int) -> None:
        """Make room for `count` more positions. Raises InputError where the context of the model ends."""
        needed = self.length + count
        if needed > self.limit:
            raise InputError(
                f"{self.length} tokens read and {count} more make {needed}; the context of the model holds {self.limit}"
            )
        if needed <= self.capacity:
            return
        capacity = min(self.limit, max(needed, 2 * self.capacity, 64))
        for tensors in (self._keys, self._values):
            for layer, old in enumerate(tensors):  # one at a time, so that only one tensor is held twice
                batch, heads, _, head_dim = old.shape
                tensors[layer] = old.new_empty(batch, heads, capacity, head_dim)
                tensors[layer][:, :, : self.length] = old[:, :, : self.length]
        self.capacity = capacity

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's keys and values of the newest positions, [batch, kv_heads, new, head_dim].

        Returns views of all of them, the newest included: [batch, kv_heads, length + new, head_dim].
        """
        if keys.shape[0] != self.batch:
            raise InputError(f"the cache holds {self.batch} sequences and was given {keys.shape[0]}")
        end = self.length + keys.shape[2]
        self._keys[layer][:, :, self.length : end] = keys.detach()
        self._values[layer][:, :, self.length : end] = values.detach()
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]

    def advance(self, count: int) -> None:
        """Count the positions that every layer has stored."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on, to go on differently from there. Memory stays for the next ones."""
        if not 0 <= length <= self.length:
            raise InputError(f"cannot cut a cache of {self.length} positions to {length}")
        self.length = length

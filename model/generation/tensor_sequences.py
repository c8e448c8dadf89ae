"""The texts of a `Transformer`, each in a cache of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from bpe.errors import InputError
from model.cache import KVCache
from model.generation.sequence_parts import Part, check_parts
from model.transformer import Transformer


class TensorSequences:
    """The texts of a `Transformer`; see `Sequences`.

    The model reads the texts of a call one after the other. Products of several texts at once would depend, in their
    last bits, on how many there are.
    """

    def __init__(self, model: Transformer, count: int) -> None:
        self._model = model
        self._token_bytes = model.new_cache(1, 1).bytes
        self._caches: list[KVCache | None] = [None] * count
        self._first: tuple[int, Transformer] = (model.config.n_layers, model)  # the model with fewer layers

    def __repr__(self) -> str:
        return f"<TensorSequences: {self.count} texts with {sum(map(self.length, range(self.count))):,} tokens>"

    @property
    def count(self) -> int:
        return len(self._caches)

    @property
    def bytes(self) -> int:
        return sum(cache.bytes for cache in self._caches if cache is not None)

    def bytes_for(self, length: int) -> int:
        return length * self._token_bytes

    def length(self, sequence: int) -> int:
        cache = self._caches[sequence]
        return 0 if cache is None else cache.length

    @torch.inference_mode()
    def read(self, parts: Sequence[Part], layers: int | None = None) -> npt.NDArray[np.float32]:
        config, model = self._model.config, self._model if layers is None else self._first_layers(layers)
        lengths = [*map(self.length, range(self.count))]
        check_parts(parts, lengths, config.vocab_size, config.max_seq_len)
        logits = np.empty((sum(part.wanted for part in parts), config.vocab_size), np.float32)
        end = 0
        for sequence, ids, wanted in parts:
            given = torch.tensor([[*ids]], device=self._model.device)
            read = model(given, self._cache(sequence), last_only=wanted <= 1)
            if wanted:
                start, end = end, end + wanted
                logits[start:end] = read[0, -wanted:].float().cpu().numpy()
        return logits

    def _first_layers(self, count: int) -> Transformer:
        """Return the model without its last layers. It shares the weights, and its caches have all layers."""
        if self._first[0] != count:
            part = copy.copy(self._model)
            part._modules = dict(self._model._modules)
            part.layers = self._model.layers[:count]
            self._first = count, part
        return self._first[1]

    def truncate(self, sequence: int, length: int) -> None:
        self._cache(sequence).truncate(length)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        if not 0 <= length <= self.length(source):
            raise InputError(f"cannot copy {length} tokens of a text of {self.length(source)}")
        if source == target:
            self.truncate(source, length)
            return
        self._caches[target] = self._cache(source).copied(length)

    def reserve(self, sequence: int, length: int) -> None:
        cache = self._cache(sequence, length)
        cache.reserve(max(0, length - cache.length))

    def free(self, sequence: int) -> None:
        self._caches[sequence] = None

    def _cache(self, sequence: int, capacity: int = 0) -> KVCache:
        cache = self._caches[sequence]
        if cache is None:
            cache = self._caches[sequence] = self._model.new_cache(capacity=capacity)
        return cache

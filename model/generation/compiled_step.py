"""A decoding step whose shapes never change, so that it can be compiled and, on CUDA, replayed as one graph.

One step of a small batch reads each weight once and computes little. On a GPU, the time to launch its kernels one by
one is then longer than the kernels themselves. Here the step has fixed shapes: the number of the slot is a tensor, and
every query attends to all slots of the cache under a mask. torch.compile fuses what is between the matrix products, and
a CUDA graph launches the whole step at once.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from bpe.errors import InputError
from model.cache import KVCache
from model.transformer import Place, Transformer, rotary_table

_WARM_UP = 2  # runs before a graph is captured, in which torch allocates what its libraries keep


class CompiledStep:
    """The decoding step of a model and a cache: it reads one token of each text and returns the next logits.

    The first call compiles, which takes tens of seconds. So does the first call after the cache has grown, because the
    shapes are other ones then: reserve memory for the whole text when the cache is created.

    The logits are those of `Transformer.forward` up to rounding. They share memory with those of the next call.
    """

    def __init__(self, model: Transformer, cache: KVCache, backend: str = "inductor") -> None:
        """Prepare the step. Nothing is compiled before the first call.

        Args:
            model: The model.
            cache: The cache, which may hold tokens already.
            backend: The backend of torch.compile; "eager" runs the traced step without compiling it.

        Raises:
            InputError: When the shapes of a step of this model or cache are not fixed.
        """
        reason = _not_fixed(model, cache)
        if reason:
            raise InputError(f"the decoding step cannot be compiled: {reason}; generate without compiling")
        self._model, self._cache = model, cache
        self._compute: Any = torch.compile(self._logits_of, backend=backend, dynamic=False)
        self._ids = torch.zeros(cache.batch, 1, dtype=torch.long, device=model.device)
        self._slot = torch.zeros(1, dtype=torch.long, device=model.device)
        config = model.config
        kinds = [config.layer_kind(layer) for layer in range(config.n_layers)]
        self._kinds = list(dict.fromkeys(kinds))
        self._kind_of = [self._kinds.index(kind) for kind in kinds]
        self._memory: _FixedMemory | None = None
        self._tables: list[Tensor | None] = []
        self._captured: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    @torch.inference_mode()
    def __call__(self, ids: Tensor) -> Tensor:
        """Read a token of each text into the cache, and return the logits of the tokens that follow.

        Args:
            ids: [batch].

        Returns:
            [batch, vocabulary], in the dtype of the weights.

        Raises:
            InputError: When the context of the model is full.
        """
        cache, context = self._cache, self._model.config.max_seq_len
        if cache.length >= context:
            raise InputError(f"the model's context holds {context:,} tokens, and the cache is full; start a new text")
        cache.reserve(1)
        self._follow_memory()
        self._ids.copy_(ids[:, None])
        self._slot.fill_(cache.length)
        logits = self._replayed() if self._model.device.type == "cuda" else self._run()
        cache.advance(1)
        return logits

    def _follow_memory(self) -> None:
        """Take the memory of the cache, which `KVCache.reserve` and `KVCache.select` replace."""
        config, cache = self._model.config, self._cache
        layers = [cache.memory(layer) for layer in range(config.n_layers)]
        if self._memory is not None and self._memory.layers[0][0] is layers[0][0]:
            return
        for tensor in itertools.chain(*layers):
            tensor[:, :, cache.length :] = 0  # a NaN there would spoil the product with its probability of 0
        self._memory, self._captured = _FixedMemory(layers, self._slot), None
        self._tables = [
            None
            if kind.rope == "none"
            else rotary_table(config, cache.capacity, self._model.device, kind.rope == "local")
            for kind in self._kinds
        ]

    def _replayed(self) -> Tensor:
        """Run the step as a CUDA graph, which is captured first if there is none."""
        if self._captured is None:
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):  # each writes the same numbers to the same slot
                    self._run()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits = self._run()
            self._captured = graph, logits
        graph, logits = self._captured
        graph.replay()
        return logits

    def _run(self) -> Tensor:
        logits: Tensor = self._compute(self._ids, self._slot, self._tables, self._memory)
        return logits

    def _logits_of(self, ids: Tensor, slot: Tensor, tables: list[Tensor | None], memory: _FixedMemory) -> Tensor:
        """Compute the step.

        Args:
            ids: [batch, 1].
            slot: [1].
            tables: For each kind of layer, its rotations at all positions, complex64 [positions, r / 2].
            memory: The keys and values.

        Returns:
            [batch, vocabulary].
        """
        slots = torch.arange(memory.capacity, device=ids.device)
        places = []
        for (window, _), table in zip(self._kinds, tables, strict=True):
            visible = slots <= slot
            if window:
                visible = visible & (slots > slot - window)
            places.append(Place(None if table is None else table[slot], visible[None]))  # [1, r / 2], [1, s]
        x = self._model.embed(ids)
        for layer, kind in zip(self._model.layers, self._kind_of, strict=True):
            x = layer(x, places[kind], memory)
        return self._model.head(self._model.norm(x))[:, -1]


class _FixedMemory:
    """The keys and values of all layers, as a cache that is written at a slot and read whole."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]], slot: Tensor) -> None:
        self.layers, self.slot = layers, slot

    @property
    def capacity(self) -> int:
        return self.layers[0][0].shape[2]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [batch, kv_heads, 1, head_dim], and return those of all slots."""
        stored = self.layers[layer]
        for memory, new in zip(stored, (keys, values), strict=True):
            memory[:, :, self.slot] = new
        return stored


def _not_fixed(model: Transformer, cache: KVCache) -> str:
    """Return why the shapes of a step are not fixed, or an empty string."""
    config = model.config
    if config.cross_attention_layers or config.vision is not None:
        return "the model reads images"
    if config.n_experts:
        return "its experts read different tokens in each step"
    if cache.lengths is not None:
        return f"with {config.rope_scaling} scaling, rotations depend on the length of the text"
    if cache.positions is not None:
        return "the prompts of the texts differ in length"
    return ""

"""Several texts in the memory of a `Transformer`, each with a length of its own.

Rounding depends on the shapes of a computation: a row of a matrix product of 3 rows can differ in its last bit from the
same row among 16. In bfloat16, where many logits are equal, that changes which token is the likeliest. So that a text
does not depend on what else is read, all shapes depend on the text alone:

- Short parts are read as rows, always the same number at a time, filled up with rows that nobody uses. A row of a
  product of a fixed shape does not depend on the other rows. Attention is computed for each row by itself.
- Long parts are read text by text, and divided at multiples of `GRAIN` positions. A prompt that is read in several
  parts has the same logits if these end at multiples of it, too.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bpe.errors import InputError
from model.cache import KVCache
from model.generation.sequence_parts import Part, check_parts
from model.rotary import depends_on_length
from model.transformer import Attention, Block, Transformer, rotary_table, rotate

GRAIN = 128  # tokens of a long part that are read at a time
_SHORT = 16  # ids of the longest part that is read as rows


class _Row(NamedTuple):
    """A token to read."""

    sequence: int
    position: int
    id: int


class TensorSequences:
    """The texts of a `Transformer`, each in a cache of its own on its device; see `Sequences`."""

    def __init__(self, model: Transformer, count: int) -> None:
        self._model = model
        self._token_bytes = model.new_cache(1, 1).bytes
        self._caches: list[KVCache | None] = [None] * count
        self._first: tuple[int, Transformer] = (model.config.n_layers, model)  # the model with fewer layers
        # On a CPU, 16 rows take little longer than one; many more do not.
        most = 32 if model.device.type == "cpu" else 512
        self._rows = min(most, -(-count // 32) * 16)
        # The number of rows of an expert depends on all of them, rotations that depend on the length change all stored
        # keys, and models that read images have layers of another kind. Texts of these models are read one by one.
        config = model.config
        self.grain: int = config.max_seq_len if depends_on_length(config) else GRAIN
        self._has_rows = not (config.n_experts or config.cross_attention_layers or depends_on_length(config))

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
        before = [*map(self.length, range(self.count))]
        check_parts(parts, before, config.vocab_size, config.max_seq_len)
        hidden: list[list[Tensor]] = [[] for _ in parts]  # of each part, [ids, dim]
        try:
            pieces = [self._pieces(part, before[part.sequence]) for part in parts]
            while any(pieces):
                # Long pieces one by one, and then the short ones that come next together.
                for found, (sequence, _, _), rest in zip(hidden, parts, pieces, strict=True):
                    while rest and not self._is_short(rest[0]):
                        found.append(self._read_alone(model, sequence, rest.popleft()))
                short = [place for place, rest in enumerate(pieces) if rest]
                read = self._read_rows(model, [(parts[place].sequence, pieces[place].popleft()) for place in short])
                for place, rows in zip(short, read, strict=True):
                    hidden[place].append(rows)
            last = [
                torch.cat(found)[len(ids) - wanted :] for found, (_, ids, wanted) in zip(hidden, parts, strict=True)
            ]
            logits: npt.NDArray[np.float32] = self._logits(torch.cat(last)).float().cpu().numpy()
        except BaseException:  # what some texts have read is forgotten
            for part in parts:
                self.truncate(part.sequence, min(before[part.sequence], self.length(part.sequence)))
            raise
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
        if length > cache.capacity:
            cache.resize(length)

    def free(self, sequence: int) -> None:
        self._caches[sequence] = None

    def _cache(self, sequence: int, capacity: int = 0) -> KVCache:
        cache = self._caches[sequence]
        if cache is None:
            cache = self._caches[sequence] = self._model.new_cache(capacity=capacity)
        return cache

    def _pieces(self, part: Part, start: int) -> deque[Sequence[int]]:
        """Return the ids of a part after `start` stored tokens, divided at multiples of the grain."""
        end = start + len(part.ids)
        cuts = [start, *range((start // self.grain + 1) * self.grain, end, self.grain), end]
        return deque(part.ids[first - start : stop - start] for first, stop in zip(cuts, cuts[1:], strict=False))

    def _is_short(self, ids: Sequence[int]) -> bool:
        return self._has_rows and len(ids) <= _SHORT

    def _read_alone(self, model: Transformer, sequence: int, ids: Sequence[int]) -> Tensor:
        """Read ids of one text; return their hidden states, [ids, dim]."""
        given = torch.tensor([[*ids]], device=self._model.device)
        return model.hidden(given, self._cache(sequence))[0]

    def _read_rows(self, model: Transformer, pieces: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        """Read ids of several texts as rows; return their hidden states, [ids, dim] of each."""
        rows = [
            _Row(sequence, self.length(sequence) + place, id)
            for sequence, ids in pieces
            for place, id in enumerate(ids)
        ]
        for sequence, ids in pieces:
            self._cache(sequence).reserve(len(ids))
        read = [self._hidden(model, rows[start : start + self._rows]) for start in range(0, len(rows), self._rows)]
        found, end = [], 0
        for sequence, ids in pieces:
            self._cache(sequence).advance(len(ids))
            found.append(torch.cat(read)[end : end + len(ids)])
            end += len(ids)
        return found

    def _logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of hidden states, [n, dim] -> [n, vocabulary], always of the same number of rows."""
        padded = torch.cat((hidden, hidden.new_zeros(-len(hidden) % self._rows, hidden.shape[1])))
        starts = range(0, len(padded), self._rows)
        logits = [self._model.head(padded[None, start : start + self._rows])[0] for start in starts]
        return torch.cat(logits)[: len(hidden)] if logits else hidden.new_empty(0, self._model.config.vocab_size)

    def _hidden(self, model: Transformer, rows: Sequence[_Row]) -> Tensor:
        """Read rows, and return the normalised hidden states after the last layer, [rows, dim]."""
        config, device = self._model.config, self._model.device
        unused = [0] * (self._rows - len(rows))
        positions = torch.tensor([row.position for row in rows] + unused, device=device)
        end = max(row.position for row in rows) + 1
        kinds = {config.layer_kind(layer) for layer in range(config.n_layers)}
        rotations = {
            kind: None if kind.rope == "none" else rotary_table(config, end, device, kind.rope == "local")[positions]
            for kind in kinds
        }
        x = model.embed(torch.tensor([[row.id for row in rows] + unused], device=device))  # [1, rows, dim]
        for number, block in enumerate(model.layers):
            assert isinstance(block, Block)
            kind = config.layer_kind(number)
            attended = self._attend(block.attention, block.attention_norm(x), rotations[kind], kind.window, rows)
            x = block.add(x, block.attention_post_norm(attended))
            x = block.add(x, block.ffn_post_norm(block.feed_forward(block.ffn_norm(x))))
        hidden: Tensor = model.norm(x)[0, : len(rows)]
        return hidden

    def _attend(
        self, attention: Attention, x: Tensor, rotation: Tensor | None, window: int, rows: Sequence[_Row]
    ) -> Tensor:
        """Compute what `Attention` does for rows [1, rows, dim]; each attends to the tokens of its own sequence."""
        queries, keys, values = attention.project(x)  # [1, rows, dim] -> [1, rows, heads, d]
        if attention.qk_norm != "none":
            queries = attention.normalise(attention.q_norm, queries)
            keys = attention.normalise(attention.k_norm, keys)
        if rotation is not None:
            queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        attended = torch.zeros_like(queries)
        memory = {row.sequence: self._cache(row.sequence).memory(attention.layer) for row in rows}
        for place, row in enumerate(rows):
            stored_keys, stored_values = memory[row.sequence]  # [1, g, capacity, d]
            stored_keys[0, :, row.position] = keys[0, place]
            stored_values[0, :, row.position] = values[0, place]
            seen = slice(max(0, row.position + 1 - window) if window else 0, row.position + 1)
            found = attention.attend(  # [1, h, 1, d]
                queries[:, place, :, None],
                stored_keys[:, :, seen],
                stored_values[:, :, seen],
                None,
                attention.scale,
            )
            attended[:, place] = found[:, :, 0]
        projected: Tensor = attention.wo(attended.flatten(2))  # [1, rows, h, d] -> [1, rows, dim]
        return projected

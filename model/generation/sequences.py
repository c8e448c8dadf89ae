"""Several texts in the memory of one model, each with its own length, which are read in any combination.

`Generation` keeps the texts of one batch side by side, because they begin and end together. A server's texts come and
go, and speculation adds several tokens to a text and takes some of them back; both use `Sequences`. Logits are arrays
of NumPy for every kind of model, so that there is one way to choose tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from bpe.errors import InputError
from model import _core
from model.dtypes import DType
from model.generation.native import NativeModel
from model.generation.sequence_parts import Part as Part
from model.generation.sequence_parts import check_parts
from model.rotary import rotation_tables, table_length

if TYPE_CHECKING:
    from model.transformer import Transformer


class Sequences(Protocol):
    """The keys and values of texts in a model, and how they grow.

    The logits of a text do not depend on the other texts of a call: bit for bit with a `Transformer` and with a native
    model whose weights and cache are quantized, and up to the rounding of float32 with other native models. Nor do they
    depend on how ids are divided into calls: bit for bit with such a native model, up to rounding with all others.
    """

    @property
    def count(self) -> int:
        """The number of texts; the first is 0."""
        ...

    @property
    def grain(self) -> int:
        """The logits of a text are the same to the last bit however it is divided at multiples of this position."""
        ...

    @property
    def bytes(self) -> int:
        """The size of the memory for keys and values, filled or not, in bytes."""
        ...

    def bytes_for(self, length: int) -> int:
        """Return the memory that keys and values of a text with `length` tokens take, in bytes."""
        ...

    def length(self, sequence: int) -> int:
        """Return the number of stored tokens of a text."""
        ...

    def read(self, parts: Sequence[Part], layers: int | None = None) -> npt.NDArray[np.float32]:
        """Read the next tokens of some texts, and store their keys and values.

        Args:
            parts: The tokens; each text at most once.
            layers: The number of first layers that the tokens pass; None for all. The logits are then guesses, and the
                tokens must be truncated again, since the other layers lack them.

        Returns:
            The logits of the tokens that follow the wanted ids, in their order: float32 [wanted, vocabulary].

        Raises:
            InputError: When an id is unknown, a text exceeds the context, or it is named twice. Nothing is read then.
        """
        ...

    def truncate(self, sequence: int, length: int) -> None:
        """Forget the tokens of a text from `length` on, and keep their memory."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Make a text the first `length` tokens of another."""

    def reserve(self, sequence: int, length: int) -> None:
        """Reserve memory for `length` tokens of a text. `read` reserves what is missing, twice as much each time."""

    def free(self, sequence: int) -> None:
        """Forget a text, and give its memory back."""


def new_sequences(model: Transformer | NativeModel, count: int, dtype: DType | None = None) -> Sequences:
    """Return memory for `count` texts of a model.

    Args:
        model: The model.
        count: The number of texts.
        dtype: The dtype of keys and values of a native model; see `NativeModel.new_cache`.

    Raises:
        InputError: When `count` is not positive, or a `Transformer` is given a dtype: its caches have its own.
    """
    if count <= 0:
        raise InputError(f"the number of texts is {count}; it must be positive")
    if isinstance(model, NativeModel):
        return NativeSequences(model, count, dtype)
    from model.generation.tensor_sequences import TensorSequences

    if dtype is not None:
        raise InputError(f"the cache of this model has the dtype of its weights, not {dtype}; leave dtype out")
    return TensorSequences(model, count)


class NativeSequences:
    """The texts of a `NativeModel`; see `Sequences`."""

    grain: int = 1

    def __init__(self, model: NativeModel, count: int, dtype: DType | None = None) -> None:
        self._model = model
        self._cache = model.new_cache(count, dtype=dtype)
        self._lengths = [0] * count
        self._room = [0] * count

    def __repr__(self) -> str:
        return f"<NativeSequences: {self.count} texts with {sum(self._lengths):,} tokens>"

    @property
    def count(self) -> int:
        return len(self._lengths)

    @property
    def bytes(self) -> int:
        return self._cache.bytes

    def bytes_for(self, length: int) -> int:
        return self._cache.core.bytes_for(length)

    def length(self, sequence: int) -> int:
        return self._lengths[sequence]

    def read(self, parts: Sequence[Part], layers: int | None = None) -> npt.NDArray[np.float32]:
        model, config = self._model, self._model.config
        check_parts(parts, self._lengths, config.vocab_size, config.max_seq_len)
        for sequence, ids, _ in parts:
            needed = self._lengths[sequence] + len(ids)
            if needed > self._room[sequence]:
                self.reserve(sequence, min(max(needed, 2 * self._room[sequence]), config.max_seq_len))
        tokens = np.empty((sum(len(part.ids) for part in parts), 3), np.int64)  # id, text, position
        wanted: list[int] = []
        end = longest = 0
        for sequence, ids, last in parts:
            start, end = end, end + len(ids)
            length = self._lengths[sequence]
            tokens[start:end, 0] = ids
            tokens[start:end, 1] = sequence
            tokens[start:end, 2] = range(length, length + len(ids))
            wanted += range(end - last, end)
            longest = max(longest, length + len(ids))
        logits = np.empty((len(wanted), config.vocab_size), np.float32)
        places = np.array(wanted, np.int64)
        rotation = rotation_tables(config, table_length(config, max(longest, 1)))
        with model.reading:
            for start in range(0, len(tokens), _core.MOST_TOKENS):
                first, last = np.searchsorted(places, (start, start + _core.MOST_TOKENS))
                some = tokens[start : start + _core.MOST_TOKENS]
                model.core.forward(
                    some, self._cache.core, rotation, places[first:last] - start, logits[first:last], layers or 0
                )
        for sequence, ids, _ in parts:
            self._lengths[sequence] += len(ids)
        return logits

    def truncate(self, sequence: int, length: int) -> None:
        if not 0 <= length <= self._lengths[sequence]:
            raise InputError(f"cannot truncate a text of {self._lengths[sequence]} tokens to {length}")
        self._lengths[sequence] = length

    def copy(self, source: int, target: int, length: int) -> None:
        if not 0 <= length <= self._lengths[source]:
            raise InputError(f"cannot copy {length} tokens of a text of {self._lengths[source]}")
        if source == target:
            self.truncate(source, length)
            return
        self._lengths[target] = 0
        self.reserve(target, length)
        self._cache.core.copy(source, target, length)
        self._lengths[target] = length

    def reserve(self, sequence: int, length: int) -> None:
        if length > self._room[sequence]:
            self._cache.core.resize(sequence, length, self._lengths[sequence])
            self._room[sequence] = self._cache.core.room(sequence)

    def free(self, sequence: int) -> None:
        self._cache.core.resize(sequence, 0, 0)
        self._lengths[sequence] = self._room[sequence] = 0

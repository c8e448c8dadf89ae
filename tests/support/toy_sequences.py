"""A model in a few lines for tests of the scheduler: its logits are a function of the ids of the text alone."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model import ModelConfig
from model.generation.sequence_parts import Part


@dataclass
class ToyModel:
    """What a scheduler asks of a model."""

    config: ModelConfig


def toy_model(context: int = 64, vocabulary: int = 24) -> ToyModel:
    return ToyModel(
        ModelConfig(
            dim=8, n_layers=1, n_heads=1, n_kv_heads=1, hidden_dim=8, vocab_size=vocabulary, max_seq_len=context
        )
    )


class ToySequences:
    """Sequences of a toy model: a text that was shared wrongly, or read in a wrong order, gets other logits."""

    def __init__(self, count: int, vocabulary: int = 24) -> None:
        self.count, self.vocabulary = count, vocabulary
        self.grain = 1
        self.texts: list[list[int]] = [[] for _ in range(count)]
        self.capacity = [0] * count
        self.most_bytes = 0
        self.calls: list[list[Part]] = []
        self.fails: Callable[[Sequence[Part]], Exception | None] = lambda parts: None
        self.gate: threading.Semaphore | None = None
        """If given, each call waits until it is released once."""

    @property
    def bytes(self) -> int:
        return sum(map(self.bytes_for, self.capacity))

    def bytes_for(self, length: int) -> int:
        return 10 * length

    def length(self, sequence: int) -> int:
        return len(self.texts[sequence])

    def truncate(self, sequence: int, length: int) -> None:
        assert length <= len(self.texts[sequence])
        del self.texts[sequence][length:]

    def copy(self, source: int, target: int, length: int) -> None:
        assert source != target and length <= len(self.texts[source])
        self.texts[target] = self.texts[source][:length]
        self.reserve(target, length)

    def free(self, sequence: int) -> None:
        self.texts[sequence], self.capacity[sequence] = [], 0

    def reserve(self, sequence: int, length: int) -> None:
        self.capacity[sequence] = max(self.capacity[sequence], length)
        self.most_bytes = max(self.most_bytes, self.bytes)

    def read(self, parts: Sequence[Part]) -> npt.NDArray[np.float32]:
        if self.gate is not None:
            self.gate.acquire()
        self.calls.append([*parts])
        assert len({part.sequence for part in parts}) == len(parts)
        rows = []
        for part in parts:
            text = self.texts[part.sequence]
            text += part.ids
            assert len(text) <= self.capacity[part.sequence], "memory was not reserved"
            rows += [logits_of(text[: len(text) - after], self.vocabulary) for after in range(part.wanted)][::-1]
        error = self.fails(parts)
        if error is not None:
            raise error
        return np.array(rows, np.float32).reshape(-1, self.vocabulary)


def logits_of(text: Sequence[int], vocabulary: int = 24) -> npt.NDArray[np.float32]:
    """Return the logits of the token after a text."""
    return np.random.default_rng(zlib.crc32(np.array(text).tobytes())).normal(0, 2, vocabulary).astype(np.float32)

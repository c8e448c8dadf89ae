"""The texts of one generation in a `NativeModel`. Needs NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.generation.native import NativeCache, NativeModel
from model.generation.sampling import Floats, Penalties, Sampling, log_softmax, restricted, sample, top


class NativeDecoder:
    """The cache of several texts, and the logits that their next tokens are chosen from; see `Decoder`."""

    def __init__(self, model: NativeModel, cache: NativeCache, sampling: Sampling, n_vocab: int) -> None:
        self._model, self._cache, self._sampling, self._n_vocab = model, cache, sampling, n_vocab
        self._logits: Floats = np.empty((0, n_vocab), np.float32)  # [batch, n_vocab]
        self._ids: npt.NDArray[np.int64] = np.empty(0, np.int64)  # [batch], chosen last

    def read(self, ids: npt.NDArray[np.int64], positions: npt.NDArray[np.int64] | None = None) -> None:
        logits = self._model(ids, self._cache, positions=positions, last_only=True)
        self._logits = logits[:, -1, : self._n_vocab]

    def start(self, prompts: list[list[int]], places: Sequence[int]) -> None:
        if len(places) > len(self._logits):
            self._logits = self._logits[[*places]]
            self._cache.select(places)
        self._penalties = Penalties(self._sampling, prompts, self._n_vocab)

    def choose(self, draws: Sequence[float], allowed: npt.NDArray[np.bool_] | None = None) -> list[int]:
        logits = self._logits if allowed is None else restricted(self._logits, allowed)
        ids = sample(self._penalties.apply(logits), self._sampling, draws)
        self._penalties.update(ids)
        self._ids = np.array(ids, np.int64)
        return ids

    def logprobs(self, count: int) -> tuple[list[float], list[list[tuple[int, float]]]]:
        normalised = log_softmax(self._logits)
        chosen: list[float] = normalised[np.arange(len(self._ids)), self._ids].tolist()
        return chosen, [top(row, count) for row in normalised]

    def keep(self, places: Sequence[int]) -> None:
        self._ids = self._ids[[*places]]
        self._cache.select(places)
        self._penalties.select(places)

    def step(self) -> list[int]:
        self.read(self._ids[:, None])
        return [*range(len(self._ids))]

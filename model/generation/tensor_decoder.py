"""The texts of one generation in a `Transformer`, on its device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.cache import KVCache
from model.generation.sampling import Sampling
from model.generation.tensor_sampling import Penalties, sample
from model.transformer import Transformer
from model.view import Images


class TensorDecoder:
    """The cache of several texts, and the logits that their next tokens are chosen from; see `Decoder`.

    For each token, the chosen ids are the only numbers that come from the device, besides those that sampling needs.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        sampling: Sampling,
        n_vocab: int,
        prompt_length: int,
        images: Images | None = None,
    ) -> None:
        self._model, self._cache, self._sampling, self._n_vocab = model, cache, sampling, n_vocab
        self._images = images  # to be read with the first ids
        self._device = model.device
        cache.expect(prompt_length)
        self._logits: Tensor = torch.empty(0, n_vocab)  # [batch, n_vocab]
        self._ids: Tensor = torch.empty(0, dtype=torch.long)  # [batch], chosen last

    @torch.inference_mode()
    def read(self, ids: npt.NDArray[np.int64], positions: npt.NDArray[np.int64] | None = None) -> None:
        at = None if positions is None else self._tensor(positions)
        self._read(self._tensor(ids), at)

    def _read(self, ids: Tensor, positions: Tensor | None = None) -> None:
        images = {} if self._images is None else {"images": self._images}
        self._images = None
        logits = self._model(ids, self._cache, positions=positions, last_only=True, **images)
        self._logits = logits[:, -1, : self._n_vocab]

    @torch.inference_mode()
    def start(self, prompts: list[list[int]], places: Sequence[int]) -> None:
        if len(places) > len(self._logits):
            rows = torch.tensor([*places], device=self._device)
            self._logits = self._logits[rows]
            self._cache.select(rows)
        self._penalties = Penalties(self._sampling, prompts, self._n_vocab, self._device)

    @torch.inference_mode()
    def choose(self, draws: Sequence[float], allowed: npt.NDArray[np.bool_] | None = None) -> list[int]:
        logits = self._logits
        if allowed is not None:
            logits = logits.masked_fill(~torch.from_numpy(allowed).to(self._device), -torch.inf)
        self._ids = sample(self._penalties.apply(logits), self._sampling, draws)
        self._penalties.update(self._ids)
        ids: list[int] = self._ids.tolist()
        return ids

    @torch.inference_mode()
    def logprobs(self, count: int) -> tuple[list[float], list[list[tuple[int, float]]]]:
        normalised = self._logits.float().log_softmax(-1)
        chosen: list[float] = normalised.gather(-1, self._ids[:, None]).squeeze(-1).tolist()
        values, likeliest = normalised.topk(count)
        pairs = zip(likeliest.tolist(), values.tolist(), strict=True)
        return chosen, [[*zip(*pair, strict=True)] for pair in pairs]

    @torch.inference_mode()
    def keep(self, places: Sequence[int]) -> None:
        rows = torch.tensor([*places], device=self._device)
        self._ids = self._ids[rows]
        self._cache.select(rows)
        self._penalties.select(rows)

    @torch.inference_mode()
    def step(self) -> list[int]:
        self._read(self._ids[:, None])
        return [*range(len(self._ids))]

    def _tensor(self, numbers: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self._device)

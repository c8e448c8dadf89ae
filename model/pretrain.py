"""Pretraining: token shards in, a model directory out.

A finished run directory holds `model.safetensors`, `params.json` and the tokenizer, which make it a model directory,
beside what every run leaves (see `model.train`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from bpe.errors import InputError
from bpe.shards import HELD_OUT, TRAIN, Ids, Shards
from model.checkpoint import save as save_model
from model.config import ModelConfig
from model.loss import IGNORED, Batch, Evaluation, evaluate, next_token_loss
from model.parallel import Parallel
from model.train import TrainConfig, TrainResult, train
from model.transformer import Transformer


def pretrain(
    data: str | os.PathLike[str],
    run: str | os.PathLike[str],
    config: ModelConfig,
    settings: TrainConfig,
    *,
    restart: bool = False,
    progress: TextIO | None = None,
    parallel: Parallel | None = None,
) -> TrainResult:
    """Train a new model of the given shape on a shard directory; the model is left in the run directory.

    See `model.train.train` for how a run is gone on with, and for what is raised.
    """
    task = Pretraining(Shards(data), config, settings)
    return train(task, run, settings, restart=restart, progress=progress, parallel=parallel)


class Pretraining:
    """A model of the given shape, from random weights, learns to predict each token of shards from those before it."""

    kind = "pretraining"

    def __init__(self, shards: Shards, config: ModelConfig, settings: TrainConfig) -> None:
        self.shards, self.config, self.train = shards, config, settings
        if settings.sequence_length > config.max_seq_len:
            raise InputError(
                f"sequence_length is {settings.sequence_length}, "
                f"and the context of the model holds {config.max_seq_len}"
            )
        if shards.n_vocab > config.vocab_size:
            raise InputError(
                f"{shards.directory}: ids below {shards.n_vocab}, and the model has {config.vocab_size} tokens; "
                f"set vocab_size to {shards.n_vocab}"
            )
        sequences = settings.batch_tokens // settings.sequence_length
        self.windows = Windows(shards.tokens(TRAIN), settings.sequence_length, sequences, settings.seed)
        self.held_out = _held_out_batches(shards, settings)
        self.token_bytes = torch.from_numpy(shards.token_bytes.astype(np.int64))

    def settings(self) -> dict[str, Any]:
        return {"data": self.shards.fingerprint, "model": self.config.to_params()}

    def model(self) -> Transformer:
        self.shards.check()
        model = Transformer(self.config)
        model.init_weights(torch.Generator().manual_seed(self.train.seed))
        return model

    def batch(self, number: int) -> Sequence[Batch]:
        windows = self.windows[number]
        return [Batch(windows[:, :-1], windows[:, 1:])]  # the tokens, and for each the one that follows it

    def describe(self, number: int) -> str:
        return f"{self.shards.directory}, batch {number}"

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        return next_token_loss(model, batch)

    def evaluate(self, model: Transformer) -> Evaluation | None:
        return evaluate(model, self.held_out, self.token_bytes) if self.held_out else None

    def sample(self, model: Transformer) -> str | None:
        return None

    def save(self, directory: Path, model: Transformer) -> None:
        save_model(directory, model, self.shards.tokenizer_path)


class Windows:
    """Training windows in random order: `windows[step]` is ids [sequences, sequence_length + 1], int64.

    In every epoch each token is read once, give or take a window: each shard is closed to a ring, cut into windows from
    a random place on, and all windows are shuffled. A batch follows from `seed` and `step` alone, so a resumed run
    needs no random state. Windows cross from one document into the next; the token that ends a document is all that
    tells the model.
    """

    def __init__(self, shards: list[Ids], sequence_length: int, sequences: int, seed: int) -> None:
        self._shards = [ids for ids in shards if len(ids)]
        if sum(map(len, self._shards)) < 2:
            raise InputError("there are fewer than two tokens to train on")
        self._length, self._sequences, self._seed = sequence_length, sequences, seed
        self._windows = [max(1, len(ids) // sequence_length) for ids in self._shards]
        self._first = np.cumsum([0, *self._windows])
        self._epochs: dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}

    def __getitem__(self, step: int) -> Tensor:
        total = int(self._first[-1])
        windows = []
        for number in range(step * self._sequences, (step + 1) * self._sequences):
            order, offsets = self._epoch(number // total)
            window = int(order[number % total])
            shard = int(np.searchsorted(self._first, window, side="right")) - 1
            start = int(offsets[shard]) + (window - int(self._first[shard])) * self._length
            places = np.arange(start, start + self._length + 1) % len(self._shards[shard])
            windows.append(self._shards[shard][places].astype(np.int64))
        return torch.from_numpy(np.stack(windows))

    def _epoch(self, epoch: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        if epoch not in self._epochs:
            random = np.random.default_rng((self._seed, epoch))
            offsets = random.integers([len(ids) for ids in self._shards])
            self._epochs = {e: drawn for e, drawn in self._epochs.items() if e == epoch - 1}  # a batch may span two
            self._epochs[epoch] = (random.permutation(int(self._first[-1])), offsets)
        return self._epochs[epoch]


def _held_out_batches(shards: Shards, settings: TrainConfig) -> list[Batch]:
    """The held-out text in windows one after the other, so that each token but a shard's first is predicted once."""
    left, length, windows = settings.eval_tokens, settings.sequence_length, []
    for ids in shards.tokens(HELD_OUT):
        for start in range(0, min(len(ids) - 1, left), length):
            end = min(start + length, len(ids) - 1, start + left)
            window = np.full((2, length), 0, np.int64)
            window[1] = IGNORED
            window[0, : end - start], window[1, : end - start] = ids[start:end], ids[start + 1 : end + 1]
            windows.append(torch.from_numpy(window))
            left -= end - start
    sequences = settings.batch_tokens // length
    batches = (torch.stack(windows[i : i + sequences]) for i in range(0, len(windows), sequences))
    return [Batch(pairs[:, 0], pairs[:, 1]) for pairs in batches]

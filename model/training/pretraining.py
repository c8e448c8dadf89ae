"""Pretraining: train a new model on token shards.

A finished run directory holds `model.safetensors`, `params.json` and the tokenizer, which make it a model directory,
beside what every run leaves (see `model.training.run_directory`).
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bpe import Tokenizer
from bpe.arguments import checked
from bpe.drawing import PictureSettings, common_directory
from bpe.errors import InputError
from bpe.locate import locate
from bpe.progress import Progress, phase
from bpe.shards import HELD_OUT, TRAIN, Shard, Shards
from model.checkpoint import WRITABLE_FORMATS, open_checkpoint
from model.checkpoint import save as save_model
from model.checkpoint.assemble import assemble, fingerprint
from model.checkpoint.companions import fitting_tokenizer, without_image_token
from model.checkpoint.opened import Checkpoint
from model.config import ModelConfig
from model.device import choose
from model.generation.completions import generate
from model.memory import total_memory
from model.training.base_model import trained
from model.training.loop import train
from model.training.loss import IGNORED, Evaluation, TokenBatch, evaluate, next_token_loss
from model.training.parallel import Parallel
from model.training.progress import shown_run
from model.training.run_directory import RunDirectory
from model.training.settings import TrainConfig, TrainResult
from model.training.task import About
from model.transformer import Transformer


@checked
def pretrain(
    data: str | os.PathLike[str],
    run: str | os.PathLike[str],
    config: ModelConfig,
    settings: TrainConfig,
    *,
    restart: bool = False,
    progress: Progress = None,
    parallel: Parallel | None = None,
    init: str | os.PathLike[str] | None = None,
    pictures: PictureSettings | None = PictureSettings(),  # noqa: B008, it cannot be changed
    ignore_unknown: bool = False,
) -> TrainResult:
    """Train a new model, or a given one, on a shard directory, and save it in the run directory.

    Args:
        data: Shard directory, as `bpe.shards.write_shards` writes it.
        run: The run directory. An interrupted run is resumed there (see `model.training.loop.train`).
        config: Shape of the model.
        settings: Settings of the run.
        restart: Delete an earlier run in the directory first.
        progress: Where to show the progress; see `model.training.loop.train`.
        parallel: The processes that train together (see `model.training.loop.train`).
        init: Path or name of a model whose weights to start from. `config` must be its shape (`shape_of`). Default: the
            weights are drawn from the seed.
        pictures: Formats and colors of the plot of the loss; None to draw none.
        ignore_unknown: Warn about keys of the configuration of `init` that are not known, instead of raising.

    Returns:
        The result of the run.

    Raises:
        InputError: When data, model and settings do not fit each other; see also `model.training.loop.train`.
    """
    with shown_run(progress, parallel is None or parallel.is_main):
        with phase("reading the shards"):
            shards, notes = Shards(data), {"directory": os.path.abspath(data)}
            start = None
            if init is not None:
                start = _start(init, shards, Path(run), ignore_unknown)
                notes["init"] = os.path.abspath(init) if os.path.exists(init) else os.fspath(init)
            task = Pretraining(shards, config, settings, start)
        if parallel is None or parallel.size == 1:
            _refuse_beyond_memory(config, settings)
        return train(
            task, run, settings, restart=restart, progress=progress, parallel=parallel, notes=notes, pictures=pictures
        )


def _refuse_beyond_memory(config: ModelConfig, settings: TrainConfig) -> None:
    """Refuse a model that cannot be trained in the memory of this machine, before the system ends the process.

    Raises:
        InputError: When the weights alone, with gradients and the optimizer's two moments, take more, on a CPU.
    """
    needed, there = _BYTES_PER_PARAMETER * config.n_parameters, total_memory()
    if there is not None and needed > there and choose(settings.device).name == "cpu":
        raise InputError(
            f"a model of {config.n_parameters / 1e9:,.2f} billion parameters takes {needed / 1e9:,.0f} GB to train"
            f" (weights, gradients and two moments, in float32), and this machine has {there / 1e9:,.0f} GB; choose a"
            " smaller one, such as the preset mini"
        )


def shape_of(model: str | os.PathLike[str], ignore_unknown: bool = False) -> ModelConfig:
    """Return the shape of a model, by path or name, to start from its weights.

    Args:
        model: The path or name.
        ignore_unknown: As for `model.load`.
    """
    return open_checkpoint(locate(os.fspath(model), "model"), ignore_unknown).config


def _start(model: str | os.PathLike[str], shards: Shards, run: Path, ignore_unknown: bool) -> Checkpoint:
    """Open the model to start from.

    Raises:
        InputError: When the model cannot be read, is in the run directory, or has other tokens than the shards.
    """
    path = locate(os.fspath(model), "model")
    directory = path if path.is_dir() else path.parent
    if run.exists() and run.resolve() == directory.resolve():
        raise InputError(f"{run}: holds the model to start from; use another directory for the run")
    checkpoint = open_checkpoint(path, ignore_unknown)
    own = fitting_tokenizer(checkpoint)
    theirs = without_image_token(Tokenizer.from_file(shards.tokenizer_path), checkpoint)
    differ = next((id for id in range(max(own.n_vocab, theirs.n_vocab)) if _token(own, id) != _token(theirs, id)), None)
    if differ is not None or own.encode_ordinary(_SAMPLE) != theirs.encode_ordinary(_SAMPLE):
        where = "" if differ is None else f" (the first token that differs has the id {differ})"
        raise InputError(
            f"{shards.directory}: was written with another tokenizer than that of {path}{where}; write the shards with"
            f" the tokenizer of the model (bpe shards -t {os.fspath(model)})"
        )
    return checkpoint


def _token(tokenizer: Tokenizer, id: int) -> bytes | None:
    try:
        return tokenizer.decode_single_token_bytes(id)
    except KeyError:
        return None


def settings_of(run: str | os.PathLike[str]) -> tuple[Path, ModelConfig, dict[str, Any], str | None]:
    """Return what `pretrain` was called with for a run, to resume it.

    Args:
        run: The run directory.

    Returns:
        The shard directory, the shape of the model, fields of TrainConfig, and the model whose weights it started from.

    Raises:
        InputError: When the directory holds no run of pretraining, or its record cannot be read.
    """
    path = RunDirectory(Path(run)).record
    try:
        record = json.loads(path.read_bytes())
        settings = record["settings"]
        if settings["kind"] != Pretraining.kind:
            raise InputError(f"{path}: this run is {settings['kind']}, not {Pretraining.kind}")
        return (
            Path(record["directory"]),
            ModelConfig.from_params(settings["model"]),
            dict(settings["train"]),
            record.get("init"),
        )
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, so there is no run to resume; start one with --data") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({error!r}); repeat --data and all other settings") from None


_BYTES_PER_PARAMETER = 16
_SAMPLE = "  It's 1234567, cafe\u0301 \u4f60\u597d!\n\n\tdef HTTPServer(x):\r\n  return x+1  "
"""Text that tokenizers with the same tokens split differently if their patterns differ."""


class Pretraining:
    """Training of a model, from random or given weights, to predict each token of shards from the tokens before it."""

    kind = "pretraining"

    def __init__(
        self, shards: Shards, config: ModelConfig, settings: TrainConfig, start: Checkpoint | None = None
    ) -> None:
        """Take the data and the shape of the model.

        Args:
            shards: The data.
            config: Shape of the model.
            settings: Settings of the run.
            start: The model whose weights to start from; None to draw them from the seed.

        Raises:
            InputError: When the data or the settings do not fit the model.
        """
        self.shards, self.config, self.train, self._start = shards, config, settings, start
        self._weights = {} if start is None else {"weights": fingerprint(start)[:16]}
        if config.vision is not None:
            raise InputError("vision is set, but a model that reads images cannot be trained here; unset it")
        if settings.sequence_length > config.max_seq_len:
            raise InputError(
                f"sequence_length is {settings.sequence_length}, but the context of the model holds "
                f"{config.max_seq_len} tokens; set it to {config.max_seq_len} or less"
            )
        if shards.n_vocab > config.vocab_size:
            raise InputError(
                f"{shards.directory}: the vocabulary has {shards.n_vocab} tokens, but that of the model only "
                f"{config.vocab_size}; set vocab_size to {shards.n_vocab}"
            )
        sequences = settings.batch_tokens // settings.sequence_length
        self.windows = Windows(shards.shards(TRAIN), settings.sequence_length, sequences, settings.seed)
        self.held_out = _held_out_batches(shards, settings)
        self.token_bytes = torch.from_numpy(shards.token_bytes.astype(np.int64))

    def settings(self) -> dict[str, Any]:
        """Return what must be equal for a run to be resumed: data, tokenizer and shape of the model."""
        return {
            "data": self.shards.fingerprint,
            "tokenizer": self.shards.tokenizer_sha256,
            "model": self.config.to_params(),
            **self._weights,
        }

    def about(self) -> About:
        """Return the size of the model, the tokenizer and the sources of the shards."""
        start = "" if self._start is None else " from given weights"
        names = [source["source"] or "documents of a program" for source in self.shards.corpus["sources"]]
        where = (
            names[0] if len(names) == 1 else f"{len(names)} sources in {common_directory(names) or 'several places'}"
        )
        return About(
            f"pretraining of {self.config.n_parameters / 1e6:,.1f} million parameters{start}",
            f"tokenizer of {self.shards.n_vocab:,} tokens; text {where}, {self.shards.token_count(TRAIN):,} tokens",
            len(self.windows) / (self.train.batch_tokens // self.train.sequence_length),
        )

    def model(self) -> Transformer:
        """Build the model, with the weights of another one, or drawn from the seed."""
        with phase("checking the shards"):
            self.shards.check()
        if self._start is not None:
            return assemble(self._start, torch.float32, torch.device("cpu"))
        model = Transformer(self.config)
        model.init_weights(torch.Generator().manual_seed(self.train.seed))
        return model

    def batch(self, number: int) -> Sequence[TokenBatch]:
        """Return the data of a step."""
        return _batches(*self.windows[number], self.train)

    def describe(self, number: int) -> str:
        """Return the shards and tokens that a step reads."""
        windows = [f"{shard.name}[{start}:{end}]" for shard, start, end in self.windows.places(number)]
        shown = ", ".join(windows[:4]) + (f" and {len(windows) - 4} more" if len(windows) > 4 else "")
        return f"batch {number}, tokens {shown} of {self.shards.directory}"

    def loss(self, model: Transformer, batch: TokenBatch) -> Tensor:
        """Return the summed next-token loss, in nats."""
        return next_token_loss(model, batch)

    def evaluate(self, model: Transformer) -> Evaluation | None:
        """Measure the loss on held-out documents."""
        return evaluate(model, self.held_out, self.token_bytes) if self.held_out else None

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        return _as_in_shards(Tokenizer.from_file(self.shards.tokenizer_path), self.shards)

    def sample(self, model: Transformer) -> str | None:
        """Return what the model writes without a prompt, always with the same seed."""
        if not self.train.sample_tokens:
            return None
        begin = next((id for id in (self.shards.bos_id, self.shards.eos_id) if id is not None), 0)
        return "".join(generate(model, self._tokenizer, [begin], self.train.sample_tokens, seed=self.train.seed))

    def save(self, directory: Path, model: Transformer) -> None:
        """Save the model and its tokenizer in the run directory."""
        if self._start is not None:
            WRITABLE_FORMATS["bpe-llama"].write(trained(self._start, directory, model), directory)
            return
        save_model(directory, model, self.shards.tokenizer_path, make_tokenizer=lambda: self._tokenizer)


def _as_in_shards(tokenizer: Tokenizer, shards: Shards) -> Tokenizer:
    """Return the tokenizer so that it begins and ends texts as the documents in the shards do."""
    said = tokenizer.vocabulary.boundaries
    begin, end, source = shards.bos_id, shards.eos_id, "index.json of the shards"
    said = said._replace(prefix_ids=() if begin is None else (begin,), prefix_from=source)
    if begin is not None and said.bos_id != begin:
        said = said._replace(bos_id=begin, bos_from=source)
    if end is not None and said.eos_ids[:1] != (end,):
        ends = tuple(dict.fromkeys((end, *said.eos_ids)))
        said = said._replace(eos_ids=ends, eos_id=end, eos_from=source)
    return Tokenizer.from_vocabulary(tokenizer.vocabulary.with_boundaries(said))


class Windows:
    """Training windows in random order: `windows[number]` is the data of a step.

    It has two tensors, int64 [sequences, sequence_length + 1]: ids, and their positions within their documents. The
    positions of a document that begins before its window count from the beginning of the window.

    Every epoch reads each token once, give or take a window: each shard is closed to a ring and cut into windows from a
    random token on, and all windows are shuffled. The data of a step follows from the seed and its number alone, so a
    resumed run needs no random state.
    """

    def __init__(self, shards: Sequence[Shard], sequence_length: int, sequences: int, seed: int) -> None:
        """Take the shards.

        Args:
            shards: The shards.
            sequence_length: Tokens per window.
            sequences: Windows per step.
            seed: Seed of the order.

        Raises:
            InputError: When there are fewer than two tokens.
        """
        self._shards = [shard for shard in shards if len(shard.ids)]
        if sum(len(shard.ids) for shard in self._shards) < 2:
            raise InputError("there are fewer than two tokens to train on")
        self._length, self._sequences, self._seed = sequence_length, sequences, seed
        self._first = np.cumsum([0, *(max(1, len(shard.ids) // sequence_length) for shard in self._shards)])
        self._epochs: dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}

    def __len__(self) -> int:
        """Return the number of windows in an epoch."""
        return int(self._first[-1])

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        windows = [_window(shard, start, end) for shard, start, end in self.places(number)]
        ids, positions = (torch.from_numpy(np.stack(rows)) for rows in zip(*windows, strict=True))
        return ids, positions

    def places(self, number: int) -> list[tuple[Shard, int, int]]:
        """Return the windows of a step: the shard of each, its first token and the token after its last.

        Tokens beyond the end of a shard continue at its beginning.
        """
        total, places = int(self._first[-1]), []
        for which in range(number * self._sequences, (number + 1) * self._sequences):
            order, offsets = self._epoch(which // total)
            window = int(order[which % total])
            shard = int(np.searchsorted(self._first, window, side="right")) - 1
            start = int(offsets[shard]) + (window - int(self._first[shard])) * self._length
            places.append((self._shards[shard], start, start + self._length + 1))
        return places

    def _epoch(self, epoch: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        if epoch not in self._epochs:
            random = np.random.default_rng((self._seed, epoch))
            offsets = random.integers([len(shard.ids) for shard in self._shards])
            self._epochs = {
                e: drawn for e, drawn in self._epochs.items() if e == epoch - 1
            }  # a step may span two epochs
            self._epochs[epoch] = (random.permutation(int(self._first[-1])), offsets)
        return self._epochs[epoch]


def _window(shard: Shard, start: int, end: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the ids of a window on the ring of a shard, and their positions within their documents."""
    places = np.arange(start, end) % len(shard.ids)
    ids, offsets = np.asarray(shard.ids), np.asarray(shard.offsets)  # plain arrays: a memmap is slower to index
    begun = offsets[np.searchsorted(offsets, places, side="right") - 1]
    return ids[places].astype(np.int64), np.minimum(places - begun, np.arange(end - start))


def _batches(ids: Tensor, positions: Tensor, settings: TrainConfig) -> list[TokenBatch]:
    """Divide windows into micro-batches of at most micro_batch_tokens."""
    rows = (settings.micro_batch_tokens or settings.batch_tokens) // settings.sequence_length
    parts = zip(torch.split(ids, rows), torch.split(positions, rows), strict=True)
    return [_batch(*part, settings.across_documents) for part in parts]


def _batch(ids: Tensor, positions: Tensor, across_documents: bool) -> TokenBatch:
    """Return the tokens of windows, each with the following token as its target.

    Padding, at position -1, is no target. Nor is the first token of a document, unless attention crosses documents.
    """
    inputs, targets = ids[:, :-1], ids[:, 1:]
    targets = targets.where(positions[:, 1:] >= (0 if across_documents else 1), IGNORED)
    # Without positions attention needs no mask, and computes half as much.
    apart = not across_documents and bool((positions[:, 1:-1] == 0).any())
    return TokenBatch(inputs, targets, positions[:, :-1] if apart else None)


def _held_out_batches(shards: Shards, settings: TrainConfig) -> list[TokenBatch]:
    """Return the held-out text in consecutive windows, so that each token is predicted once.

    The first token of a shard is not predicted, nor is that of a document, unless attention crosses documents.
    """
    left, length, windows = settings.eval_tokens, settings.sequence_length, []
    for shard in shards.shards(HELD_OUT):
        for start in range(0, min(len(shard.ids) - 1, left), length):
            end = min(start + length, len(shard.ids) - 1, start + left)
            window, padding = _window(shard, start, end + 1), (0, length + start - end)
            windows.append((np.pad(window[0], padding), np.pad(window[1], padding, constant_values=-1)))
            left -= end - start
    if not windows:
        return []
    ids, positions = (np.stack(rows) for rows in zip(*windows, strict=True))
    return _batches(torch.from_numpy(ids), torch.from_numpy(positions), settings)

"""The model under training: one step, evaluation, and what a checkpoint holds."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bpe.errors import InputError
from bpe.progress import phase
from model.cpu import has_matrix_instructions
from model.memory import keep_freed_memory
from model.training.checkpoints import STATE, RunCheckpoints
from model.training.fused import fuse
from model.training.loss import Evaluation
from model.training.optimizer import learning_rate, make_optimizer
from model.training.parallel import Parallel
from model.training.prefetch import Prefetcher
from model.training.settings import TrainConfig
from model.training.spikes import REMEMBERED_LOSSES, check_step
from model.training.task import Task
from model.training.throughput import peak_of
from model.transformer import Transformer


class TrainState:
    """A model under training with its optimizer, and how far they have come.

    Attributes:
        model: The model, cut among the processes.
        trained: The parameters that are trained, by name.
        step: Number of steps made.
        tokens: Number of tokens read.
        batch_number: Number of the next batch.
        skipped: Numbers of the batches that are left out.
        losses: Training losses of the last steps, in nats.
        peak_flops: Floating-point operations per second that all devices could do together; None if that is not known.
        peak_source: Where that number comes from, in words.
        has_stepped: Whether this process has made a step.
    """

    def __init__(self, task: Task, config: TrainConfig, parallel: Parallel) -> None:
        """Build the model and the optimizer, and start to read the data.

        Args:
            task: The task.
            config: Settings of the run.
            parallel: The processes that train together.

        Raises:
            InputError: When model, data, settings and processes do not fit each other.
        """
        self.task, self.config, self.parallel = task, config, parallel
        # 1. The model, made fast for this device.
        if parallel.device.type == "cpu":
            keep_freed_memory()
        self.model = task.model().to(parallel.device)
        fuse(self.model)
        if config.checkpoint_activations:
            checkpoint_activations(self.model)
        if config.compile:
            for layer in self.model.layers:
                layer.compile()
        # 2. The speed to compare training with.
        self._dtype = _product_dtype(config.dtype, parallel.device)
        self._flops_per_token = self.model.config.training_flops(config.sequence_length) / config.sequence_length
        peak, self.peak_source = peak_of(parallel.device, self._dtype, config.peak_flops)
        self.peak_flops = None if peak is None else peak * parallel.size
        self.has_stepped = False
        # 3. The processes and the optimizer.
        self._loss = parallel.prepare(self.model, task.loss)
        parallel.rehearse(self._loss, task.batch)
        self.trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.optimizer = make_optimizer(list(self.trained.values()), config)
        # 4. How far training has come.
        self.step, self.tokens, self.batch_number = 0, 0, 0
        self.skipped: list[int] = []
        self.losses: list[float] = []
        self._elapsed_before, self._began = 0.0, time.monotonic()
        self._batches = Prefetcher(task.batch)

    def close(self) -> None:
        """Stop reading ahead."""
        self._batches.close()

    @property
    def loss(self) -> float:
        """Training loss of the last step, in nats."""
        return self.losses[-1] if self.losses else math.nan

    @property
    def elapsed(self) -> float:
        """Seconds of this run and of the runs that it resumes."""
        return self._elapsed_before + time.monotonic() - self._began

    def share(self) -> float:
        """Return the share of the budget that is used; 1 or more when it is spent."""
        if self.config.minutes is not None:
            return self.parallel.main(self.elapsed) / (60 * self.config.minutes)
        assert self.config.steps is not None  # TrainConfig sets exactly one of the two
        return self.step / self.config.steps

    def seconds_left(self) -> float:
        """Estimate the time until the end from the pace so far."""
        share = self.share()
        return self.elapsed * (1 - share) / share if share else math.inf

    def make_step(self, share: float) -> dict[str, float]:
        """Make one step of the optimizer.

        Args:
            share: Share of the budget that is used.

        Returns:
            The fields of the step's record in metrics.jsonl.

        Raises:
            StepError: When the step would spoil the model. The weights are left as they were.
        """
        began = time.perf_counter()
        # 1. Read the data. Random numbers follow from the number of the batch, so no random state has to be saved.
        batches = self._batches.get(self.batch_number, self._after(self.batch_number))
        waited = time.perf_counter() - began
        torch.manual_seed((self.config.seed << 32) + (self.parallel.data_rank << 48) + self.batch_number)
        # 2. Forward and backward.
        total = self._backward(batches)
        # 3. Update the weights, unless something is wrong with the step.
        norm = self.parallel.clip(self.trained.values(), self.config.gradient_clip)
        loss = self.parallel.sum(total) / self.parallel.data
        rate = self._update(share, loss, norm)
        # 4. Advance.
        n_tokens = sum(batch.n_tokens for batch in batches)
        self.step, self.tokens = self.step + 1, self.tokens + n_tokens
        self.batch_number = self._after(self.batch_number)
        self.losses = [*self.losses[1 - REMEMBERED_LOSSES :], loss]
        self.has_stepped = True
        took = time.perf_counter() - began
        speed = n_tokens / took
        utilization = {} if self.peak_flops is None else {"mfu": speed * self._flops_per_token / self.peak_flops}
        return {
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "tokens_per_second": round(speed),
            **{name: round(value, 4) for name, value in utilization.items()},
            "wait": round(waited / took, 5),
        }

    def _backward(self, batches: Sequence[Any]) -> float:
        """Add up the gradients of the micro-batches; return the loss of this process's share, in nats.

        The gradients add up to that of the mean over all targets of the step. They are averaged over the processes, so
        the loss is multiplied by the number of processes to make the average a sum.
        """
        processes, rank = self.parallel.data, self.parallel.data_rank
        n_targets = sum(batch.n_targets for batch in batches)
        total = torch.zeros((), device=self.parallel.device)
        for number, batch in enumerate(batches, 1):
            with self.parallel.accumulating(self.model, last=number == len(batches)):
                with self._autocast():
                    part = self._loss(batch.part(rank, processes)) * processes / max(1, n_targets)
                part.backward()
            total += part.detach()
        return total.item()

    def _update(self, share: float, loss: float, norm: float) -> float:
        """Update the weights, and drop the gradients in any case; return the learning rate."""
        try:
            check_step(loss, norm, self.losses, self.config.spike)
            rate = learning_rate(share, self.config)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        return rate

    def evaluate(self) -> tuple[Evaluation | None, str | None]:
        """Measure the model on held-out data, and let it write a sample.

        Returns:
            The evaluation, or None when nothing is held out; and the sample, or None when there is none or when this
            process is not the main one.
        """
        self.model.eval()
        with torch.no_grad():
            with self._autocast():
                measured, whole = self.task.evaluate(self.model), self.parallel.gather(self.model)
            with phase("writing a sample"):
                sample = None if whole is None else self.task.sample(whole)
        self.model.train()
        return measured, sample

    def tensors(self) -> dict[str, Tensor]:
        """Return the trained weights and the optimizer's state, to be saved, or to be filled from a checkpoint."""
        tensors = {f"model.{name}": value.detach() for name, value in self.trained.items()}
        for name, value in self.trained.items():
            tensors |= {f"optimizer.{name}.{key}": kept for key, kept in self.optimizer.state[value].items()}
        return tensors

    def numbers(self) -> dict[str, Any]:
        """Return the plain numbers that a checkpoint holds beside the tensors."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "batch": self.batch_number,
            "skipped": self.skipped,
            "losses": self.losses,
            "elapsed": self.elapsed,
        }

    def restore(self, checkpoints: RunCheckpoints, checkpoint: Path) -> None:
        """Continue from a checkpoint.

        The time does not go back: steps after the checkpoint, which are lost, have used up their share of the budget.

        Raises:
            InputError: When the checkpoint is damaged or belongs to another model.
        """
        numbers = checkpoints.read_state(checkpoint)
        if wrong := [name for name, now in self.numbers().items() if type(numbers.get(name)) is not type(now)]:
            raise InputError(
                f"{checkpoint / STATE}: {', '.join(wrong)} missing or of the wrong type; "
                f"delete {checkpoint} to resume from the checkpoint before it, or restart the run"
            )
        checkpoints.load(checkpoint, self.tensors())
        self.step, self.tokens, self.losses = numbers["step"], numbers["tokens"], numbers["losses"]
        self.skipped = numbers["skipped"]
        self.batch_number = self._after(numbers["batch"] - 1)
        self._elapsed_before, self._began = max(self.elapsed, numbers["elapsed"]), time.monotonic()

    def _after(self, number: int) -> int:
        """Return the number of the batch that follows, without those that are left out."""
        return next(following for following in itertools.count(number + 1) if following not in self.skipped)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.parallel.device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16)


def checkpoint_activations(model: Transformer) -> None:
    """Store only the input of each layer, and compute its other activations again in the backward pass."""
    for layer in model.layers:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def _product_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the matrix products for the setting dtype."""
    if name == "auto":
        fast = device.type != "cpu" or has_matrix_instructions(torch.bfloat16)
        return torch.bfloat16 if fast else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype

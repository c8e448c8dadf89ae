"""The settings and the result of a training run. This file imports no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from bpe.arguments import checked
from bpe.errors import InputError

# Settings that do not change what is learned. They may differ when a run is resumed.
_CHANGEABLE = ("checkpoint_every", "keep_checkpoints", "max_skipped", "sample_tokens", "tensorboard", "peak_flops")


class TrainConfigOptions(TypedDict, total=False):
    """The fields of `TrainConfig`, which `finetune` takes as keyword arguments."""

    steps: int | None
    minutes: float | None
    batch_tokens: int
    sequence_length: int
    micro_batch_tokens: int | None
    across_documents: bool
    learning_rate: float
    schedule: Literal["cosine", "wsd"]
    warmup: float
    decay: float
    weight_decay: float
    gradient_clip: float
    seed: int
    eval_every: int
    eval_tokens: int
    checkpoint_every: float
    keep_checkpoints: int
    spike: float
    max_skipped: int
    dtype: Literal["auto", "float32", "bfloat16"]
    device: str
    checkpoint_activations: bool
    compile: bool
    sample_tokens: int
    tensorboard: bool
    peak_flops: float | None


@checked
@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Exactly one of `steps` and `minutes` is set. It is the budget of the run, and the learning rate schedule spans it.

    Attributes:
        steps: Number of optimizer steps. Runs with equal settings on one machine are equal bit for bit, interrupted or
            not.
        minutes: Wall time, including evaluations and excluding pauses between resumed runs. The learning rate follows
            the elapsed share of the time, so the number of steps, and with it the result, depends on the machine.
        batch_tokens: Tokens per step; a multiple of sequence_length.
        sequence_length: Tokens per sequence.
        micro_batch_tokens: Tokens per forward and backward pass, for a step that does not fit into memory; a multiple
            of sequence_length. The gradients of the passes add up to those of the step. None: the whole step at once.
        across_documents: Let tokens attend to earlier documents in the same sequence.
        learning_rate: Highest learning rate, reached linearly within the first `warmup` share of the budget.
        schedule: How the learning rate falls to a tenth of the highest. "cosine": along a cosine from the end of the
            warm-up. "wsd" (warm-up, stable, decay; Hu et al. 2024, arXiv:2404.06395): constant at first, then linearly
            within the last `decay` share of the budget.
        warmup: Share of the budget during which the learning rate rises, from 0 to 1.
        decay: Share of the budget during which "wsd" lowers the learning rate, from 0 to 1.
        weight_decay: Weight decay of the matrices, embeddings included. The weights of norms do not decay. The default
            is ten times the usual value, for text that is read many times: fifteen epochs of the demo ended at
            1.94 bits per byte, and at 1.99 with 0.3.
        gradient_clip: Highest norm of all gradients taken together.
        seed: Seed of the weights, of the order of the data and of dropout.
        eval_every: Steps between two evaluations on held-out data.
        eval_tokens: Number of held-out tokens that an evaluation uses, from the first on.
        checkpoint_every: Seconds between two checkpoints.
        keep_checkpoints: Number of checkpoints to keep, the newest ones.
        spike: How far a loss may exceed the recent losses, in multiples of their spread (see `check_step`).
        max_skipped: Number of batches that may be skipped because their loss is a spike or not finite.
        dtype: Dtype of the matrix products. Weights, optimizer and loss are always float32. "auto" is bfloat16, or
            float32 on a CPU without bfloat16 instructions, where bfloat16 would take several times as long.
        device: Device to train on.
        checkpoint_activations: Store only the input of each layer and compute the rest again in the backward pass: a
            third more arithmetic, a fraction of the memory (Chen et al. 2016, arXiv:1604.06174).
        compile: Compile the layers with torch.compile.
        sample_tokens: Number of tokens that the model writes at each evaluation, for a person to read; 0 for none.
        tensorboard: Write the curves for TensorBoard as well, into `tensorboard/` in the run directory.
        peak_flops: Floating-point operations per second that a device can do, the reference of the MFU (model FLOPs
            utilization). None: that of the GPU, from a table or measured; on a CPU no MFU is computed.

    Raises:
        InputError: When a setting is out of range, or settings contradict each other.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_tokens: int = 1024
    sequence_length: int = 256
    micro_batch_tokens: int | None = None
    across_documents: bool = False
    learning_rate: float = 2e-3
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup: float = 0.03
    decay: float = 0.2
    weight_decay: float = 1.0
    gradient_clip: float = 1.0
    seed: int = 0
    eval_every: int = 200
    eval_tokens: int = 1 << 17
    checkpoint_every: float = 60.0
    keep_checkpoints: int = 2
    spike: float = 10.0
    max_skipped: int = 3
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "cpu"
    checkpoint_activations: bool = False
    compile: bool = False
    sample_tokens: int = 48
    tensorboard: bool = False
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise InputError("set either steps or minutes as the budget, and only one of them")
        for name in ("batch_tokens", "micro_batch_tokens"):
            if (getattr(self, name) or 0) % max(1, self.sequence_length):
                raise InputError(
                    f"{name} ({getattr(self, name)}) is not a multiple of sequence_length ({self.sequence_length})"
                )
        positive = ("steps", "minutes", "batch_tokens", "sequence_length", "micro_batch_tokens", "learning_rate",
                    "gradient_clip", "eval_every", "eval_tokens", "checkpoint_every", "keep_checkpoints",
                    "spike", "peak_flops")  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value}; it must be positive")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be a share of the budget, from 0 to 1")
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise InputError(
                f"warmup ({self.warmup}) and decay ({self.decay}) add up to more than the whole budget; "
                "their sum must be at most 1"
            )
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay is {self.weight_decay}; it must not be negative")
        for name in ("seed", "max_skipped", "sample_tokens"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise InputError(f"dtype is {self.dtype!r}; it must be float32, bfloat16 or auto")
        if self.schedule not in ("cosine", "wsd"):
            raise InputError(f"schedule is {self.schedule!r}; it must be cosine or wsd")

    def decisive(self) -> dict[str, Any]:
        """Return the settings that decide the result. They must stay the same when a run is resumed."""
        return {name: value for name, value in asdict(self).items() if name not in _CHANGEABLE}


@dataclass(frozen=True)
class TrainResult:
    """The result of a training run.

    Attributes:
        directory: The run directory.
        steps: Number of optimizer steps.
        tokens: Number of tokens that the model read.
        seconds: Wall time, without pauses between resumed runs.
        train_loss: Training loss of the last step, in nats per token.
        held_out_loss: Loss on held-out data, in nats per token; None when nothing is held out.
        bits_per_byte: The same loss in bits per byte of text; None when nothing is held out or the loss is not that of
            a text.
        already_finished: Whether an earlier call had finished the run, so this one did nothing.
    """

    directory: Path
    steps: int
    tokens: int
    seconds: float
    train_loss: float
    held_out_loss: float | None
    bits_per_byte: float | None
    already_finished: bool = False

    def summary(self) -> str:
        """Return the numbers in words, for a progress line."""
        text = f"{self.steps} steps, {self.tokens:,} tokens in {self.seconds:.0f} s"
        text += f", training loss {self.train_loss:.3f}"
        if self.held_out_loss is not None:
            text += f", held-out loss {self.held_out_loss:.3f}"
        if self.bits_per_byte is not None:
            text += f" ({self.bits_per_byte:.3f} bits per byte)"
        return text

"""TODO: settings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bpe.errors import InputError

# Settings that do not change what is learned.
_CHANGEABLE = ("checkpoint_every", "keep_checkpoints", "max_skipped", "sample_tokens", "tensorboard", "peak_flops")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Exactly one of `steps` and `minutes` is the budget; it also sets the pace of the learning rate.

    steps: so many optimizer steps. Runs of equal settings on one machine are equal bit for bit, interrupted or not.
    minutes: wall time, evaluations included and pauses between resumed runs left out. The learning rate follows the
        elapsed share, so how many steps are made, and with it the result, depends on the machine.
    batch_tokens: tokens in a step; a multiple of sequence_length, the tokens of one sequence.
    micro_batch_tokens: tokens that go through the model at a time, where memory does not hold a step; the gradients of
        the parts add up to those of the step. None for all at once.
    across_documents: whether tokens see those of documents that stand before their own in a sequence.
    learning_rate: the highest; reached linearly within the first `warmup` share of the budget.
    schedule: how it falls to a tenth. "cosine": along a cosine from then on. "wsd", for warm-up, stable, decay (Hu et
        al. 2024, arXiv:2404.06395): it stays, and falls linearly within the last `decay` share of the budget.
    weight_decay: of matrices (embeddings included); norms are not decayed. The default is ten times the usual, for
        text that is read many times: fifteen epochs of the demo ended at 1.94 bits per byte, with 0.3 at 1.99.
    gradient_clip: the highest norm of all gradients taken together.
    eval_every: steps between two evaluations on the held-out text, of which the first `eval_tokens` tokens are used.
    checkpoint_every: seconds between two checkpoints, of which the newest `keep_checkpoints` are kept.
    spike: how far above the last losses a loss may be, in multiples of their spread (see `_check`).
    max_skipped: how many batches may be skipped for a loss that is a spike, or no number.
    dtype: of the matrix products; weights, optimizer and loss are float32 throughout. "auto": bfloat16, but float32 on
        a CPU without instructions for it, where it would take several times as long.
    checkpoint_activations: keep of each layer its input alone, and compute the rest again for the gradients: a third
        more arithmetic, and a fraction of the memory (Chen et al. 2016, arXiv:1604.06174).
    compile: have torch.compile make kernels for the layers.
    sample_tokens: how many tokens the model writes at each evaluation, for one to see; 0 for none.
    tensorboard: write the curves for TensorBoard, too, into the directory of that name within the run's.
    peak_flops: floating-point operations a second that a device could do, of which the use is told (MFU); None to
        measure it with a few matrix products.
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
            raise InputError("give the budget as either steps or minutes, one of the two")
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
                raise InputError(f"{name} is {getattr(self, name)}; it is a share of the budget, from 0 to 1")
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise InputError(f"warmup ({self.warmup}) and decay ({self.decay}) are more than the whole budget together")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay is {self.weight_decay}; it cannot be negative")
        for name in ("seed", "max_skipped", "sample_tokens"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it cannot be negative")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise InputError(f"dtype is {self.dtype!r}; it is float32, bfloat16 or auto")
        if self.schedule not in ("cosine", "wsd"):
            raise InputError(f"schedule is {self.schedule!r}; it is cosine or wsd")


@dataclass(frozen=True)
class TrainResult:
    """What came out of a run.

    steps, tokens, seconds: how far it went. held_out_loss (nats per token) and bits_per_byte: how good it became; None
    when nothing is held out, and the latter when that is no text. already_finished: nothing was done, for an earlier
    call had finished the run.
    """

    directory: Path
    steps: int
    tokens: int
    seconds: float
    train_loss: float
    held_out_loss: float | None
    bits_per_byte: float | None
    already_finished: bool = False


def _decisive(config: TrainConfig) -> dict[str, Any]:
    """The settings that the result depends on; the others may change when a run is gone on with."""
    return {name: value for name, value in asdict(config).items() if name not in _CHANGEABLE}

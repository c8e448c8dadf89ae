"""Fine-tuning: a model learns from dialogs what an assistant says, or from preferences which answer is better.

A finished run directory holds, beside what every run leaves (see `model.training.loop`), a model directory, or the
adapter that
was learned beside the model's own weights (see `model.lora`).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from bpe.errors import InputError
from model.training.dialogs import PathLike
from model.training.examples import FinetuneConfig, _Base
from model.training.loop import train
from model.training.parallel import Parallel
from model.training.preferences import Preferences
from model.training.progress import Progress
from model.training.settings import TrainConfig, TrainResult
from model.training.supervised import Supervised

# What is learned is little, and near zero a loss jumps by large factors: only what is no number is a failure.
_DEFAULTS: dict[str, Any] = {"weight_decay": 0.0, "dtype": "float32", "eval_every": 100, "spike": 1e9}
LEARNING_RATE = 2e-5
_LONGEST = 1024


def finetune(
    model: PathLike,
    data: Sequence[PathLike],
    run: PathLike,
    config: FinetuneConfig | None = None,
    *,
    restart: bool = False,
    progress: TextIO | None = None,
    parallel: Parallel | None = None,
    **settings: Any,
) -> TrainResult:
    """Go on training a model, on files of dialogs (see `read_dialogs`), or with `beta` of preferences (`read_pairs`).

    model: what `load` takes. It is computed with in float32, or bfloat16 for the products, and is not changed.
    run: the directory for the result. An interrupted run goes on there, see `model.training.loop.train`.
    parallel: the processes that train together, entered; see there, too.
    settings: fields of `TrainConfig`. Here, sequence_length is the most that is read of an example, whose rest is cut
        off (by default the model's context, 1,024 at the most); batch_tokens, by default the same, are what the rows of
        a step hold; of what is held out, whole examples up to eval_tokens are used; learning_rate is by default 2e-5,
        with LoRA ten times that, for preferences a tenth.

    Raises InputError for data, model and settings that do not fit, before anything is written.
    """
    config = config or FinetuneConfig()
    base = _Base(model, Path(run), config)
    context = base.checkpoint.config.max_seq_len
    length = settings.get("sequence_length", min(context, _LONGEST))
    if length > context:
        raise InputError(f"sequence_length is {length}, and the context of the model holds {context}")
    factor = (1.0 if config.lora is None else 10.0) * (1.0 if config.beta is None else 0.1)
    defaults = {"sequence_length": length, "batch_tokens": length, "learning_rate": LEARNING_RATE * factor}
    by_epochs = settings.get("steps") is None and settings.get("minutes") is None
    given = TrainConfig(**{**_DEFAULTS, **defaults, **settings, **({"steps": 1} if by_epochs else {})})
    kind = Supervised if config.beta is None else Preferences
    task: Supervised | Preferences = kind(base, data, given)
    if parallel is None or parallel.is_main:
        show = Progress(sys.stderr if progress is None else progress)
        for line in task.told:
            show.say(line)
    if by_epochs:
        given = dataclasses.replace(given, steps=task.steps(config.epochs))
    return train(task, run, given, restart=restart, progress=progress, parallel=parallel)

"""Fine-tuning: train a model on dialogs, or on preferences.

A finished run directory holds, beside what every run leaves (see `model.training.run_directory`), a model, or a LoRA
adapter (see `model.lora`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpe.arguments import checked
from bpe.drawing import PictureSettings
from bpe.errors import InputError
from bpe.progress import Progress, phase
from model.training.base_model import BaseModel
from model.training.dialogs import PathLike
from model.training.finetune_settings import FinetuneConfig
from model.training.loop import train
from model.training.parallel import Parallel
from model.training.preferences import Preferences
from model.training.progress import shown_run
from model.training.settings import TrainConfig, TrainConfigOptions, TrainResult
from model.training.supervised import Supervised, Texts

if TYPE_CHECKING:
    from typing_extensions import Unpack

LEARNING_RATE = 2e-5

# There is little to learn, and near zero a loss jumps by large factors: only a loss that is not finite is a failure.
_DEFAULTS: dict[str, Any] = {"weight_decay": 0.0, "dtype": "float32", "eval_every": 100, "spike": 1e9}
_LONGEST = 1024


@checked(options=TrainConfigOptions, settings=TrainConfig)
def finetune(
    model: PathLike,
    data: Sequence[PathLike],
    run: PathLike,
    config: FinetuneConfig | None = None,
    *,
    restart: bool = False,
    progress: Progress = None,
    parallel: Parallel | None = None,
    pictures: PictureSettings | None = PictureSettings(),  # noqa: B008, it cannot be changed
    ignore_unknown: bool = False,
    **settings: Unpack[TrainConfigOptions],
) -> TrainResult:
    """Train a model on files of dialogs (see `read_dialogs`), or with config.beta on preferences (see `read_pairs`).

    Args:
        model: Path or name of the model, as `model.load` takes it. It is not changed. A LoRA adapter is trained
            further: the result is another adapter of the same base.
        data: Files of dialogs or preferences, or of plain texts (config.text).
        run: The run directory. An interrupted run is resumed there (see `model.training.loop.train`).
        config: Settings of fine-tuning.
        restart: Delete an earlier run in the directory first.
        progress: Where to show the progress; see `model.training.loop.train`.
        parallel: The processes that train together (see `model.training.loop.train`).
        pictures: Formats and colors of the plot of the loss; None to draw none.
        ignore_unknown: Warn about keys of the model's configuration that are not known, instead of raising.
        **settings: Fields of `TrainConfig`, with these defaults and meanings. sequence_length: tokens of an example
            that are read, the rest is cut off; the model's context, but at most 1,024. batch_tokens: tokens that the
            rows of a step hold; one row. learning_rate: 2e-5, ten times that with LoRA, a tenth with preferences.
            weight_decay: 0. dtype: float32. eval_every: 100. eval_tokens: whole held-out examples up to this number are
            used. Without steps and minutes, config.epochs is the budget.

    Returns:
        The result of the run.

    Raises:
        InputError: When data, model and settings do not fit each other, before anything is written.
    """
    config = config or FinetuneConfig()
    with shown_run(progress, parallel is None or parallel.is_main) as reporter:
        # 1. Open the model, and complete the settings.
        with phase("opening the model"):
            base = BaseModel(model, Path(run), config, ignore_unknown)
        config = base.config  # with the settings of an adapter that is trained further
        train_config = _train_config(base, config, settings)
        # 2. Read the data.
        kind = Texts if config.text else Supervised if config.beta is None else Preferences
        with phase("reading the texts" if config.text else "reading the dialogs"):
            task: Supervised | Preferences = kind(base, data, train_config)
        for line in task.summary:
            reporter.say(line)
        # 3. Train.
        if _by_epochs(settings):
            train_config = dataclasses.replace(train_config, steps=task.steps(config.epochs))
        return train(task, run, train_config, restart=restart, progress=progress, parallel=parallel, pictures=pictures)


def _train_config(base: BaseModel, config: FinetuneConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Complete settings with the defaults of fine-tuning; a budget in epochs stands as one step for now."""
    context = base.checkpoint.config.max_seq_len
    length = settings.get("sequence_length", min(context, _LONGEST))
    if length > context:
        raise InputError(
            f"sequence_length is {length}, but the context of the model holds {context} tokens; set it to {context} "
            "or less"
        )
    factor = (1.0 if config.lora is None else 10.0) * (1.0 if config.beta is None else 0.1)
    defaults = {"sequence_length": length, "batch_tokens": length, "learning_rate": LEARNING_RATE * factor}
    budget = {"steps": 1} if _by_epochs(settings) else {}
    return TrainConfig(**{**_DEFAULTS, **defaults, **settings, **budget})


def _by_epochs(settings: Mapping[str, Any]) -> bool:
    return settings.get("steps") is None and settings.get("minutes") is None

"""`bpe pretrain`: train a Llama from scratch on token shards."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.next_steps import after_pretraining, name_next
from bpe.commands.options import Command, examples, group, progress_options, refuse_given, tell_defaults
from bpe.commands.pictures import dark_option, format_option, loss_settings
from bpe.commands.shards import SHARDS
from bpe.commands.types import Duration, Share
from bpe.progress import current, phase
from model.commands.options import (
    chosen_device,
    default_run,
    device_option,
    figures,
    ignore_unknown_option,
    processes_options,
    restart_option,
    run_option,
)
from model.commands.presets import PRESET, PresetOption

if TYPE_CHECKING:
    from model.config import ModelConfig


_LEARNING_RATE_OF_INIT = 2e-4


@click.command(cls=Command)
@group(
    "Run",
    click.option(
        "--data", metavar="DIR", help=f"Token shards from `bpe shards`.  [default: those of the run, or {SHARDS}]"
    ),
    run_option("runs/CONFIG, such as runs/micro"),
    restart_option,
    click.option(
        "--config",
        cls=PresetOption,
        type=PRESET,
        default="micro",
        metavar="NAME|FILE",
        help="Model: a preset, a params.json, a config.json, or a model directory of the same shape.",
    ),
    click.option(
        "--init",
        metavar="MODEL",
        help="Start from the weights of a model with the same tokenizer, not from random ones.",
    ),
    click.option(
        "--minutes",
        type=Duration("m"),
        metavar="N",
        help="Training time in minutes.  [default: 3, unless --steps is given]",
    ),
    click.option("--steps", type=int, metavar="N", help="Number of steps, instead of --minutes."),
    click.option("--seed", type=int, default=0, metavar="N", help="Random seed of the weights and the data order."),
)
@group(
    "Batches",
    click.option("--batch-tokens", type=int, default=1024, metavar="N", help="Number of tokens in a step."),
    click.option(
        "--micro-batch-tokens",
        type=int,
        metavar="N",
        help="Number of tokens in a forward pass; gradients are accumulated.  [default: all of a step]",
    ),
    click.option("--sequence-length", type=int, default=256, metavar="N", help="Length of a sequence, in tokens."),
    click.option("--across-documents", is_flag=True, help="Let tokens attend to earlier documents of their sequence."),
)
@group(
    "Optimization",
    click.option(
        "--learning-rate",
        type=float,
        default=2e-3,
        metavar="X",
        help="Peak learning rate; 2e-4 by default with --init.",
    ),
    click.option(
        "--schedule",
        type=click.Choice(["cosine", "wsd"]),
        default="cosine",
        help="Learning rate after the warmup: a cosine, or constant with a linear decay at the end (wsd).",
    ),
    click.option(
        "--warmup", type=Share(), default=0.03, metavar="SHARE", help="Share of the run in which the rate rises."
    ),
    click.option(
        "--decay", type=Share(), default=0.2, metavar="SHARE", help="Share of the run in which the rate falls (wsd)."
    ),
    click.option("--weight-decay", type=float, default=1.0, metavar="X", help="Weight decay of the weight matrices."),
    click.option("--gradient-clip", type=float, default=1.0, metavar="X", help="Largest norm of the gradients."),
    click.option(
        "--spike",
        type=float,
        default=10.0,
        metavar="X",
        help="Skip a batch whose loss exceeds the recent losses by X times their spread.",
    ),
    click.option(
        "--max-skipped", type=int, default=3, metavar="N", help="Number of batches that may be skipped before failing."
    ),
)
@group(
    "Evaluation and checkpoints",
    click.option("--eval-every", type=int, default=200, metavar="N", help="Number of steps between evaluations."),
    click.option(
        "--eval-tokens", type=int, default=1 << 17, metavar="N", help="Number of held-out tokens to evaluate on."
    ),
    click.option(
        "--sample-tokens", type=int, default=48, metavar="N", help="Length of the sample at each evaluation, in tokens."
    ),
    click.option(
        "--checkpoint-every", type=Duration("s"), default=60.0, metavar="SECONDS", help="Seconds between checkpoints."
    ),
    click.option(
        "--keep-checkpoints", type=int, default=2, metavar="N", help="Number of checkpoints to keep, the newest."
    ),
    click.option("--tensorboard", is_flag=True, help="Also write curves for TensorBoard."),
    click.option(
        "--peak-flops",
        type=float,
        metavar="X",
        help="FLOP per second of the device, to compute MFU.  [default: that of the GPU; none on a CPU]",
    ),
)
@group(
    "Computation",
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        default="auto",
        help="Data type of matrix products; auto: bfloat16 if the processor has instructions for it.",
    ),
    device_option,
    click.option(
        "--checkpoint-activations", is_flag=True, help="Recompute activations in the backward pass to save memory."
    ),
    click.option("--compile", is_flag=True, help="Compile the layers with torch.compile."),
    ignore_unknown_option,
)
@group("Plot of the loss", format_option, dark_option)
@processes_options
@progress_options()
@examples(
    "bpe pretrain --minutes 3",
    "bpe pretrain --data data -o runs/tales --minutes 3",
    "bpe pretrain --data data -o runs/more --init runs/tales --steps 1000",
    "bpe pretrain -o runs/tales                # resumes an interrupted run",
    "bpe pretrain --data data -o runs/big --config mini --steps 20000 --schedule wsd --device cuda --compile",
    "bpe pretrain --data data -o runs/large --batch-tokens 65536 --micro-batch-tokens 4096 --checkpoint-activations",
    "torchrun --nproc-per-node 8 -m bpe.cli pretrain --data data -o runs/big --device cuda --parallel fsdp",
)
def pretrain(
    data: str | None,
    output: str | None,
    config: str,
    init: str | None,
    restart: bool,
    parallel: Any,
    tensor_parallel: int,
    formats: Sequence[str],
    dark: bool,
    ignore_unknown: bool,
    **settings: Any,
) -> None:
    """Train a Llama from scratch on token shards.

    The run directory becomes a model directory, with metrics.jsonl, loss.png and numbered checkpoints. To resume a run
    that was interrupted or killed, run the same command again, or give -o alone; the final weights are identical.
    """
    shape = None
    source = click.get_current_context().get_parameter_source
    given = {name for name in ("config", *settings) if source(name) is click.core.ParameterSource.COMMANDLINE}
    if init is not None and "config" in given:
        raise click.UsageError("--init and --config exclude each other: the model has the shape of MODEL")
    data, output = _data_and_output(data, output, config, init)
    if init is not None and data is None:
        raise click.UsageError("--init needs --data; to resume a run, give -o alone")
    if settings["schedule"] != "wsd" and data is not None:
        refuse_given("without --schedule wsd", "decay")
    with phase("loading PyTorch"):
        from bpe.shards import Shards
        from model.training.parallel import Parallel
        from model.training.pretraining import pretrain as run_training
        from model.training.pretraining import settings_of, shape_of
        from model.training.settings import TrainConfig

    pictures = loss_settings(output, formats, dark)
    if init is not None:
        shape = shape_of(init, ignore_unknown)
        if "learning_rate" not in given:
            settings["learning_rate"] = _LEARNING_RATE_OF_INIT
    if data is None:
        directory, shape, kept, init = settings_of(output)
        data, settings = str(directory), {**settings, **kept, **{name: settings[name] for name in given - {"config"}}}
    elif settings["steps"] is None and settings["minutes"] is None:
        settings["minutes"] = 3
    settings["device"] = chosen_device(settings["device"])
    with Parallel(parallel, tensor_parallel, settings["device"]) as processes:
        if "config" in given or shape is None:
            shape = _model_config(config, Shards(data).n_vocab, ignore_unknown)
        train = TrainConfig(**settings)
        result = run_training(
            data,
            output,
            shape,
            train,
            restart=restart,
            parallel=processes,
            init=init,
            pictures=pictures,
            ignore_unknown=ignore_unknown,
        )
    if not processes.is_main:
        return
    held_out = f", {result.bits_per_byte:.3f} bits per byte held out" if result.bits_per_byte is not None else ""
    text = f"{output}: {shape.n_parameters / 1e6:.1f} million parameters, {result.steps:,} steps{held_out}"
    current().done(text, output=output, parameters=shape.n_parameters, **figures(result))
    name_next(*after_pretraining(output))


def _data_and_output(data: str | None, output: str | None, config: str, init: str | None) -> tuple[str | None, str]:
    """Return the shards and the run directory, and print those that are chosen by default.

    Without shards, the run is to be resumed.
    """
    from model.training.run_directory import RunDirectory

    chosen = {}
    if output is None:
        output = chosen["output"] = default_run(config) if init is None else default_run(init, "-continued")
    if data is None and not RunDirectory(Path(output)).record.exists():
        if Path(SHARDS).is_dir():
            data = chosen["data"] = SHARDS
        elif chosen:
            raise click.UsageError(
                f"missing --data DIR, the shards from `bpe shards`: there is no directory {SHARDS}, and no run to"
                f" resume in {output}"
            )
    if chosen and os.environ.get("RANK", "0") == "0":
        tell_defaults(**chosen)
    return data, output


def _model_config(name: str, vocab_size: int, ignore_unknown: bool) -> ModelConfig:
    """Return the configuration of a preset, a file or a model directory, with the vocabulary of the data."""
    from model.checkpoint.huggingface import read_config
    from model.checkpoint.opened import config_from, config_of_params, read_json
    from model.config import ModelConfig

    path = Path(name)
    if path.is_dir():
        path = next((path / file for file in ("params.json", "config.json") if (path / file).is_file()), path)
    if path.suffix != ".json":
        return ModelConfig.preset(name, vocab_size=vocab_size)
    given = read_json(path) | {"vocab_size": vocab_size}
    if "model_type" in given or "hidden_size" in given:
        text = given.get("text_config")
        inner = {"text_config": text | {"vocab_size": vocab_size}} if isinstance(text, dict) else {}
        return read_config(path, given | inner, ignore_unknown)
    return config_from(path, functools.partial(config_of_params, ignore_unknown=ignore_unknown), given)

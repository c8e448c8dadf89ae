"""`bpe pretrain`: train a Llama from scratch on token shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bpe.commands.options import examples
from model.commands.options import device_option, parallel_option, tensor_parallel_option


@click.command()
@click.option("--data", metavar="DIR", help="Token shards, from `bpe shards`.  [default: those of the run]")
@click.option("-o", "--output", required=True, metavar="DIR", help="The run's directory; an interrupted run goes on.")
@click.option("--restart", is_flag=True, help="Throw an earlier run in this directory away.")
# How large, and how long.
@click.option("--config", default="micro", metavar="NAME|FILE", help="The model: a preset, params.json or config.json.")
@click.option("--minutes", type=float, metavar="N", help="Train for this long.  [default: 3, unless --steps is given]")
@click.option("--steps", type=int, metavar="N", help="Train for so many steps instead.")
@click.option("--seed", type=int, default=0, metavar="N", help="Of the weights and of the order of the data.")
# What a step reads.
@click.option("--batch-tokens", type=int, default=1024, metavar="N", help="Tokens in a step.")
@click.option("--micro-batch-tokens", type=int, metavar="N", help="Tokens read at a time.  [default: a whole step's]")
@click.option("--sequence-length", type=int, default=256, metavar="N", help="Tokens in a sequence.")
@click.option("--across-documents", is_flag=True, help="Let tokens see earlier documents of their sequence.")
# How it learns.
@click.option("--learning-rate", type=float, default=2e-3, metavar="X", help="The highest; see TrainConfig.")
@click.option(
    "--schedule", type=click.Choice(["cosine", "wsd"]), default="cosine", help="wsd: stay, and fall at the end."
)
@click.option("--warmup", type=float, default=0.03, metavar="SHARE", help="Of the budget, for the rate to rise.")
@click.option("--decay", type=float, default=0.2, metavar="SHARE", help="Of the budget, for wsd to fall.")
@click.option("--weight-decay", type=float, default=1.0, metavar="X", help="Of the matrices.")
@click.option("--gradient-clip", type=float, default=1.0, metavar="X", help="The highest norm of the gradients.")
@click.option("--spike", type=float, default=10.0, metavar="X", help="Skip a batch so many spreads above the others.")
@click.option("--max-skipped", type=int, default=3, metavar="N", help="Give up after so many.")
# What it tells and keeps.
@click.option("--eval-every", type=int, default=200, metavar="N", help="Steps from one evaluation to the next.")
@click.option("--eval-tokens", type=int, default=1 << 17, metavar="N", help="Of the held-out text, use so much.")
@click.option("--sample-tokens", type=int, default=48, metavar="N", help="Show so much of its writing at each.")
@click.option("--checkpoint-every", type=float, default=60.0, metavar="SECONDS", help="Save so often.")
@click.option("--keep-checkpoints", type=int, default=2, metavar="N", help="Keep so many, the newest.")
@click.option("--tensorboard", is_flag=True, help="Write curves for TensorBoard, too.")
@click.option("--peak-flops", type=float, metavar="X", help="What MFU is a share of.  [default: measured]")
# How it computes.
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    help="Of the matrix products; auto: bfloat16, where the processor has instructions for it.",
)
@device_option
@click.option("--checkpoint-activations", is_flag=True, help="Keep less in memory, and compute it again.")
@click.option("--compile", is_flag=True, help="Let torch.compile make the kernels.")
@parallel_option
@tensor_parallel_option
@examples(
    "bpe pretrain --data data -o runs/tales --minutes 3",
    "bpe pretrain -o runs/tales                # goes on with an interrupted run",
    "bpe pretrain --data data -o runs/big --config mini --steps 20000 --schedule wsd --device cuda --compile",
    "bpe pretrain --data data -o runs/large --batch-tokens 65536 --micro-batch-tokens 4096 --checkpoint-activations",
    "torchrun --nproc-per-node 8 -m bpe.cli pretrain --data data -o runs/big --device cuda --parallel fsdp",
)
def pretrain(
    data: str | None,
    output: str,
    config: str,
    restart: bool,
    parallel: Any,
    tensor_parallel: int,
    **settings: Any,
) -> None:
    """Train a Llama from scratch on token shards.

    The run's directory becomes a model directory, with metrics.jsonl, loss.png and numbered checkpoints. A run that was
    interrupted, or killed, goes on when the command is given again, or with -o alone, and arrives at the same weights.
    """
    from bpe.shards import Shards
    from model.training.parallel import Parallel
    from model.training.pretraining import pretrain as run_training
    from model.training.pretraining import settings_of
    from model.training.settings import TrainConfig

    shape = None
    source = click.get_current_context().get_parameter_source
    given = {name for name in ("config", *settings) if source(name) is click.core.ParameterSource.COMMANDLINE}
    if data is None:
        directory, shape, kept = settings_of(output)
        data, settings = str(directory), {**settings, **kept, **{name: settings[name] for name in given - {"config"}}}
    elif settings["steps"] is None and settings["minutes"] is None:
        settings["minutes"] = 3
    with Parallel(parallel, tensor_parallel, settings["device"]) as processes:
        if "config" in given or shape is None:
            shape = _model_config(config, Shards(data).n_vocab)
        train = TrainConfig(**settings)
        result = run_training(data, output, shape, train, restart=restart, parallel=processes)
    if not processes.is_main:
        return
    held_out = f", {result.bits_per_byte:.3f} bits per byte held out" if result.bits_per_byte is not None else ""
    click.echo(
        f"{output}: {shape.n_parameters / 1e6:.1f} million parameters, {result.steps:,} steps{held_out}", err=True
    )


def _model_config(name: str, vocab_size: int) -> Any:
    """The preset, the params.json or the config.json, with the vocabulary of the data."""
    from bpe import InputError
    from model.config import ModelConfig

    path = Path(name)
    if path.suffix != ".json":
        return ModelConfig.preset(name, vocab_size=vocab_size)
    import json

    try:
        params = json.loads(path.read_text("utf-8"))
        if not isinstance(params, dict):
            raise ValueError("not a JSON object")
        if "hidden_size" in params:
            from model.checkpoint.huggingface import config_of

            return config_of({**params, "vocab_size": vocab_size})
        return ModelConfig.from_params({**params, "vocab_size": vocab_size})
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error

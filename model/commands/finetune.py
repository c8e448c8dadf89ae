"""`bpe finetune`: train a model on dialogs or preferences."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bpe.commands import next_steps
from bpe.commands.next_steps import name_next
from bpe.commands.options import (
    Command,
    examples,
    field_option,
    group,
    progress_options,
    refuse_given,
    separator_option,
    tell_defaults,
)
from bpe.commands.pictures import dark_option, format_option, loss_settings
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
    threads_option,
)


@click.command(cls=Command)
@click.argument("model", metavar="MODEL")
@click.argument("data", nargs=-1, required=True, metavar="DIALOGS...")
@group(
    "Run",
    run_option("runs/MODEL-finetuned"),
    restart_option,
    click.option(
        "--held-out",
        default="0.1",
        metavar="SHARE|FILE",
        help="Dialogs to evaluate on: a share of DIALOGS that is not trained on, or a file of others.",
    ),
    click.option(
        "--learn-end/--no-learn-end",
        default=None,
        help="Learn the token that ends an answer.  [default: where the chat template writes one]",
    ),
    click.option("--epochs", type=float, default=3.0, metavar="N", help="Number of passes over the dialogs."),
    click.option("--steps", type=int, metavar="N", help="Number of steps, instead of --epochs."),
    click.option(
        "--minutes",
        type=Duration("m"),
        metavar="N",
        help="Training time in minutes, or as 90s or 2h; instead of --epochs.",
    ),
    click.option("--eval-every", type=int, default=100, metavar="N", help="Number of steps between evaluations."),
    click.option(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="Random seed of the held-out share, the data order, and the LoRA matrices.",
    ),
)
@group(
    "LoRA",
    click.option(
        "--lora", "rank", type=int, metavar="RANK", help="Train LoRA matrices of this rank instead of all weights."
    ),
    click.option(
        "--lora-alpha",
        type=float,
        metavar="X",
        help="LoRA alpha; updates are scaled by X / RANK.  [default: twice the rank]",
    ),
    click.option(
        "--lora-target",
        "targets",
        multiple=True,
        metavar="NAME",
        help="Matrix to adapt: wq, wk, wv, wo, w1, w2 or w3; repeatable.  [default: all]",
    ),
    click.option(
        "--lora-dropout", type=float, default=0.0, metavar="X", help="Dropout probability of the LoRA inputs."
    ),
    click.option("--merge", is_flag=True, help="Write a model with the LoRA matrices merged, instead of an adapter."),
)
@group(
    "Plain texts",
    click.option("--text", is_flag=True, help="Train on each token of plain texts (continued pretraining)."),
    field_option,
    separator_option,
)
@group(
    "Preferences",
    click.option("--preferences", is_flag=True, help="Train on pairs of a better and a worse answer (DPO)."),
    click.option(
        "--beta", type=float, default=0.1, metavar="X", help="DPO beta: larger keeps the model closer to MODEL."
    ),
)
@group(
    "Batches",
    click.option(
        "--sequence-length",
        type=int,
        metavar="N",
        help="Largest number of tokens in a row; longer dialogs are cut.  [default: the context, at most 1,024]",
    ),
    click.option("--batch-tokens", type=int, metavar="N", help="Number of tokens in a step.  [default: one row]"),
    click.option(
        "--micro-batch-tokens",
        type=int,
        metavar="N",
        help="Number of tokens in a forward pass; gradients are accumulated.  [default: all of a step]",
    ),
    click.option("--padded", is_flag=True, help="Give each dialog its own row instead of packing; same result."),
)
@group(
    "Optimization",
    click.option(
        "--learning-rate",
        type=float,
        metavar="X",
        help="Peak learning rate.  [default: 2e-5; 10 times that with --lora, a tenth with --preferences]",
    ),
    click.option("--weight-decay", type=float, default=0.0, metavar="X", help="Weight decay of the weight matrices."),
)
@group(
    "Computation",
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16"]),
        default="float32",
        help="Data type of matrix products.",
    ),
    device_option,
    threads_option,
    ignore_unknown_option,
)
@group("Plot of the loss", format_option, dark_option)
@processes_options
@progress_options()
@examples(
    "bpe finetune smollm2 dialogs.jsonl -o runs/orders --lora 16",
    "bpe finetune runs/tales chats/*.jsonl.gz -o runs/assistant --held-out 0.05 --epochs 2",
    "bpe finetune runs/assistant pairs.jsonl -o runs/polite --preferences --lora 16 --merge",
    "torchrun --nproc-per-node 2 -m bpe.cli finetune smollm2 dialogs.jsonl -o runs/orders --device cuda",
    "bpe chat runs/orders",
)
def finetune(
    model: str,
    data: Sequence[str],
    output: str | None,
    rank: int | None,
    lora_alpha: float | None,
    targets: Sequence[str],
    lora_dropout: float,
    merge: bool,
    text: bool,
    preferences: bool,
    beta: float,
    held_out: str,
    field: str,
    separator: str | None,
    learn_end: bool | None,
    epochs: float,
    padded: bool,
    threads: int | None,
    restart: bool,
    parallel: Any,
    tensor_parallel: int,
    formats: Sequence[str],
    dark: bool,
    ignore_unknown: bool,
    **settings: Any,
) -> None:
    """Fine-tune a model on dialogs or preferences.

    Each line of DIALOGS is {"messages": [{"role": "user", "content": "..."}, ...]}, or a record with "conversations"
    (ShareGPT), "prompt" and "completion", or "instruction" and "output" (Alpaca). Dialogs are encoded in the model's
    own chat format, and the loss covers only the assistant's messages and the ends of its turns. A message with
    "weight": 0 is not learned. Dialogs longer than --sequence-length are cut at the end, with a warning.

    With --preferences, each line is {"prompt": ..., "chosen": ..., "rejected": ...}, where the values are messages or
    texts; without "prompt", the other two are whole dialogs.

    With --text, DIALOGS are plain texts: text files, directories, and .jsonl or Parquet files with a text in each
    record.

    If MODEL is a LoRA adapter, it is trained further, with its own rank, and DIR becomes an adapter of the same base.

    DIR becomes a model directory; with --lora, a PEFT adapter that refers to MODEL. All commands accept both as models.
    """
    if rank is None and (lora_alpha is not None or targets or lora_dropout):
        raise click.UsageError("--lora-alpha, --lora-target and --lora-dropout need --lora RANK")
    if not preferences:
        refuse_given("without --preferences", "beta")
    if settings["steps"] is not None or settings["minutes"] is not None:
        refuse_given("with --steps or --minutes", "epochs")
    if not text:
        refuse_given("without --text", "field", "separator")
    if text and preferences:
        raise click.UsageError("--text and --preferences exclude each other: plain texts have no preferences")
    if output is None:
        output = default_run(model, "-finetuned")
        if os.environ.get("RANK", "0") == "0":
            tell_defaults(output=output)
    with phase("loading PyTorch"):
        import torch

        from model.lora import TARGETS, LoraConfig
        from model.training.finetune_settings import FinetuneConfig
        from model.training.finetuning import finetune as run_finetuning
        from model.training.parallel import Parallel

    if threads is not None:
        torch.set_num_threads(threads)
    settings["device"] = chosen_device(settings["device"])
    pictures = loss_settings(output, formats, dark)
    given = {name: value for name, value in settings.items() if value is not None}
    with Parallel(parallel, tensor_parallel, settings["device"]) as processes:
        config = FinetuneConfig(
            lora=None if rank is None else LoraConfig(rank, lora_alpha, targets or TARGETS, lora_dropout),
            merge=merge,
            beta=beta if preferences else None,
            packed=not padded,
            held_out=_share_or_files(held_out),
            epochs=epochs,
            learn_end=learn_end,
            text=text,
            field=field,
            separator=separator,
        )
        result = run_finetuning(
            model,
            data,
            output,
            config,
            restart=restart,
            parallel=processes,
            pictures=pictures,
            ignore_unknown=ignore_unknown,
            **given,
        )
    if processes.is_main and current().is_for_programs:
        current().done("", output=output, **figures(result))
    name_next(next_steps.generate(Path(output)) if text else next_steps.chat(Path(output)))


def _share_or_files(held_out: str) -> float | list[str]:
    try:
        return float(Share().convert(held_out, None, None))
    except click.BadParameter:
        return [held_out]

"""`bpe finetune`: train a model on dialogs or preferences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from bpe.commands.options import examples
from model.commands.options import device_option, parallel_option, tensor_parallel_option, threads_option


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("data", nargs=-1, required=True, metavar="DIALOGS...")
@click.option("-o", "--output", required=True, metavar="DIR", help="The run's directory; an interrupted run goes on.")
@click.option("--lora", "rank", type=int, metavar="RANK", help="Train matrices of this rank beside the model's own.")
@click.option("--lora-alpha", type=float, metavar="X", help="They count X / RANK.  [default: twice the rank]")
@click.option(
    "--lora-target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="Of wq, wk, wv, wo, w1, w2, w3, which matrices; repeat.  [default: all]",
)
@click.option("--lora-dropout", type=float, default=0.0, metavar="X", help="Share of inputs left out in training.")
@click.option("--merge", is_flag=True, help="Leave a model with what LoRA learned in it, not the adapter alone.")
@click.option("--preferences", is_flag=True, help="Learn from which of two answers is better (DPO).")
@click.option("--beta", type=float, default=0.1, metavar="X", help="Of DPO: how dear it is to become another model.")
@click.option(
    "--held-out",
    default="0.1",
    metavar="SHARE|FILE",
    help="What is measured on and not trained on: a share of the dialogs, or a file of others.",
)
@click.option("--epochs", type=float, default=3.0, metavar="N", help="Read each dialog so often.")
@click.option("--steps", type=int, metavar="N", help="Train for so many steps instead.")
@click.option("--minutes", type=float, metavar="N", help="Train for this long instead.")
@click.option(
    "--sequence-length",
    type=int,
    metavar="N",
    help="Tokens of a dialog that are read, and of a row.  [default: the context, 1,024 at the most]",
)
@click.option("--batch-tokens", type=int, metavar="N", help="Tokens in the rows of a step.  [default: one row]")
@click.option(
    "--micro-batch-tokens",
    type=int,
    metavar="N",
    help="Tokens that the model reads at a time.  [default: all of a step]",
)
@click.option(
    "--learning-rate",
    type=float,
    metavar="X",
    help="The highest.  [default: 2e-5, with --lora 10 times that, with --preferences a tenth]",
)
@click.option("--weight-decay", type=float, default=0.0, metavar="X", help="Of the matrices.")
@click.option("--padded", is_flag=True, help="A row for each dialog, not several in one; the result is the same.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", help="Of the matrix products.")
@device_option
@threads_option
@click.option("--eval-every", type=int, default=100, metavar="N", help="Steps from one evaluation to the next.")
@click.option("--seed", type=int, default=0, metavar="N", help="Of what is held out, of the order, of LoRA's matrices.")
@click.option("--restart", is_flag=True, help="Throw an earlier run in this directory away.")
@parallel_option
@tensor_parallel_option
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
    output: str,
    rank: int | None,
    lora_alpha: float | None,
    targets: Sequence[str],
    lora_dropout: float,
    merge: bool,
    preferences: bool,
    beta: float,
    held_out: str,
    epochs: float,
    padded: bool,
    threads: int | None,
    restart: bool,
    parallel: Any,
    tensor_parallel: int,
    **settings: Any,
) -> None:
    """Train a model on dialogs, to say what the assistant says in them.

    Each line of DIALOGS is {"messages": [{"role": "user", "content": "..."}, ...]}; roles are system, user, assistant
    and tool. They are written in the model's own chat format. Learned is what the assistant says and where its turn
    ends, no more. A dialog that is longer than --sequence-length is cut at its end, and that is said.

    With --preferences, a line is {"prompt": ..., "chosen": ..., "rejected": ...}, messages or texts, or two whole
    dialogs under the latter two.

    DIR is a model directory; with --lora an adapter as PEFT has it, which names MODEL. Both are models for all other
    commands.
    """
    import torch

    from model.lora import TARGETS, LoraConfig
    from model.training.examples import FinetuneConfig
    from model.training.finetuning import finetune as run_finetuning
    from model.training.parallel import Parallel

    if rank is None and (lora_alpha is not None or targets or lora_dropout):
        raise click.UsageError("--lora-alpha, --lora-target and --lora-dropout are for --lora RANK")
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        share: float | list[str] = float(held_out)
    except ValueError:
        share = [held_out]
    given = {name: value for name, value in settings.items() if value is not None}
    with Parallel(parallel, tensor_parallel, settings["device"]) as processes:
        config = FinetuneConfig(
            lora=None if rank is None else LoraConfig(rank, lora_alpha, targets or TARGETS, lora_dropout),
            merge=merge,
            beta=beta if preferences else None,
            packed=not padded,
            held_out=share,
            epochs=epochs,
        )
        run_finetuning(model, data, output, config, restart=restart, parallel=processes, **given)

"""Options that several commands about models share, and loading a model by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.options import group

if TYPE_CHECKING:
    from bpe import Tokenizer

dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Data type to compute in.  [default: that of the weights]",
)
device_option = click.option("--device", default="cpu", metavar="NAME", help="Device to run on: cpu, cuda, mps, ...")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Number of CPU threads.  [default: all processors]"
)
backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "native", "torch"]),
    default="auto",
    help="Engine: native (C++ on the CPU, reads quantized weights in place), torch, or auto (native if possible).",
)
bos_option = click.option(
    "--bos/--no-bos",
    default=None,
    help="Put the token that begins a text in front of each text, or do not.  [default: as the tokenizer's files say]",
)
eos_token_option = click.option(
    "--eos-token",
    "eos_tokens",
    multiple=True,
    metavar="TEXT|ID",
    help="Token that ends a text, instead of those that the model's files name; repeatable.",
)
run_option = click.option(
    "-o", "--output", required=True, metavar="DIR", help="Run directory to write to, or to resume from."
)
restart_option = click.option("--restart", is_flag=True, help="Delete an earlier run in the directory and start anew.")
processes_options = group(
    "Several processes (under torchrun)",
    click.option(
        "--parallel",
        type=click.Choice(["ddp", "fsdp"]),
        help="ddp: each process holds the whole model; fsdp: each holds a share of it.  [default: ddp]",
    ),
    click.option(
        "--tensor-parallel",
        type=int,
        default=1,
        metavar="N",
        help="Number of neighboring processes that split each weight matrix.",
    ),
)


def sampling_options(temperature: float, top_p: float, *others: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the options of sampling, with the defaults of a command and its other options."""
    return group(
        "Sampling",
        click.option(
            "--temperature",
            type=float,
            default=temperature,
            metavar="X",
            help="Sampling temperature; 0 always takes the most likely token.",
        ),
        click.option(
            "--top-k", type=int, metavar="N", help="Sample from the N most likely tokens.  [default: no limit]"
        ),
        click.option(
            "--top-p",
            type=float,
            default=top_p,
            metavar="X",
            help="Sample from the fewest most likely tokens whose probabilities sum to X.",
        ),
        *others,
        click.option(
            "--seed", type=int, metavar="N", help="Random seed; the same seed gives the same text.  [default: random]"
        ),
    )


def overruled(tokenizer: Tokenizer, name: str | Path, bos: bool | None, eos_tokens: Sequence[str] = ()) -> Tokenizer:
    """Return a tokenizer that begins and ends texts as --bos, --no-bos and --eos-token say.

    Args:
        tokenizer: The tokenizer.
        name: The model or the file that error messages name.
        bos: Whether the token that begins a text is put in front; None if neither option is given.
        eos_tokens: The texts or ids of the tokens that end a text; empty if the option is not given.
    """
    from bpe import InputError

    if bos is None and not eos_tokens:
        return tokenizer
    known = {token.content for token in tokenizer.vocabulary.added_tokens}
    ends = [int(token) if token not in known and token.isdecimal() else token for token in eos_tokens]
    try:
        return tokenizer.with_boundaries(bos=bos, end_tokens=ends or None)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def load_model(
    name: str | Path,
    dtype: str | None,
    device: str,
    backend: Any,
    threads: int | None,
    bos: bool | None = None,
    eos_tokens: Sequence[str] = (),
) -> tuple[Any, Any]:
    """Load the model and the tokenizer that these options name.

    Args:
        name: A known name or a path.
        dtype: Name of a torch dtype; None for that of the weights.
        device: Name of a torch device.
        backend: "auto", "native" or "torch".
        threads: Number of CPU threads; None for all processors.
        bos: As for `overruled`.
        eos_tokens: As for `overruled`.

    Returns:
        The model and its tokenizer.
    """
    from bpe.locate import locate

    path = locate(str(name), "model")  # before torch is imported, so that a wrong name fails at once
    import torch

    from model import load

    if threads is not None:
        torch.set_num_threads(threads)
    model, tokenizer = load(path, None if dtype is None else getattr(torch, dtype), device, backend, packed=True)
    return model, overruled(tokenizer, name, bos, eos_tokens)

"""The options that several commands about models share, and loading a model by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="What to compute in.  [default: what the weights are in]",
)

device_option = click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, mps, ...")

threads_option = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="How many processors to use.  [default: all]"
)

parallel_option = click.option(
    "--parallel",
    type=click.Choice(["ddp", "fsdp"]),
    help="Under torchrun: whether each process holds the whole model, or a share.  [default: ddp]",
)

tensor_parallel_option = click.option(
    "--tensor-parallel", type=int, default=1, metavar="N", help="Under torchrun: N neighbours share each matrix."
)

backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "native", "torch"]),
    default="auto",
    help="native: from the weights as they are stored, on the CPU; auto: where it can.",
)


def load_model(name: str | Path, dtype: str | None, device: str, backend: Any, threads: int | None) -> tuple[Any, Any]:
    import torch

    from model import load

    if threads is not None:
        torch.set_num_threads(threads)
    return load(name, None if dtype is None else getattr(torch, dtype), device, backend, packed=True)

"""Options that several commands about models share, and loading a model by them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.inputs import refuse_text
from bpe.commands.options import group, refuse_given
from bpe.progress import phase, say

if TYPE_CHECKING:
    from bpe import Tokenizer
    from model.checkpoint.opened import Checkpoint
    from model.config import ModelConfig
    from model.images import TiledImage
    from model.training.settings import TrainResult

dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Data type to compute in.  [default: that of the weights]",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Device to run on: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:1, mps, ...",
)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Number of CPU threads.  [default: all processors]"
)
backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "native", "torch"]),
    default="auto",
    help="Engine: native (C++ on the CPU, reads quantized weights in place), torch, or auto (native if possible).",
)
cache_dtype_option = click.option(
    "--cache-dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "int8"]),
    help="Data type of the keys and values of past tokens, native backend only.  [default: int8 for quantized weights, "
    "float32 for others]",
)
ignore_unknown_option = click.option(
    "--ignore-unknown",
    is_flag=True,
    help="Pass over keys of the model's configuration that are not known, which may change what it computes.",
)
bos_option = click.option(
    "--bos/--no-bos",
    default=None,
    help="Put the token that begins a text in front of each text, or do not.  [default: as the tokenizer's files say]",
)
image_option = click.option(
    "--image",
    "image_files",
    multiple=True,
    metavar="FILE",
    help="Image for the model to look at, for models that read images; repeatable.",
)

template_options = group(
    "Chat template",
    click.option(
        "--template",
        metavar="NAME",
        help="Name of the model's chat template, if it has several.  [default: the one named default]",
    ),
    click.option(
        "--template-arg",
        "template_args",
        multiple=True,
        metavar="NAME=VALUE",
        help="Variable for the chat template: JSON, else text; repeatable.",
    ),
)


def template_variables(texts: Sequence[str]) -> dict[str, Any]:
    """Return the variables for the chat template that --template-arg sets."""
    return dict(map(_variable, texts))


def _variable(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise click.UsageError(f"--template-arg {text}: write NAME=VALUE, such as enable_thinking=false")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def read_images(name: str, config: ModelConfig, files: Sequence[str]) -> list[TiledImage]:
    """Return the images that --image names, as a model reads them.

    Raises:
        InputError: When the model takes no images, or a file is no image; the message names it.
    """
    from bpe import InputError
    from model.images import open_image, tiled

    if files and config.vision is None:
        raise InputError(
            f"{name}: the model takes no images, so --image {files[0]} cannot be shown to it; leave it out"
        )
    return [tiled(open_image(file), config.vision) for file in files if config.vision is not None]


eos_token_option = click.option(
    "--eos-token",
    "eos_tokens",
    multiple=True,
    metavar="TEXT|ID",
    help="Token that ends a text, instead of those that the model's files name; repeatable.",
)


def run_option(default: str) -> Callable[[Any], Any]:
    """Return the option for the run directory.

    Args:
        default: The default of the command, for the help.
    """
    return click.option(
        "-o",
        "--output",
        metavar="DIR",
        help=f"Run directory to write to, or to resume from.  [default: {default}]",
    )


def default_run(name: str, ending: str = "") -> str:
    """Return the run directory for a model or a preset of this name.

    Args:
        name: A path, a known name, a repository on the hub, or a preset.
        ending: What to put behind the name.
    """
    last = Path(name.partition(":")[0] if not Path(name).exists() else Path(name).resolve()).name
    for suffix in (".gguf", ".json", ".safetensors", ".pth"):
        last = last.removesuffix(suffix)
    return str(Path("runs", last + ending))


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


def computation_options(*others: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the options that say where and how a model computes what it generates, with others of a command."""
    return group(
        "Computation",
        dtype_option,
        device_option,
        backend_option,
        cache_dtype_option,
        threads_option,
        *others,
        ignore_unknown_option,
    )


def sampling_options(temperature: float, top_p: float, *others: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the options of sampling; `sampling_settings` gives them their defaults.

    Args:
        temperature: The temperature where neither the caller nor the model chooses one, for the help.
        top_p: The same for top-p.
        others: Further options of the command.
    """
    return group(
        "Sampling",
        click.option(
            "--temperature",
            type=float,
            metavar="X",
            help=f"Temperature; 0 always takes the most likely token.  [default: the model's, or {temperature}]",
        ),
        click.option(
            "--top-k",
            type=int,
            metavar="N",
            help="Sample from the N most likely tokens.  [default: the model's, or no limit]",
        ),
        click.option(
            "--top-p",
            type=float,
            metavar="X",
            help="Sample from the fewest most likely tokens whose probabilities sum to X."
            f"  [default: the model's, or {top_p}]",
        ),
        *others,
        click.option(
            "--seed", type=int, metavar="N", help="Random seed; the same seed gives the same text.  [default: random]"
        ),
    )


penalty_options = (
    click.option(
        "--min-p",
        type=float,
        metavar="X",
        help="Drop tokens less likely than X times the most likely one.  [default: the model's, or no limit]",
    ),
    click.option(
        "--repetition-penalty",
        type=float,
        metavar="X",
        help="Penalty on tokens that have occurred; above 1 makes them less likely.  [default: the model's, or 1]",
    ),
    click.option(
        "--frequency-penalty",
        type=float,
        default=0.0,
        metavar="X",
        help="Amount to subtract from a token's logit for each time it was generated.",
    ),
    click.option(
        "--presence-penalty",
        type=float,
        default=0.0,
        metavar="X",
        help="Amount to subtract from a token's logit once if it was generated.",
    ),
)
"""Further options for `sampling_options`."""

_OF_DRAWING = ("top_k", "top_p", "min_p", "seed")  # options without effect where the most likely token is always taken


def sampling_settings(
    checkpoint: Checkpoint, given: Mapping[str, Any], temperature: float, top_p: float
) -> dict[str, Any]:
    """Return the settings of sampling: those on the command line, else those that the model asks for, else defaults.

    Prints which settings of the model have no effect.

    Args:
        checkpoint: The opened model.
        given: The values of the options; None where an option is not given.
        temperature: The default temperature.
        top_p: The default of top-p.

    Raises:
        click.UsageError: When an option has no effect, because the temperature is 0.
    """
    if given["temperature"] == 0:
        refuse_given("with --temperature 0", *_OF_DRAWING)
    asked = {"temperature": temperature, "top_p": top_p, **checkpoint.sampling}
    settings: dict[str, Any] = asked | {name: value for name, value in given.items() if value is not None}
    if settings["temperature"] == 0:
        refuse_given("on this model, which asks for temperature 0; give --temperature", *_OF_DRAWING)
    announce_unused(checkpoint)
    return settings


def announce_unused(checkpoint: Checkpoint) -> None:
    """Print which settings of generation a model asks for that are not implemented."""
    if checkpoint.unused_settings:
        names = ", ".join(checkpoint.unused_settings)
        click.echo(
            f"bpe: {checkpoint.tokenizer}: its generation_config.json sets {names}, which has no effect here", err=True
        )


def figures(result: TrainResult) -> dict[str, Any]:
    """Return the fields of the event that a training run ends with."""
    return {
        "steps": result.steps,
        "tokens": result.tokens,
        "seconds": result.seconds,
        "train_loss": result.train_loss,
        "held_out_loss": result.held_out_loss,
        "bits_per_byte": result.bits_per_byte,
        "already_finished": result.already_finished,
    }


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
    ignore_unknown: bool = False,
    cache_dtype: str | None = None,
) -> tuple[Any, Any]:
    """Load the model and the tokenizer that these options name.

    Args:
        name: A known name or a path.
        dtype: Name of a torch dtype; None for that of the weights.
        device: Name of a torch device, or "auto".
        backend: "auto", "native" or "torch".
        threads: Number of CPU threads; None for all processors.
        bos: As for `overruled`.
        eos_tokens: As for `overruled`.
        ignore_unknown: As for `model.load`.
        cache_dtype: Name of the dtype of keys and values; None for the model's default.

    Returns:
        The model and its tokenizer.

    Raises:
        InputError: When `cache_dtype` is given and the model is not a native one, or cannot store it.
    """
    from bpe import InputError
    from bpe.locate import locate

    refuse_text(str(name))
    path = locate(str(name), "model")  # before anything else is imported, so that a wrong name fails at once
    with phase(f"loading {name}"):
        from model import load

        place = chosen_device("cpu" if backend == "native" and device == "auto" else device)
        model, tokenizer = load(
            path, dtype, place, backend, packed=True, threads=threads, ignore_unknown=ignore_unknown
        )
    if cache_dtype is not None:
        from model.generation.native import NativeModel

        if not isinstance(model, NativeModel):
            remedy = "choose --backend native"
            if dtype is not None:
                remedy = f"leave out --dtype {dtype}, with which torch computes"
            elif backend != "torch":
                remedy = "see bpe info for why this model runs on torch"
            raise InputError(
                f"{name}: --cache-dtype {cache_dtype} needs the native backend; on torch, which runs here, keys "
                f"and values have the dtype of the computation; leave --cache-dtype out, or {remedy}"
            )
        model.cache_dtype = cache_dtype
        model.new_cache()  # refuses a dtype that these heads do not allow
    return model, overruled(tokenizer, name, bos, eos_tokens)


def chosen_device(device: str) -> str:
    """Return the device that --device names; print why an accelerator of this machine is not used.

    Raises:
        InputError: When there is no such device.
    """
    from model.device import choose

    chosen = choose(device)
    if chosen.reason:
        say(f"bpe: {chosen.reason}")
    return chosen.name


def place_of(model: Any) -> str:
    """Return where and how a model computes, for a person: "on the CPU, native kernels amx, 2 threads"."""
    from model.generation.native import NativeModel

    if isinstance(model, NativeModel):
        return f"on the CPU, native kernels {model.kernel}, {_threads(model.core.threads)}"
    import torch

    from model.device import describe

    dtype = str(model.tok_embeddings.weight.dtype).removeprefix("torch.")
    place = f"on {describe(model.device)}, {dtype}"
    return f"{place}, {_threads(torch.get_num_threads())}" if model.device.type == "cpu" else place


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"

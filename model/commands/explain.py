"""`bpe explain`: show each step from a prompt to the next token."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bpe.commands.inputs import exists, read_prompts, refuse_text
from bpe.commands.options import Command, color_option, examples, group, progress_options, refuse_given, texts_option
from bpe.commands.terminal import use_color
from bpe.display import visible
from bpe.progress import phase
from model.commands.options import bos_option, chosen_device, device_option, dtype_option, overruled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bpe import Tokenizer
    from model.explain.steps import ForwardStep


@click.command(cls=Command, needed={"MODEL": ("arguments", "model")})
@click.argument("arguments", nargs=-1, metavar="MODEL [FILE]")
@group(
    "Steps",
    texts_option("Text to explain.  [default: the file, or stdin]"),
    click.option(
        "-m",
        "--model",
        metavar="MODEL",
        help="Model, instead of the first argument. An argument that is no file is then the text itself.",
    ),
    bos_option,
    click.option("--layer", type=int, default=0, metavar="N", help="Layer to show in detail, counted from 0."),
    click.option("--head", type=int, default=0, metavar="N", help="Attention head to show in detail, counted from 0."),
    click.option("--top", type=click.IntRange(min=1), default=10, metavar="N", help="Number of next tokens to show."),
)
@group(
    "Output",
    click.option("--png", metavar="FILE", help="File to draw the attention weights to; needs the extra `report`."),
    click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON."),
    color_option,
)
@group("Computation", dtype_option, device_option)
@progress_options(with_events=False)
@examples(
    "bpe explain runs/tales -p 'the answer to the ultimate question of life'",
    "bpe explain runs/tales -p 'One day, a fox' --layer 2 --head 1 --png attention.png",
)
def explain(
    arguments: Sequence[str],
    texts: Sequence[str],
    model: str | None,
    bos: bool | None,
    layer: int,
    head: int,
    top: int,
    png: str | None,
    as_json: bool,
    color: str,
    dtype: str | None,
    device: str,
) -> None:
    """Explain step by step how a model predicts the next token.

    The text is -p TEXT, the content of FILE, or stdin. Each step shows its tensor's shape, and for the first two tokens
    and the last one a few numbers and a row of blocks. A block stands for a part of the row, and shows the number in it
    that is farthest from 0: low if negative, high if positive.
    """
    if as_json:
        refuse_given("with --json", "color")
    model, prompts = _model_and_prompts(model, arguments, texts)

    from bpe.locate import locate

    refuse_text(model)
    path = locate(model, "model")  # before torch is imported, so that a wrong name fails at once
    (prompt,) = prompts
    from model import load
    from model.explain.pictures import plot_shares, record
    from model.explain.steps import explain as explain_steps
    from model.generation.completions import prompt_ids

    if png is not None:
        import matplotlib  # noqa: F401, to fail before the work if it is missing
    with phase(f"loading {model}"):
        transformer, tokenizer = load(path, dtype, chosen_device(device))
    tokenizer = overruled(tokenizer, model, bos)
    ids = prompt_ids(tokenizer, prompt)
    label = _labels(tokenizer)
    steps = list(explain_steps(transformer, ids, layer=layer, head=head, n_vocab=tokenizer.n_vocab))
    if png is not None:
        shares = next(step for step in steps if step.picture == "shares").tensor
        plot_shares(shares, [label(id) for id in ids], f"layer {layer}, head {head}", Path(png))
    if as_json:
        found = {"prompt": prompt, "layer": layer, "head": head}
        click.echo(json.dumps(found | {"steps": [record(step, label, top=top) for step in steps]}, indent=2))
    else:
        _print_steps(steps, ids, label, top, use_color(color))


def _model_and_prompts(model: str | None, arguments: Sequence[str], texts: Sequence[str]) -> tuple[str, Iterator[str]]:
    """Return the name of the model, and an iterator over the prompt.

    Args:
        model: The value of --model.
        arguments: The model if --model is not given, and a file. With --model, a text that names no file is the prompt.
        texts: The values of --text.
    """
    if model is None:
        model, *files = arguments
    else:
        files = [argument for argument in arguments if argument == "-" or exists(argument)]
        texts = [*texts, *(argument for argument in arguments if argument not in files)]
    prompts = read_prompts(files, texts)
    if len(files) + len(texts) > 1:
        raise click.UsageError("only one text can be explained; give one file, or -p / --prompt once")
    return model, prompts


def _labels(tokenizer: Tokenizer) -> Callable[[int], str]:
    """Return a function that names a token by its text; rows of the model without a token are named <ID>."""

    def label(id: int) -> str:
        try:
            token = tokenizer.decode_single_token_bytes(id)
        except KeyError:
            return f"<{id}>"
        return visible(token).replace(" ", "·")

    return label


def _print_steps(
    steps: Sequence[ForwardStep], ids: Sequence[int], label: Callable[[int], str], top: int, is_colored: bool
) -> None:
    from model.explain.pictures import picture

    for number, step in enumerate(steps, 1):
        title = f"{number}. {step.title}"
        shown = click.style(title, bold=True) if is_colored else title
        click.echo(f"{shown}  {step.shape} {step.axes}, {step.dtype}\n{textwrap.fill(step.text, 80)}", color=is_colored)
        for line in picture(step, ids, label, top=top, colour=is_colored):
            click.echo(f"  {line}", color=is_colored)
        click.echo()

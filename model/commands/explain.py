"""`bpe explain`: walk through a model, step by step."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bpe.commands.options import examples
from bpe.commands.terminal import in_colour, visible
from model.commands.options import device_option, dtype_option


@click.command()
@click.argument("prompt", required=False)
@click.option("-m", "--model", required=True, metavar="NAME|DIRECTORY", help="The model that is watched.")
@click.option("--layer", type=int, default=0, metavar="N", help="The layer that is shown in full, from 0.")
@click.option("--head", type=int, default=0, metavar="N", help="The head that is shown in full, from 0.")
@click.option("--top", type=click.IntRange(min=1), default=10, metavar="N", help="How many next tokens are shown.")
@click.option("--png", metavar="FILE", help="Draw who looks at whom into this file; needs the extra `report`.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour in the pictures.")
@dtype_option
@device_option
@examples(
    "bpe explain 'the answer to the ultimate question of life' -m runs/tales",
    "bpe explain 'One day, a fox' -m runs/tales --layer 2 --head 1 --png attention.png",
)
def explain(
    prompt: str | None,
    model: str,
    layer: int,
    head: int,
    top: int,
    png: str | None,
    as_json: bool,
    color: str,
    dtype: str | None,
    device: str,
) -> None:
    """Walk through a model with a prompt (or stdin): from its tokens to the one that comes next, step by step.

    Each step shows its shape, and for the first two tokens and the last a few numbers and a row of blocks: a block is
    the number farthest from 0 in its part of the row, low if negative and high if positive.
    """
    import json
    import textwrap

    import torch

    from model import load
    from model.explain.pictures import picture, plot_shares, record
    from model.explain.steps import explain as walk
    from model.generation.completions import prompt_ids

    if png is not None:
        import matplotlib  # noqa: F401, what is missing is said before the work
    if prompt is None:
        prompt = sys.stdin.read().rstrip("\n")
    transformer, tokenizer = load(model, getattr(torch, dtype) if dtype else None, device)
    ids = prompt_ids(tokenizer, prompt)

    def label(id: int) -> str:
        try:
            token = tokenizer.decode_single_token_bytes(id)
        except KeyError:
            return f"<{id}>"
        return visible(token, newline="⏎").replace(" ", "·")

    steps = list(walk(transformer, ids, layer=layer, head=head, n_vocab=tokenizer.n_vocab))
    if png is not None:
        shares = next(step for step in steps if step.picture == "shares").tensor
        plot_shares(shares, [label(id) for id in ids], f"layer {layer}, head {head}", Path(png))
    if as_json:
        found = {"prompt": prompt, "layer": layer, "head": head}
        click.echo(json.dumps(found | {"steps": [record(step, label, top=top) for step in steps]}, indent=2))
        return
    coloured = in_colour(color)
    for number, step in enumerate(steps, 1):
        title = f"{number}. {step.title}"
        shown = click.style(title, bold=True) if coloured else title
        click.echo(f"{shown}  {step.shape} {step.axes}, {step.dtype}\n{textwrap.fill(step.text, 80)}", color=coloured)
        for line in picture(step, ids, label, top=top, colour=coloured):
            click.echo(f"  {line}", color=coloured)
        click.echo()

"""`bpe show`: print a text with its tokens marked."""

from __future__ import annotations

from collections.abc import Sequence

import click

from bpe.commands.inputs import inputs, open_tokenizer
from bpe.commands.options import (
    examples,
    files_argument,
    pattern_option,
    special_option,
    text_option,
    tokenizer_option,
)
from bpe.commands.terminal import in_colour, painted, visible

# Backgrounds that neighbouring tokens take in turn, from the 256-colour palette, with black text.
COLOURS = (152, 223, 182, 225, 189)


@click.command()
@files_argument
@text_option
@tokenizer_option
@pattern_option
@special_option
@click.option("--ids", "with_ids", is_flag=True, help="A line for each token: its id and its bytes.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour, or | between.")
@examples('bpe show -c "It\'s 12345 tokens, naïve café"', "bpe show --ids -c 'Grüße' -t my.json")
def show(
    files: Sequence[str],
    text: str | None,
    name: str,
    pattern: str | None,
    allow_special: bool,
    with_ids: bool,
    color: str,
) -> None:
    """Print a text with its tokens marked. Bytes of a character that is cut between tokens are shown as <C3>."""
    tokenizer = open_tokenizer(name, pattern)
    coloured = in_colour(color)
    for _, content in inputs(files, text):
        ids = tokenizer.encode(content, allowed_special="all" if allow_special else set(), disallowed_special=())
        if with_ids:
            for id in ids:
                click.echo(f"{id:>7}  {visible(tokenizer.decode_single_token_bytes(id), newline='⏎')}")
            continue
        pieces = [visible(tokenizer.decode_single_token_bytes(id), newline="⏎\n") for id in ids]
        if coloured:
            line = "".join(painted(piece, COLOURS[i % len(COLOURS)]) for i, piece in enumerate(pieces))
            click.echo(line, color=True)
        else:
            click.echo("|".join(pieces))
        words = f"{len(ids):,} tokens, {len(content):,} bytes"
        click.echo(f"{words}, {len(content) / max(len(ids), 1):.2f} bytes per token", err=True)

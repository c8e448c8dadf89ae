"""`bpe show`: print a text with its tokens marked."""

from __future__ import annotations

from collections.abc import Sequence

import click

from bpe.commands.inputs import open_tokenizer, read_inputs
from bpe.commands.options import (
    Command,
    color_option,
    examples,
    files_argument,
    pattern_option,
    refuse_given,
    special_option,
    text_option,
    tokenizer_option,
)
from bpe.commands.terminal import painted, use_color, visible

# Background colors of successive tokens, from the 256-color palette; the text is black.
_COLORS = (152, 223, 182, 225, 189)


@click.command(cls=Command)
@files_argument
@text_option
@tokenizer_option
@pattern_option
@special_option
@click.option("--ids", "with_ids", is_flag=True, help="Print a line for each token, with its id and its bytes.")
@color_option
@examples('bpe show -c "It\'s 12345 tokens, naïve café"', "bpe show --ids -c 'Grüße' -t my.json")
def show(
    files: Sequence[str],
    texts: Sequence[str],
    name: str,
    pattern: str | None,
    allow_special: bool,
    with_ids: bool,
    color: str,
) -> None:
    """Print text with its tokens marked.

    Tokens are shown on alternating background colors, or separated by | without colors. Where a character is split
    between tokens, its bytes are shown as <C3>.
    """
    if with_ids:
        refuse_given("with --ids", "color")
    inputs = read_inputs(files, texts)
    tokenizer = open_tokenizer(name, pattern)
    is_colored = use_color(color)
    for _, content in inputs:
        ids = tokenizer.encode(content, allowed_special="all" if allow_special else set(), disallowed_special=())
        if with_ids:
            for id in ids:
                click.echo(f"{id:>7}  {visible(tokenizer.decode_single_token_bytes(id))}")
            continue
        pieces = [visible(tokenizer.decode_single_token_bytes(id), newline="⏎\n") for id in ids]
        if is_colored:
            line = "".join(painted(piece, _COLORS[i % len(_COLORS)]) for i, piece in enumerate(pieces))
            click.echo(line, color=True)
        else:
            click.echo("|".join(pieces))
        words = f"{len(ids):,} tokens, {len(content):,} bytes"
        click.echo(f"{words}, {len(content) / max(len(ids), 1):.2f} bytes per token", err=True)

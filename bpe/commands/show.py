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
    progress_options,
    refuse_given,
    special_option,
    text_option,
    tokenizer_option,
)
from bpe.commands.terminal import counted, use_color
from bpe.display import ShownText, visible
from bpe.progress import say


@click.command(cls=Command)
@files_argument
@text_option
@tokenizer_option
@pattern_option
@special_option
@click.option("--ids", "with_ids", is_flag=True, help="Print a line for each token, with its id and its bytes.")
@color_option
@progress_options(with_events=False)
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
        shown = ShownText(ids, tokenizer.shown_tokens(ids))
        if with_ids:
            for id, token in zip(ids, shown.tokens, strict=True):
                click.echo(f"{id:>7}  {visible(token)}")
            continue
        click.echo(shown.colored() if is_colored else shown.plain(), color=is_colored)
        words = f"{counted(len(ids), 'token')}, {counted(len(content), 'byte')}"
        say(f"{words}, {len(content) / max(len(ids), 1):.2f} bytes per token")

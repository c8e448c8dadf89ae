"""`bpe count`: count tokens."""

from __future__ import annotations

from collections.abc import Sequence

import click

from bpe.commands.inputs import open_tokenizer, stream_inputs
from bpe.commands.options import (
    Command,
    examples,
    files_argument,
    pattern_option,
    progress_options,
    text_option,
    tokenizer_option,
)
from bpe.commands.pieces import encoded


@click.command(cls=Command)
@files_argument
@text_option
@tokenizer_option
@pattern_option
@progress_options(with_events=False)
@examples("bpe count README.md LICENSE", "cat *.txt | bpe count", "bpe count -t my.json corpora/prose.txt")
def count(files: Sequence[str], texts: Sequence[str], name: str, pattern: str | None) -> None:
    """Count the tokens of texts, files or stdin.

    Prints a line for each file: tokens, bytes, bytes per token, and the name. Several files get a line with the total.
    """
    inputs = stream_inputs(files, texts)
    tokenizer = open_tokenizer(name, pattern)
    rows = []
    for text in inputs:
        tokens = sum(len(ids) for ids in encoded(tokenizer, text, "counting")) // 4
        rows.append((tokens, text.read, text.name))
    if len(rows) > 1:
        rows.append((sum(row[0] for row in rows), sum(row[1] for row in rows), "total"))
    for tokens, size, file in rows:
        click.echo(f"{tokens:>10} {size:>10} {size / max(tokens, 1):>6.2f}  {file}")

"""`bpe encode`: turn text into ids."""

from __future__ import annotations

from collections.abc import Sequence

import click

from bpe.commands.ids import ids_format_option, write_ids
from bpe.commands.inputs import open_tokenizer, stream_inputs
from bpe.commands.options import (
    Command,
    examples,
    files_argument,
    pattern_option,
    progress_options,
    special_option,
    text_option,
    tokenizer_option,
)
from bpe.commands.pieces import encoded


@click.command(cls=Command)
@files_argument
@text_option
@tokenizer_option
@pattern_option
@special_option
@ids_format_option
@progress_options(with_events=False)
@examples(
    "bpe encode -c 'Hello world'",
    "bpe encode README.md --format u32 > readme.bin",
    "bpe encode photo.jpg | bpe decode | cmp - photo.jpg",
)
def encode(
    files: Sequence[str], texts: Sequence[str], name: str, pattern: str | None, allow_special: bool, ids_format: str
) -> None:
    """Encode text as token ids.

    The input is -c TEXT, files, or stdin. It may hold any bytes; `bpe decode` restores them exactly.
    """
    inputs = stream_inputs(files, texts)
    tokenizer = open_tokenizer(name, pattern)
    if ids_format == "u16" and tokenizer.n_vocab > 1 << 16:
        raise click.UsageError(f"ids go up to {tokenizer.n_vocab - 1:,}, too large for 16 bits; use --format u32")
    for text in inputs:
        write_ids(encoded(tokenizer, text, "encoding", allow_special), ids_format)

"""`bpe encode`: turn text into ids."""

from __future__ import annotations

from collections.abc import Sequence

import click

from bpe.commands.ids import ids_format_option, write_ids
from bpe.commands.inputs import open_tokenizer, read_inputs, working_on
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
    inputs = read_inputs(files, texts)
    tokenizer = open_tokenizer(name, pattern)
    if ids_format == "u16" and tokenizer.n_vocab > 1 << 16:
        raise click.UsageError(f"ids go up to {tokenizer.n_vocab - 1:,}, too large for 16 bits; use --format u32")
    for file, content in inputs:
        with working_on("encoding", file, content):
            ids = tokenizer.encode(content, allowed_special="all" if allow_special else set(), disallowed_special=())
        write_ids(ids, ids_format)

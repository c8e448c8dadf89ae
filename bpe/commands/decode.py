"""`bpe decode`: turn ids into text."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from bpe.commands.ids import ids_format_option, read_ids
from bpe.commands.inputs import inputs, open_tokenizer
from bpe.commands.options import examples, files_argument, pattern_option, tokenizer_option


@click.command()
@files_argument
@tokenizer_option
@pattern_option
@ids_format_option
@examples(
    "bpe encode -c 'Hello world' | bpe decode",
    "echo '[9906, 1917]' | bpe decode --format json",
    "bpe decode --format u32 readme.bin",
)
def decode(files: Sequence[str], name: str, pattern: str | None, ids_format: str) -> None:
    """Turn ids into the bytes they stand for."""
    from bpe import InputError

    tokenizer = open_tokenizer(name, pattern)
    for file, content in inputs(files, None):
        try:
            decoded = tokenizer.decode_bytes(read_ids(content, ids_format))
        except KeyError as error:
            raise InputError(
                f"{file}: {error.args[0]}; the vocabulary has {tokenizer.n_vocab:,} ids; was it encoded with another?"
            ) from error
        except (ValueError, OverflowError, TypeError) as error:
            raise InputError(f"{file}: {error}") from error
        sys.stdout.buffer.write(decoded)

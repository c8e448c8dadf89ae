"""`bpe decode`: turn ids into text."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from bpe.commands.ids import ID_FORMATS, ids_format_option, read_ids
from bpe.commands.inputs import open_tokenizer, read_inputs, working_on
from bpe.commands.options import (
    Command,
    examples,
    files_argument,
    pattern_option,
    progress_options,
    texts_option,
    tokenizer_option,
)


@click.command(cls=Command)
@files_argument
@texts_option("Ids to decode instead of those of files; repeatable.")
@tokenizer_option
@pattern_option
@ids_format_option
@progress_options(with_events=False)
@examples(
    "bpe decode -c '9906 1917'",
    "bpe encode -c 'Hello world' | bpe decode",
    "echo '[9906, 1917]' | bpe decode --format json",
    "bpe decode --format u32 readme.bin",
)
def decode(files: Sequence[str], texts: Sequence[str], name: str, pattern: str | None, ids_format: str) -> None:
    """Decode token ids into text.

    The input is -c TEXT with ids, files, or stdin. The output is the exact bytes of the tokens.
    """
    from bpe import InputError

    if texts and ID_FORMATS[ids_format] is not None:
        raise click.UsageError(
            f"--format {ids_format} is binary; give ids in this format as files or on stdin, not with -c"
        )
    inputs = read_inputs(files, texts, "ids")
    tokenizer = open_tokenizer(name, pattern)
    for file, content in inputs:
        try:
            with working_on("decoding", file, content):
                decoded = tokenizer.decode_bytes(read_ids(content, ids_format))
        except KeyError as error:
            raise InputError(
                f"{file}: {error.args[0]}; the vocabulary has {tokenizer.n_vocab:,} ids; was the text encoded with"
                " another tokenizer?"
            ) from error
        except OverflowError as error:
            raise InputError(f"{file}: an id is negative or has more than 32 bits; is the --format right?") from error
        except (ValueError, TypeError) as error:
            raise InputError(f"{file}: {error}") from error
        sys.stdout.buffer.write(decoded)

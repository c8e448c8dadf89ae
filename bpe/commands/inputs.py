"""What commands read: tokenizers, files, stdin, documents."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bpe.commands.terminal import Status

if TYPE_CHECKING:
    from bpe import Tokenizer


def open_tokenizer(name: str, pattern: str | None = None) -> Tokenizer:
    from bpe import Tokenizer
    from bpe.locate import locate

    return Tokenizer.from_file(locate(name), pattern)


def open_tokenizer_or_ranks(name: str, pattern: str | None) -> Tokenizer:
    """The tokenizer with its own pattern; with the one that is given where it has none."""
    from bpe import InputError

    try:
        return open_tokenizer(name)
    except InputError:
        if pattern is None:
            raise
        return open_tokenizer(name, pattern)


def inputs(files: Sequence[str], text: str | None) -> Iterator[tuple[str, bytes]]:
    """The name and content of each input; stdin if there is none."""
    if text is not None:
        if files:
            raise click.UsageError("give either files or --text, not both")
        yield "text", os.fsencode(text)
        return
    for file in files or ["-"]:
        yield ("stdin", sys.stdin.buffer.read()) if file == "-" else (file, Path(file).read_bytes())


def lines_of(file: str) -> list[str]:
    from bpe import InputError

    try:
        lines = Path(file).read_bytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start} is not UTF-8") from error
    return [line.removesuffix("\r") for line in lines if line.removesuffix("\r")]


def watched(
    sources: Sequence[str], separator: str | None, exclude: Sequence[str], field: str = "text"
) -> Iterator[bytes]:
    """The documents of the sources; how far they are read is shown meanwhile."""
    from bpe.corpus import documents

    status = Status()
    size = 0
    for number, document in enumerate(documents(sources, separator=separator, field=field, exclude=exclude), 1):
        size += len(document)
        status.show(f"encoding  {size / 1e6:,.1f} MB in {number:,} documents")
        yield document
    status.done()

"""What commands read: tokenizers, files, stdin, and documents."""

from __future__ import annotations

import codecs
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
    """Open the tokenizer with this name or path.

    Args:
        name: A known name, a tokenizer file, or a model directory.
        pattern: Split pattern that replaces the file's own.
    """
    from bpe import Tokenizer
    from bpe.locate import locate

    return Tokenizer.from_file(locate(name), pattern)


def open_tokenizer_or_ranks(name: str, pattern: str | None) -> Tokenizer:
    """Open the tokenizer with its own split pattern, or with `pattern` if the file stores none."""
    from bpe import InputError

    try:
        return open_tokenizer(name)
    except InputError:
        if pattern is None:
            raise
        return open_tokenizer(name, pattern)


def read_inputs(files: Sequence[str], text: str | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each input.

    Args:
        files: Paths, where "-" is stdin. Without any, stdin is read.
        text: A text to read instead of files.
    """
    if text is not None:
        if files:
            raise click.UsageError("give either files or --text, not both")
        yield "text", os.fsencode(text)
        return
    for file in files or ["-"]:
        yield ("stdin", sys.stdin.buffer.read()) if file == "-" else (file, Path(file).read_bytes())


def read_lines(file: str) -> list[str]:
    """Return the lines of a UTF-8 file that are not empty, without their line ends and without a byte order mark."""
    from bpe import InputError

    try:
        lines = Path(file).read_bytes().removeprefix(codecs.BOM_UTF8).decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start} is not valid UTF-8") from error
    return [line.removesuffix("\r") for line in lines if line.removesuffix("\r")]


def read_documents(
    sources: Sequence[str], separator: str | None, exclude: Sequence[str], field: str = "text"
) -> Iterator[bytes]:
    """Yield the documents of the sources, and show on the status line how many have been encoded."""
    from bpe.corpus import documents

    size = 0
    with Status() as status:
        for number, document in enumerate(documents(sources, separator=separator, field=field, exclude=exclude), 1):
            size += len(document)
            status.show_documents("encoding", number, size)
            yield document

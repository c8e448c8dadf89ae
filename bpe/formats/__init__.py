"""Tokenizer files: one module for each format, told apart by content when read and by suffix when written.

A format is a module with ``matches(content)``, ``read(...)`` and ``render(tokenizer)``, and one line in ``FORMATS``.
Content is bytes, but for a GGUF, which may be larger than memory and is mapped.
"""

from __future__ import annotations

import gzip
import mmap
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from bpe.errors import InputError
from bpe.files import write_bytes
from bpe.formats import gguf, gguf_container, huggingface, tiktoken

if TYPE_CHECKING:
    from bpe.tokenizer import Tokenizer

FORMATS: dict[str, ModuleType] = {"huggingface": huggingface, "tiktoken": tiktoken, "gguf": gguf}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer.tiktoken")
"""What a directory is searched for, in this order."""
SUFFIXES = {".json": "huggingface", ".model": "tiktoken", ".tiktoken": "tiktoken", ".gguf": "gguf"}


def read_tokenizer(
    path: Path, pattern: str | None, special_tokens: Mapping[str, int] | Sequence[str] | None
) -> Tokenizer:
    """The tokenizer in a file (or in a directory, as its tokenizer.json or tokenizer.model)."""
    path, format, content = open_tokenizer(path)
    try:
        tokenizer: Tokenizer = FORMATS[format].read(content, path.name, pattern, special_tokens)
        return tokenizer
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def open_tokenizer(path: Path) -> tuple[Path, str, bytes | mmap.mmap]:
    """The tokenizer file at a path, or in the directory there: its path, the name of its format, and its content.

    Raises:
        InputError: no tokenizer file, or a damaged archive.
        OSError: the file cannot be read.
    """
    if path.is_dir():
        path = find_tokenizer(path)
    content = _content(path)
    if isinstance(content, bytes) and content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: the gzip archive is damaged ({error})") from error
    for name, format in FORMATS.items():
        if format.matches(content):
            return path, name, content
    raise InputError(f"{path}: not a tokenizer file; expected a tokenizer.json, a tiktoken vocabulary or a GGUF")


def _content(path: Path) -> bytes | mmap.mmap:
    with open(path, "rb") as file:
        begin = file.read(4)
        return gguf_container.mapped(path) if gguf.matches(begin) else begin + file.read()


def find_tokenizer(directory: Path) -> Path:
    """The tokenizer's file in a directory: one of the usual names, or else the only tokenizer.* or *.gguf

    Raises:
        InputError: there is none, or more than one of no usual name.
    """
    for name in TOKENIZER_FILES:
        if (directory / name).is_file():
            return directory / name
    others = sorted(path for path in directory.glob("tokenizer.*") if path.is_file()) or sorted(
        directory.glob("*.gguf")
    )
    if len(others) == 1:
        return others[0]
    found = f"found {', '.join(path.name for path in others)}" if others else "found none"
    raise InputError(f"{directory}: expected a tokenizer, one of {', '.join(TOKENIZER_FILES)}; {found}")


def write_tokenizer(tokenizer: Tokenizer, path: Path, format: str | None) -> None:
    """Write a tokenizer in the named format, or the one that the suffix stands for."""
    name = format or SUFFIXES.get(path.suffix)
    if name is None:
        raise InputError(f"{path}: no format has the suffix {path.suffix!r}; use one of {', '.join(SUFFIXES)}")
    if name not in FORMATS:
        raise InputError(f"there is no tokenizer format {name!r}; there are {', '.join(FORMATS)}")
    content = FORMATS[name].render(tokenizer)
    write_bytes(path, content)

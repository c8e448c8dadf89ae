"""Tokenizer files: one module for each format. Content decides the format to read, the suffix the format to write.

A format is a module with ``matches(content)``, ``read(content, name, pattern, special_tokens) -> Vocabulary`` and
``render(vocabulary) -> bytes``, and a line in `TOKENIZER_FORMATS`. Content is bytes; for a GGUF, which may be larger
than memory, it is the mapped file.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import mmap
import os
import re
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from bpe.boundaries import completed
from bpe.errors import InputError
from bpe.files import write_bytes
from bpe.formats import gguf_container
from bpe.formats.companion_files import MERGES, VOCAB, added_tokens_beside, boundaries_beside, special_names_beside
from bpe.kinds import instead
from bpe.piece_vocabulary import PieceVocabulary
from bpe.splitting.excerpts import excerpt
from bpe.vocabulary import Vocabulary


class _Formats(Mapping[str, ModuleType]):
    """The modules of the formats by their names, each of which is imported when it is first used."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __getitem__(self, name: str) -> ModuleType:
        if name not in self._names:
            raise KeyError(name)
        return importlib.import_module(f"bpe.formats.{name}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


TOKENIZER_FORMATS = _Formats("vocab_merges", "tekken", "huggingface", "tiktoken", "gguf", "sentencepiece", "vocab_txt")
"""The formats by name. A file is read by the first that matches its content."""
_BEGIN = 1 << 20  # bytes that show the format of a file
_GZIP = b"\x1f\x8b"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "tokenizer.tiktoken"),
    *("spiece.model", "sentencepiece.bpe.model", "vocab.txt", "tekken.json"),
)
"""The file names to look for in a directory, in this order."""
EXPECTED_FILES = f"{', '.join(TOKENIZER_FILES)}, or {VOCAB} with {MERGES}"
"""The files that a directory may have, for messages."""
_OTHER_KINDS = {
    b"version https://git-lfs": "a pointer of Git LFS: run git lfs pull, or download the file itself",
    b"<": "a web page: download the file itself",
    b"PK\x03\x04": "a ZIP archive or weights of PyTorch: give the tokenizer's file",
    b"\x80\x02": "a pickle, which is never loaded: give the tokenizer's file",
    b"\x80\x04": "a pickle, which is never loaded: give the tokenizer's file",
}
_LONGEST = 800  # characters of a message
SUFFIXES = {".json": "huggingface", ".model": "tiktoken", ".tiktoken": "tiktoken", ".gguf": "gguf"}
"""The format to write, by the suffix of the file."""


def read_vocabulary(
    path: str | os.PathLike[str],
    pattern: str | None = None,
    special_tokens: Mapping[str, int] | Sequence[str] | None = None,
) -> Vocabulary:
    """Read the vocabulary in a tokenizer file, or in the tokenizer file of a directory.

    What begins and ends a text, and the added tokens of a tokenizer.json, are read from the file and, for a directory
    or a file with one of the usual names, from the files beside it; see `bpe.formats.companion_files`.

    Args:
        path: The file or directory.
        pattern: The split pattern to use instead of the file's; see `Tokenizer.from_file`.
        special_tokens: The special tokens to use instead of the file's; see `Tokenizer.from_file`.

    Raises:
        OSError: When the file cannot be read.
        InputError: When the file is damaged or is not a supported tokenizer; the message names it.
    """
    given = Path(path)
    path, format, content = open_tokenizer(given)
    has_companions = format != "gguf" and (given.is_dir() or path.name in (*TOKENIZER_FILES, VOCAB))
    beside = has_companions and format == "huggingface"
    added_tokens = added_tokens_beside(path.parent) if beside else []
    special_names = special_names_beside(path.parent) if beside else []
    try:
        vocabulary: Vocabulary
        if format == "vocab_merges" and not isinstance(content, mmap.mmap):
            vocabulary = TOKENIZER_FORMATS[format].read_directory(content, path, pattern, special_tokens)
        elif (added_tokens or special_names) and not isinstance(content, mmap.mmap):
            vocabulary = TOKENIZER_FORMATS[format].read(
                content, path.name, pattern, special_tokens, added_tokens, special_names
            )
        else:
            vocabulary = TOKENIZER_FORMATS[format].read(content, path.name, pattern, special_tokens)
    except ValueError as error:
        raise InputError(f"{path}: {_explained(error)}") from error
    boundaries = vocabulary.boundaries
    if has_companions:
        if special_tokens is None:
            boundaries = boundaries_beside(vocabulary, path.parent)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the files may name tokens that the caller left out
                boundaries = boundaries_beside(vocabulary, path.parent)
    added = {token.content: token.id for token in vocabulary.added_tokens}
    return vocabulary.with_boundaries(completed(boundaries, added))


def _explained(error: ValueError) -> str:
    """Return what is wrong with a file, and what to do, in one line: a file may have texts of any length."""
    message = excerpt(str(error), _LONGEST)
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST - 200]}...{excerpt(str(error)[-200:], 200)}"
    if ";" in message or message.endswith("?"):
        return message
    remedy = "encode with the program that made it" if "not supported" in message else "download or copy it again"
    return f"{message}; {remedy}"


def open_tokenizer(path: Path) -> tuple[Path, str, bytes | mmap.mmap]:
    """Open the tokenizer file at a path, or in the directory at that path. A gzip archive is decompressed.

    Returns:
        The path of the file, the name of its format, and its content.

    Raises:
        OSError: When the file cannot be read.
        InputError: When it is not a tokenizer file, or a damaged archive.
    """
    if path.is_dir():
        path = find_tokenizer(path)
    if path.name == MERGES and (path.parent / VOCAB).is_file():
        path = path.parent / VOCAB
    content = _content(path)
    if isinstance(content, bytes) and content[:2] == _GZIP:
        try:
            content = _decompressed(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: the gzip archive is damaged ({error}); download or copy it again") from error
    for name, format in TOKENIZER_FORMATS.items():
        if format.matches(content):
            return path, name, content
    raise InputError(
        f"{path}: not a tokenizer file; expected a tokenizer.json, a tekken.json, tiktoken ranks, a GGUF, a"
        f" SentencePiece model or a vocab.txt of BERT{instead(path, 'tokenizer') or _other_kind(content[:64])}"
    )


def _decompressed(archive: bytes) -> bytes:
    """Return the content of a gzip archive, unless that is far larger than a tokenizer's would be.

    Raises:
        InputError: When the content is too large.
        OSError, EOFError, zlib.error: When the archive is damaged.
    """
    limit = 100 * len(archive) + (1 << 20)  # published tokenizers shrink to between a half and a twentieth
    content = gzip.GzipFile(fileobj=io.BytesIO(archive)).read(limit + 1)
    if len(content) > limit:
        raise OSError(f"its content is more than {limit:,} bytes, and so no tokenizer")
    return content


def _other_kind(begin: bytes) -> str:
    """Return the end of a message that says what a file is instead of a tokenizer, given its first bytes."""
    found = next((what for magic, what in _OTHER_KINDS.items() if begin.lstrip().startswith(magic)), "")
    return f"; it is {found}" if found else "" if begin.strip() else "; it is empty: download or copy it again"


def _content(path: Path) -> bytes | mmap.mmap:
    """Return the content of a file; if no format begins like it, only its beginning, because the file may be huge."""
    with open(path, "rb") as file:
        begin = file.read(_BEGIN)
        if begin.startswith(gguf_container.MAGIC):
            return gguf_container.mapped(path)
        shown = begin
        if begin[:2] == _GZIP:
            with contextlib.suppress(zlib.error):  # decompressing all of it says what is wrong
                shown = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(begin, _BEGIN)
        is_known = shown[:2] == _GZIP or any(format.matches(shown) for format in TOKENIZER_FORMATS.values())
        return begin + file.read() if is_known else shown


def tokenizer_files(names: Collection[str]) -> tuple[str, ...]:
    """Return the files of a directory's tokenizer, given the names of all its files; () if it has none.

    These are the first of `TOKENIZER_FILES` that exists, or else vocab.json with merges.txt, or else the only
    tokenizer.* file.

    >>> tokenizer_files(["merges.txt", "vocab.json", "README.md"])
    ('vocab.json', 'merges.txt')
    """
    for name in TOKENIZER_FILES:
        if name in names:
            return (name,)
    if VOCAB in names and MERGES in names:
        return VOCAB, MERGES
    others = _others(names)
    return (others[0],) if len(others) == 1 else ()


def _others(names: Collection[str]) -> list[str]:
    """Return the names that only a tokenizer has, other than the usual ones, such as tokenizer.model.v3."""
    return sorted(name for name in names if re.fullmatch(r"tokenizer\.[^/]+", name) and not name.endswith(".py"))


def find_tokenizer(directory: Path) -> Path:
    """Return the path of the tokenizer file in a directory: see `tokenizer_files`, or else the only *.gguf file.

    Raises:
        InputError: When there is no such file, or more than one under other names.
    """
    names = [path.name for path in directory.iterdir() if path.is_file()]
    found = tokenizer_files(names)
    if found:
        return directory / found[0]
    others = _others(names) or sorted(name for name in names if name.endswith(".gguf"))
    if len(others) == 1:
        return directory / others[0]
    listed = f"found {', '.join(others)}" if others else "found none"
    listed += instead(directory, "tokenizer")
    raise InputError(f"{directory}: expected a tokenizer, one of {EXPECTED_FILES}; {listed}")


def write_vocabulary(vocabulary: Vocabulary, path: str | os.PathLike[str], format: str | None = None) -> None:
    """Write a vocabulary to a file. The file takes its name once it is complete.

    Args:
        vocabulary: The vocabulary.
        path: The file to write.
        format: The name of the format. Default: the format of the suffix.

    Raises:
        OSError: When the file cannot be written.
        InputError: When there is no such format or suffix, or the format cannot express the vocabulary.
    """
    path = Path(path)
    own = None if vocabulary.library is None else vocabulary.library.format
    is_model = isinstance(vocabulary, PieceVocabulary) or _suffix_of(own) == ".model"
    name = format or ("sentencepiece" if path.suffix == ".model" and is_model else SUFFIXES.get(path.suffix))
    if name is None:
        raise InputError(f"{path}: no tokenizer format has the suffix {path.suffix!r}; use {', '.join(SUFFIXES)}")
    if name not in TOKENIZER_FORMATS:
        raise InputError(f"there is no tokenizer format {name!r}; use one of {', '.join(TOKENIZER_FORMATS)}")
    if own is not None and name != own:
        raise InputError(
            f"{path}: {vocabulary.name} is a vocabulary of {vocabulary.algorithm}, which the format {name} cannot"
            f" express as it is; save it as {_suffix_of(own)}"
        )
    write_bytes(path, TOKENIZER_FORMATS[name].render(vocabulary))


def _suffix_of(format: str | None) -> str | None:
    """The suffix of a format that a library of `bpe.subwords` reads."""
    return {"sentencepiece": ".model", "huggingface": ".json"}.get(format or "")

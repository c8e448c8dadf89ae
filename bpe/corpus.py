"""Files, directories, globs, stdin and iterables -> a stream of documents, each of them bytes."""

from __future__ import annotations

import fnmatch
import glob
import gzip
import json
import lzma
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Union

from .errors import InputError

# A path, a glob, "-" for stdin; or the documents themselves.
Source = Union[str, "os.PathLike[str]", Iterable[str], Iterable[bytes]]

_DECOMPRESSORS = {".gz": gzip.decompress, ".xz": lzma.decompress}


def documents(
    sources: Source | Iterable[Source],
    *,
    separator: str | None = None,
    field: str = "text",
    exclude: Sequence[str] = (),
) -> Iterator[bytes]:
    """The documents of all sources, in order.

    A source is the path of a file, or of a directory, whose files are taken in sorted order, down to the last level,
    but for hidden ones and those with a NUL byte near their beginning; a glob, in which ``**`` stands for any depth;
    "-" for stdin; or an iterable of str or bytes, each a document. A file is one document; a .jsonl file has one in
    each line, under the key `field`. .gz and .xz files are decompressed.

    Args:
        sources: one source, or several. A single str is a path.
        separator: where this stands in a text file, a new document begins. White space around it is dropped.
        field: the key of the text in .jsonl files.
        exclude: files and directories left out: names, paths, or patterns for either.

    Raises:
        InputError: a source that matches no file, a damaged archive, a line of .jsonl without the field, an empty
            separator.
        OSError: a file that cannot be read.
    """
    if separator == "":
        raise InputError("the separator of documents is empty")
    for source in [sources] if isinstance(sources, (str, os.PathLike)) else sources:
        if isinstance(source, (str, os.PathLike)):
            for path in _files(os.fspath(source), exclude):
                yield from _documents_of(path, separator, field)
        elif isinstance(source, Iterable):
            for document in source:
                yield _as_bytes(document)
        else:
            raise InputError(f"a source is a path or an iterable of texts, not {type(source).__name__}")


def _as_bytes(document: object) -> bytes:
    if isinstance(document, bytes):
        return document
    if isinstance(document, str):
        return document.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    raise InputError(f"a document is str or bytes, not {type(document).__name__}")


def _files(source: str, exclude: Sequence[str]) -> Iterator[str]:
    if source == "-":
        yield source
    elif os.path.isdir(source):
        found = False
        for directory, names, files in os.walk(source, onerror=_raise):
            names[:] = sorted(n for n in names if n[0] != "." and not _excluded(os.path.join(directory, n), exclude))
            for name in sorted(files):
                path = os.path.join(directory, name)
                if name[0] != "." and not _excluded(path, exclude) and _is_text(path):
                    found = True
                    yield path
        if not found:
            raise InputError(f"{source}: no text files in this directory")
    elif os.path.exists(source):
        yield source
    elif glob.has_magic(source):
        paths = [
            p for p in sorted(glob.glob(source, recursive=True)) if os.path.isfile(p) and not _excluded(p, exclude)
        ]
        if not paths:
            raise InputError(f"{source}: no file matches this pattern")
        yield from paths
    else:
        raise InputError(f"{source}: no such file or directory")


def _raise(error: OSError) -> None:
    raise error


def _excluded(path: str, exclude: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatch(path, pattern) or any(fnmatch.fnmatch(part, pattern) for part in Path(path).parts)
        for pattern in exclude
    )


def _is_text(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    if Path(path).suffix in _DECOMPRESSORS:
        return True
    with open(path, "rb") as file:
        return b"\0" not in file.read(4096)


def _documents_of(path: str, separator: str | None, field: str) -> Iterator[bytes]:
    if path == "-":
        content = sys.stdin.buffer.read()
        name = "stdin"
    else:
        name = path
        with open(path, "rb") as file:
            content = file.read()
        decompress = _DECOMPRESSORS.get(Path(path).suffix)
        if decompress is not None:
            try:
                content = decompress(content)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                raise InputError(f"{path}: the archive is damaged ({error})") from error
            path = path[: -len(Path(path).suffix)]
    if path.endswith(".jsonl"):
        yield from _json_lines(content, name, field)
    elif separator is not None:
        yield from (part for part in (part.strip() for part in content.split(separator.encode())) if part)
    else:
        yield content


def _json_lines(content: bytes, name: str, field: str) -> Iterator[bytes]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}: line {number} is not JSON ({error})") from error
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            raise InputError(f"{name}: line {number} has no text under {field!r}; name the key with field / --field")
        yield _as_bytes(record[field])

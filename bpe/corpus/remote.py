"""Remote files: s3://, hf://, memory://, and every other protocol that fsspec supports."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from bpe.errors import InputError
from bpe.optional import PACKAGES, missing, require

# Keys under which stores describe the version of a file. Each store has its own.
_VERSIONS = ("ETag", "etag", "blob_id", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created")


class RemoteFile(NamedTuple):
    """A file at an address."""

    address: str
    size: int | None
    """In bytes; None if unknown."""
    version: str | None
    """Changes when the file changes; None if unknown."""
    filesystem: Any
    path: str

    def open(self) -> BinaryIO:
        """Open the file for reading."""
        with _named_errors(self.address):
            return self.filesystem.open(self.path, "rb")  # type: ignore[no-any-return]

    def head(self, size: int) -> bytes:
        """Return the first `size` bytes."""
        with _named_errors(self.address):
            return self.filesystem.cat_file(self.path, start=0, end=size)  # type: ignore[no-any-return]


def remote_files(address: str) -> tuple[list[RemoteFile], bool]:
    """Find the files at the address of a file or a directory, or of a glob.

    Returns:
        The files in sorted order, and whether the address is that of a directory.

    Raises:
        InputError: When there is nothing at the address, or it cannot be reached.
    """
    fsspec = require(address, "fsspec")
    with _named_errors(address):
        filesystem, path = fsspec.core.url_to_fs(address)
        directory = False
        if filesystem.isfile(path):
            found = {path: filesystem.info(path)}
        elif filesystem.isdir(path):
            directory = True
            found = filesystem.find(path, detail=True)
        elif glob.has_magic(path):
            found = filesystem.glob(path, detail=True)
            found = {name: info for name, info in found.items() if info.get("type") == "file"}
        else:
            raise InputError(f"{address}: no such file or directory")
    files = []
    for name, info in sorted(found.items()):
        below = name[len(path.rstrip("/")) :].split("/")
        if not directory or not any(part.startswith(".") for part in below):
            version = next((str(info[key]) for key in _VERSIONS if info.get(key)), None)
            files.append(RemoteFile(filesystem.unstrip_protocol(name), info.get("size"), version, filesystem, name))
    return files, directory


def _store_package(address: str, error: ImportError) -> str:
    """Return the package that fsspec reads a store with: its message names it, or the error does."""
    named = [name for name in PACKAGES if name in re.findall(r"\w+", str(error))]
    return named[0] if named else (error.name or address.partition("://")[0])


@contextmanager
def _named_errors(address: str) -> Iterator[None]:
    """Raise every error as an InputError that names the address; each store raises errors of its own."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:  # fsspec reads some stores with packages of their own
        needed = missing(_store_package(address, error)) or f"cannot be read without another package ({error})"
        raise InputError(f"{address}: {needed}") from error
    except Exception as error:
        text = " ".join(str(error).split())
        raise InputError(f"{address}: cannot be read ({type(error).__name__}: {text})") from error

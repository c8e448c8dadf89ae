"""Binary files, which folders hold beside text: how they are told apart, and the line that reports them.

A file is binary if there is a NUL byte in the first 8 KB of its content, after decompression, as git decides it; or if
it begins like a format of binary files, whose first NUL may come later. As in grep and git, this holds for the files
that are found in a folder: a file that is named, or matches a glob, is read in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

HEAD = 8192  # bytes to look at

# How a file begins that is binary even without a NUL among its first bytes.
_SIGNATURES = {
    b"%PDF-": "PDF document",
    b"\x7fELF": "executable",
    b"\x89PNG\r\n": "PNG image",
    b"\xff\xd8\xff": "JPEG image",
    b"PK\x03\x04": "ZIP archive",
    b"PK\x05\x06": "ZIP archive",
    b"7z\xbc\xaf\x27\x1c": "7z archive",
    b"Rar!\x1a\x07": "RAR archive",
    b"\x1f\x8b\x08": "gzip archive",
    b"BZh91AY&SY": "bzip2 archive",
    b"\xfd7zXZ": "xz archive",
    b"\x28\xb5\x2f\xfd": "zstd archive",
    b"\xca\xfe\xba\xbe": "executable",
}
# Names for files that have a NUL among their first bytes. A text may begin like some of them.
_NAMES = {
    b"MZ": "executable",
    b"\xcf\xfa\xed\xfe": "executable",
    b"\0asm": "executable",
    b"GIF8": "GIF image",
    b"RIFF": "image, sound or film",
    b"OggS": "sound or film",
    b"ID3": "sound",
    b"fLaC": "sound",
    b"SQLite format 3": "SQLite database",
    b"GGUF": "GGUF model",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_TAR = slice(257, 262)  # where an archive of tar has b"ustar"


class LeftOut(NamedTuple):
    """A binary file in a folder that was left out of a corpus."""

    name: str
    """The path or address."""
    kind: str
    """What it is, such as "PDF document"."""


def binary_kind(head: bytes) -> str | None:
    """Return what a binary file is, given the first `HEAD` bytes of its content, or None if it is text."""
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            return kind
    if b"\0" not in head:
        return None
    if head[_TAR] == b"ustar":
        return "tar archive"
    return next((kind for signature, kind in _NAMES.items() if head.startswith(signature)), "binary data")


def left_out_line(files: Sequence[LeftOut]) -> str:
    """Return one line that says how many files were left out, and which came first."""
    first = files[0]
    place = f"{first.name} ({first.kind})"
    line = f"left out 1 binary file: {place}"
    if len(files) > 1:
        line = f"left out {len(files):,} binary files; the first: {place}"
    utf16 = sum(file.kind == "UTF-16 text" for file in files)
    return line + (f"; {utf16:,} of them UTF-16 text: convert to UTF-8 to use it" if utf16 else "")

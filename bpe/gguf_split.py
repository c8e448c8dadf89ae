"""The names of a GGUF that is split into several files, as llama.cpp's gguf-split writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


def parts_of(name: str) -> list[str]:
    """Return the names of all files of the GGUF that a file belongs to; the name itself if it is not split.

    >>> parts_of("m-00002-of-00003.gguf")
    ['m-00001-of-00003.gguf', 'm-00002-of-00003.gguf', 'm-00003-of-00003.gguf']
    >>> parts_of("m.gguf")
    ['m.gguf']
    """
    match = _PART.fullmatch(name)
    if match is None or not 1 <= int(match[2]) <= int(match[3]):
        return [name]
    return [f"{match[1]}-{number:05}-of-{match[3]}.gguf" for number in range(1, int(match[3]) + 1)]


def firsts(names: Iterable[str]) -> list[str]:
    """Return the first file of each GGUF to which some files belong, in their order."""
    return [*dict.fromkeys(parts_of(name)[0] for name in names)]

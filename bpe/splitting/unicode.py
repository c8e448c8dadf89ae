"""The sets of characters that each engine knows by name, and its case folding; unicode.bin has the data."""

from __future__ import annotations

import json
import zlib
from bisect import bisect_right
from functools import cache, lru_cache
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Literal

from bpe.splitting.program import Set
from bpe.splitting.sets import from_pairs, pairs

Engine = Literal["tiktoken", "tokenizers"]

# The only letters of ASCII that match a character outside of it when case is ignored: the Kelvin sign, the long s.
_BEYOND_ASCII = {"k": 0x212A, "s": 0x17F}


@cache
def _data() -> tuple[dict[str, Any], list[int], bytes]:
    """Return the header of unicode.bin, where each set begins, and the sets."""
    content = zlib.decompress(Path(__file__).with_name("unicode.bin").read_bytes())
    end = content.index(b"\n")
    header = json.loads(content[:end])
    return header, [0, *accumulate(header["sizes"])], content[end + 1 :]


def _unpacked(packed: bytes) -> Set:
    """Return the set that generate_unicode.py has packed."""
    flat: list[int] = []
    value = shift = position = 0
    for byte in packed:
        value |= (byte & 127) << shift
        if byte > 127:
            shift += 7
            continue
        position += value
        flat.append(position)
        if not len(flat) & 1:
            position += 1
        value = shift = 0
    return tuple(flat)


def loose(name: str) -> str:
    """Return a name without case, spaces, hyphens and underscores, which no engine looks at."""
    return name.lower().replace(" ", "").replace("_", "").replace("-", "")


@lru_cache(1024)
def named_set(engine: Engine, name: str) -> Set | None:
    r"""Return the set with a name such as ``l`` (``\p{L}``), ``[:alpha:]`` or ``\w``, if the engine knows the name."""
    header, begins, packed = _data()
    number = header["names"][engine].get(name)
    return None if number is None else _set(begins[number], begins[number + 1])


@lru_cache(1024)
def _set(begin: int, end: int) -> Set:
    return _unpacked(_data()[2][begin:end])


def known_names(engine: Engine) -> list[str]:
    """Return the names of all sets of an engine."""
    return list(_data()[0]["names"][engine])


@cache
def _foldings(engine: Engine) -> list[list[int]]:
    groups: list[list[int]] = _data()[0]["folds"][engine]
    return groups


@lru_cache(256)
def folded(engine: Engine, chars: Set) -> Set:
    """Return the characters that match one of the set when case is ignored."""
    if chars and chars[-1] < 128:
        return _folded_ascii(chars)
    more = [
        (point, point)
        for group in _foldings(engine)
        if any(bisect_right(chars, point) & 1 or _is_last(chars, point) for point in group)
        for point in group
    ]
    return from_pairs(chain(pairs(chars), more)) if more else chars


def _is_last(chars: Set, point: int) -> bool:
    """Return whether a point is the last one of a range."""
    index = bisect_right(chars, point)
    return index > 0 and chars[index - 1] == point


def _folded_ascii(chars: Set) -> Set:
    """Return the same as `folded` for a set of ASCII characters, without the table."""
    points = {chr(point) for first, last in pairs(chars) for point in range(first, last + 1)}
    points |= {point.swapcase() for point in points}
    beyond = [_BEYOND_ASCII[point] for point in points if point in _BEYOND_ASCII]
    return from_pairs((point, point) for point in [*map(ord, points), *beyond])


@cache
def expansions() -> tuple[Set, tuple[str, ...]]:
    """Return what Oniguruma matches with several characters when case is ignored: the characters, and the sequences."""
    found: dict[str, str] = _data()[0]["expansions"]
    return from_pairs((ord(c), ord(c)) for c in found), tuple(sorted(set(found.values())))

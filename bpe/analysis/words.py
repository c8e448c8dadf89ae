"""Words of a text: the runs of letters that fertility is measured on."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import regex

from bpe.analysis.scripts import code_points

_LETTER, _MARK = 2, 1


@lru_cache(maxsize=1)
def _word_characters() -> npt.NDArray[np.uint8]:
    """Return the kind of each code point: a letter of a script with spaces between words, a mark, or neither (0)."""
    table = np.zeros(0x110000, np.uint8)
    everything = np.arange(len(table), dtype=np.uint32).tobytes().decode("utf-32-le", "surrogatepass")
    letters = r"[\p{L}&&[\p{Word_Break=ALetter}\p{Word_Break=Hebrew_Letter}]]+"
    for pattern, kind in ((r"\p{M}+", _MARK), (letters, _LETTER)):
        for match in regex.finditer(pattern, everything, regex.VERSION1):
            table[match.start() : match.end()] = kind
    return table


def word_spans(text: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where the words of a text begin and end, in bytes: two arrays, int64 [words] each.

    A word is a longest run of letters with their marks, so punctuation and digits belong to no word. Letters are those
    for which Unicode has rules that find words (UAX #29: ALetter and Hebrew_Letter). Letters of Chinese, Japanese,
    Thai, Lao, Khmer and Burmese, which are written without spaces between words, make no words.

    Args:
        text: The text. Bytes that are not UTF-8 belong to no word.

    >>> begins, ends = word_spans("don't naïve 日本 x2".encode())
    >>> begins.tolist(), ends.tolist()
    ([0, 4, 6, 20], [3, 5, 12, 21])
    """
    points: npt.NDArray[Any]
    if text.isascii():
        points, offsets = np.frombuffer(text, np.uint8), None
    else:
        points = code_points(text.decode("utf-8", "surrogateescape"))
        sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
        sizes[(points >= 0xDC80) & (points < 0xDD00)] = 1  # a byte that is not UTF-8
        offsets = np.concatenate(([0], np.cumsum(sizes)))
    kinds = _word_characters()[points]
    inside = np.concatenate(([False], kinds > 0, [False]))
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    begins, ends = edges[::2], edges[1::2]
    whole = kinds[begins] == _LETTER  # a mark alone is not a word
    begins, ends = begins[whole], ends[whole]
    return (begins, ends) if offsets is None else (offsets[begins], offsets[ends])

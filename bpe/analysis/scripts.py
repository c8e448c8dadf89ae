"""Scripts and classes of characters: the class that a token belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import regex

# The scripts that Unicode recommends for identifiers (UAX #31, table 5): those in wide everyday use. Each script has a
# bit in a mask, and so has each class of characters that belong to no script.
SCRIPTS = (
    *("Latin", "Han", "Cyrillic", "Arabic", "Devanagari", "Hangul", "Hiragana", "Katakana", "Greek", "Hebrew", "Thai"),
    *("Armenian", "Bengali", "Bopomofo", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi", "Kannada", "Khmer", "Lao"),
    *("Malayalam", "Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu", "Thaana", "Tibetan"),
)
CLASSES = (
    *SCRIPTS,
    "other scripts",
    "several scripts",
    "numbers",
    "punctuation, symbols",
    "white space",
    "parts of characters",
)
_OTHER, _SEVERAL, _NUMBERS, _SYMBOLS, _SPACE, _PARTS = range(len(SCRIPTS), len(CLASSES))


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Return the code points of a text. uint32 [characters]"""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def classes_of(tokens: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Return the class of each token, as an index into `CLASSES`. int64 [tokens]

    A token with characters of one script belongs to that script, whatever else it contains. A token without any belongs
    to numbers or white space if it contains nothing else, and to punctuation and symbols otherwise. A token that is not
    UTF-8 on its own consists of parts of characters, and so does an empty one.
    """
    classes = np.full(len(tokens), _PARTS)
    texts, ids = [], []
    for id, token in enumerate(tokens):
        try:
            text = token.decode()
        except UnicodeDecodeError:
            continue
        if text:
            texts.append(text)
            ids.append(id)
    points = code_points("".join(texts))
    begins = np.cumsum([0, *map(len, texts)])[:-1]
    masks = np.bitwise_or.reduceat(_class_bits(points), begins)
    scripts = masks & ((1 << _SEVERAL) - 1)
    kinds = np.full(len(texts), _SYMBOLS)
    kinds[masks & ~np.int64(1 << _SPACE | 1 << _NUMBERS) == 0] = _NUMBERS
    kinds[masks == 1 << _SPACE] = _SPACE
    one = scripts > 0
    kinds[one] = np.log2(scripts[one]).astype(np.int64)
    kinds[scripts & (scripts - 1) > 0] = _SEVERAL
    classes[ids] = kinds
    return classes


def _class_bits(points: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Return the bit of each character's class.

    A character that belongs to no single script, such as a combining mark, is a symbol unless it is a number or white
    space.
    """
    table = np.zeros(0x110000, np.int64)
    known = np.flatnonzero(np.bincount(points, minlength=len(table))).astype(np.uint32)
    text = known.tobytes().decode("utf-32-le")
    bits = np.full(len(known), 1 << _OTHER)
    classes = [(rf"\p{{Script={script}}}+", 1 << bit) for bit, script in enumerate(SCRIPTS)]
    classes += [(r"[\p{Script=Common}\p{Script=Inherited}\p{Script=Unknown}]+", 1 << _SYMBOLS)]
    classes += [(r"[\p{N}&&\p{Script=Common}]+", 1 << _NUMBERS), (r"\s+", 1 << _SPACE)]
    for pattern, bit in classes:
        for match in regex.finditer(pattern, text, regex.VERSION1):
            bits[match.start() : match.end()] = bit
    table[known] = bits
    return table[points]

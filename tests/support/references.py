"""Reference encoders, character classes, and strategies for texts that are difficult to split."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from functools import cache

import regex
import tiktoken
from hypothesis import strategies as st

from bpe import Tokenizer, _core
from bpe.patterns import PATTERNS

LETTER, UPPER_SET, LOWER_SET, NUMBER, SPACE, NEWLINE = 1, 2, 4, 8, 16, 32

# The bit of each character class in a split pattern, by the regular expression of one character of the class.
CLASSES = {
    r"\p{L}": LETTER,
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]": UPPER_SET,
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]": LOWER_SET,
    r"\p{N}": NUMBER,
    r"\s": SPACE,
    r"[\r\n]": NEWLINE,
}

BYTE_RANKS = {bytes([byte]): byte for byte in range(256)}
"""The vocabulary of the 256 single bytes, each with its own value as its rank."""

CODE_POINTS = [*range(0xD800), *range(0xE000, 0x110000)]  # all code points except surrogates


def without_surrogates(text: str) -> str:
    """Return the text that tiktoken encodes: surrogate pairs are joined, and a lone surrogate becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encoding_of(tokenizer: Tokenizer) -> tiktoken.Encoding:
    """Return tiktoken with the tokenizer's ranks, pattern and special tokens."""
    return tiktoken.Encoding(
        tokenizer.name,
        pat_str=tokenizer.pattern.text,
        mergeable_ranks=tokenizer.mergeable_ranks,
        special_tokens=tokenizer.special_tokens,
    )


def byte_tokenizer(pattern: str = "gpt2", special_tokens: dict[str, int] | None = None, **tokens: int) -> Tokenizer:
    """Return a tokenizer of single bytes and the `tokens`, given as `token=rank`."""
    ranks = BYTE_RANKS | {token.encode(): rank for token, rank in tokens.items()}
    return Tokenizer("tiny", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special_tokens or {})


def core_encoder(ranks: Mapping[bytes, int], pattern: str, kernel: str) -> _core.Encoder:
    """Return a core encoder with the scanner of a named pattern and one of `_core.kernels()`."""
    offsets = array("Q", [0])
    for token in ranks:
        offsets.append(offsets[-1] + len(token))
    scanner = PATTERNS[pattern].scanner
    assert scanner is not None
    ids = array("I", ranks.values())
    return _core.Encoder(
        b"".join(ranks), memoryview(offsets), memoryview(ids), _core.Splitter.scanned(scanner, kernel), {}, kernel
    )


def matching_characters(pattern: str) -> set[str]:
    """Return the characters that a one-character pattern matches in tiktoken, which skips text without a match."""
    encoding = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=BYTE_RANKS, special_tokens={})
    return set(bytes(encoding.encode_ordinary("".join(map(chr, CODE_POINTS)))).decode())


@cache
def pinned_characters() -> str:
    """Return the characters with the same class in the core and in the `regex` module, whose Unicode is newer."""
    everything = "".join(map(chr, CODE_POINTS))
    differing: set[str] = set()
    for pattern, bit in CLASSES.items():
        ours = {chr(point) for point in CODE_POINTS if _core.classes_of(point) & bit}
        differing |= ours ^ set(regex.findall(pattern, everything))
    return "".join(character for character in everything if character not in differing)


def is_pinned(text: str) -> bool:
    """Return whether all characters of the text are pinned. Surrogate escapes are pinned: neither has a class."""
    return _unpinned().isdisjoint(text)


@cache
def _unpinned() -> frozenset[str]:
    return frozenset(map(chr, CODE_POINTS)).difference(pinned_characters())


# Characters that the split patterns distinguish, and characters that look similar: many kinds of white space;
# apostrophes and the letters of contractions, with the long s and the Kelvin sign, which fold to s and k; letters with
# and without case, digits and marks of several scripts; emoji with joiner and modifier; the first and last code point.
PECULIAR = (
    " \t\u00a0\u3000\u2028\u0085\u000b\r\n'’sStTmMdDlLvVrReE\u017fkK\u212a"
    "aZéßñЖяمक日本한ǅʰªⅧ½²٣५0123456789"
    '\u0301\u093f\u200d\ufe0f👩💻🏽.,!?-_#<|>"\\/\0\x7f\u00ad\ufffd\U0010ffff'
)

peculiar_text = st.text(st.sampled_from(PECULIAR), max_size=40)

# Pieces that depend more on the text around them than on their letters.
_pieces = st.sampled_from(
    [*("  ", "\n\n", " \n", "\r\n", "\t\t x"), *("'s", "'LL", "'ve", "'\u017f", " 'd"), "12345", " Wort", "..."]
)
any_text = st.lists(st.one_of(peculiar_text, _pieces, st.text(max_size=8)), max_size=12).map("".join)

_broken = st.sampled_from(
    [
        b"\xc0\x80",  # overlong NUL
        b"\xc1\xbf",
        b"\xe0\x80\xaf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",  # a surrogate
        b"\xed\xbf\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",  # above U+10FFFF
        b"\xf5\x80\x80\x80",
        b"\xc3",  # truncated
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\x80",
        b"\xff",
        b"\xfe",
    ]
)


@st.composite
def broken_bytes(draw: st.DrawFn) -> bytes:
    """Draw bytes that are partly UTF-8, with truncated, overlong and forbidden sequences in between."""
    parts = draw(st.lists(st.one_of(_broken, peculiar_text.map(str.encode), st.binary(max_size=5)), max_size=10))
    text = b"".join(parts)
    begin = draw(st.integers(0, min(3, len(text))))
    end = draw(st.integers(0, min(3, len(text))))
    return text[begin : len(text) - end]

"""Pretokens: the pieces of text that merges never cross."""

from __future__ import annotations

from bpe import _core
from bpe.patterns import Pattern


def is_one_pretoken(text: bytes, pattern: Pattern) -> bool:
    """Return whether the split pattern leaves the text in one piece, so that some text is encoded from it.

    Raises:
        ValueError: The pattern does not compile.
    """
    if pattern.scanner is not None:
        return len(_core.scan(pattern.scanner, text)) == 1
    match = pattern.compile().search(text.decode("utf-8", "surrogateescape"))
    return bool(text) and match is not None and match.span() == (0, len(match.string))

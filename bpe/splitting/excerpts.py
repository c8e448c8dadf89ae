"""Parts of patterns in messages."""

from __future__ import annotations


def place(text: str, position: int) -> str:
    """Return a place in a pattern for a message, with what begins there.

    >>> place("some pattern", 5)
    "at character 6, 'pattern'"
    """
    begin = excerpt(text[position:], 12)
    return f"at character {position + 1}" + (f", '{begin}'" if begin else " (its end)")


def excerpt(text: str, limit: int = 80) -> str:
    r"""Return a part of a pattern for a message: as it was typed, with escapes for what cannot be printed.

    Args:
        text: The text.
        limit: The number of characters after which it is cut.

    >>> print(excerpt("[^\\n]+\t", 80), excerpt("a long pattern", 6))
    [^\n]+\t a long...
    """
    return "".join(map(_visible, text[:limit])) + ("..." if len(text) > limit else "")


def _visible(character: str) -> str:
    """Return a character as a person types it; one that cannot be printed, as an escape."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()

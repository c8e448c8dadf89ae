"""The steps that split a text into pretokens, in the terms of Hugging Face's pre-tokenizers."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Behavior = Literal["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"]
"""What becomes of a match: a pretoken, nothing, part of a neighbour, or one pretoken with the matches beside it."""

Dialect = Literal["tiktoken", "tokenizers", "literal"]
"""The engine whose syntax and Unicode version a pattern follows. A literal is a text to find, without any syntax."""


class Split(NamedTuple):
    """Split each piece at the matches of a pattern."""

    pattern: str
    dialect: Dialect
    behavior: Behavior = "isolated"
    invert: bool = False
    """Whether the parts between the matches are treated as the matches, and the matches as the parts between."""


class PrefixSpace(NamedTuple):
    """Put a space before each piece that does not begin with one (ByteLevel's ``add_prefix_space``)."""


class Metaspace(NamedTuple):
    """Replace spaces by a visible character, and split before each of them."""

    replacement: str = "\u2581"
    prepend_scheme: Literal["first", "never", "always"] = "always"
    split: bool = True


class ByteCharacters(NamedTuple):
    """Write the character that stands for each byte, or the byte that each character stands for."""

    direction: Literal["to", "from"]


TO_BYTE_CHARACTERS = ByteCharacters("to")
"""What ByteLevel does for the steps behind it."""
FROM_BYTE_CHARACTERS = ByteCharacters("from")
"""What ends steps whose text consists of characters that stand for bytes."""

Step: TypeAlias = Split | PrefixSpace | Metaspace | ByteCharacters


def tiktoken_steps(pattern: str) -> tuple[Step, ...]:
    """Return the steps of a tiktoken pattern: its matches are the pretokens, and the text between them is dropped."""
    return (Split(pattern, "tiktoken", "removed", invert=True),)

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


Step: TypeAlias = Split | PrefixSpace | Metaspace


def tiktoken_steps(pattern: str) -> tuple[Step, ...]:
    """Return the steps of a tiktoken pattern: its matches are the pretokens, and the text between them is dropped."""
    return (Split(pattern, "tiktoken", "removed", invert=True),)

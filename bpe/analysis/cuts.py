"""How several tokenizers cut one short text, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bpe.columns import clipped_in_the_middle, columns_of, padded
from bpe.display import visible
from bpe.tokenizer import Tokenizer

MOST_BYTES = 300
"""The longest text whose tokens are worth reading, in bytes."""
_GAP = 2


def cuts(tokenizers: Sequence[tuple[str, Tokenizer]], text: bytes) -> dict[str, Any]:
    """Return the tokens of one text by each tokenizer, with special tokens as ordinary text.

    Args:
        tokenizers: Pairs of a name and a tokenizer.
        text: The text.

    Returns:
        A dict with "text" and "tokenizers"; the last has for each tokenizer "name", "algorithm", "ids" and "tokens", as
        they are shown to a person: the tokens of another library as it writes them, such as "▁the" and "##ing".

    >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
    >>> tiny = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
    >>> cuts([("tiny", tiny)], b"ab c")["tokenizers"][0]["tokens"]
    ['ab', ' ', 'c']
    """
    rows = []
    for name, tokenizer in tokenizers:
        ids = tokenizer.encode_ordinary(text)
        tokens = [visible(token) for token in tokenizer.shown_tokens(ids)]
        rows.append({"name": name, "algorithm": tokenizer.vocabulary.algorithm, "ids": ids, "tokens": tokens})
    return {"text": text.decode("utf-8", "backslashreplace"), "tokenizers": rows}


def cuts_text(found: dict[str, Any], columns: int | None = None) -> str:
    """Return the tokens of one text as lines: the name, the number of tokens, and the tokens with | between them.

    Args:
        found: What `cuts` returned.
        columns: The width of the terminal, at which lines are broken between tokens. Default: no limit.
    """
    rows = found["tokenizers"]
    names = max(columns_of(row["name"]) for row in rows)
    names = names if columns is None else min(names, max(10, columns // 4))
    counts = max(len(str(len(row["tokens"]))) for row in rows)
    indent = names + counts + 2 * _GAP
    lines = []
    for row in rows:
        name = padded(clipped_in_the_middle(row["name"], names), names, left=True)
        begin = name + " " * _GAP + f"{len(row['tokens']):>{counts}}" + " " * _GAP
        line = begin
        for place, token in enumerate(row["tokens"]):
            piece = token + "|" * (place + 1 < len(row["tokens"]))
            if columns is not None and columns_of(line) + columns_of(piece) > columns and line.strip() != begin.strip():
                lines.append(line)
                line = " " * indent
            line += piece
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)

"""How tiktoken and tokenizers split texts by any pattern, fast enough for many texts."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tiktoken
from tokenizers import Regex, pre_tokenizers


def refused_by_tiktoken(pattern: str) -> str | None:
    """Return what tiktoken says of a pattern that it refuses."""
    try:
        tiktoken.Encoding("refused", pat_str=pattern, mergeable_ranks={b"a": 0}, special_tokens={})
    except (ValueError, BaseException) as error:  # a Rust panic is not an Exception
        return str(error).split("\n")[0]
    return None


def refused_by_tokenizers(pattern: str) -> str | None:
    """Return what tokenizers says of a pattern that it refuses."""
    try:
        Regex(pattern)
    except Exception as error:
        return str(error)
    return None


def differ_from_tiktoken(pattern: str, texts: Sequence[str], ours: Sequence[Sequence[str]]) -> list[int]:
    """Return the numbers of the texts for which tiktoken has other pretokens.

    tiktoken gives ids, not pretokens. The vocabulary has our pretokens, and each two neighbours as one token. If
    tiktoken has the same pretokens, each is one id. If it does not, the ids differ: a pretoken of two or more of ours
    would have its first two joined, and a shorter pretoken than ours ends inside of it.

    Args:
        pattern: The pattern.
        texts: The texts.
        ours: The pretokens of each text that are not empty.
    """
    parts = {piece for text in ours for piece in text}
    parts |= {left + right for text in ours for left, right in zip(text, text[1:], strict=False)}
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += sorted({part.encode() for part in parts} - set(tokens))
    ids = {token: id for id, token in enumerate([*tokens, b""])}  # without a token for an empty match, tiktoken panics
    encode = tiktoken.Encoding("compared", pat_str=pattern, mergeable_ranks=ids, special_tokens={})._core_bpe
    empty = ids[b""]
    differ = []
    for number, (text, pieces) in enumerate(zip(texts, ours, strict=True)):
        found = [id for id in encode.encode_ordinary(text) if id != empty]
        if found != [ids[piece.encode()] for piece in pieces]:
            differ.append(number)
    return differ


def tokenizers_pieces(pattern: str, text: str, invert: bool) -> list[str]:
    """Return the matches of a pattern (if `invert`), or these and the parts between them."""
    return [piece for piece, _ in _splitter(pattern, invert).pre_tokenize_str(text)]


@functools.lru_cache(maxsize=4)  # to compile a pattern takes as long as to split hundreds of short texts
def _splitter(pattern: str, invert: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "removed" if invert else "isolated", invert)

"""tiktoken's format: a line for each token with its bytes in base64, a space, and its rank.

A file contains the ranks only. The files that OpenAI and Meta published are recognised by their SHA-256, which adds
their pattern and special tokens. For any other file, the caller gives the pattern.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bpe import _core
from bpe.errors import InputError
from bpe.formats.pieces_json import lossless_format
from bpe.patterns import PATTERNS, Pattern, find_pattern
from bpe.piece_vocabulary import PieceVocabulary
from bpe.published_patterns import LLAMA3_SPECIAL_TOKENS, LLAMA4_SPECIAL_TOKENS
from bpe.vocabulary import Vocabulary, as_added_tokens, checked_names


@dataclass(frozen=True)
class Published:
    """What a file of ranks does not say about a published vocabulary."""

    name: str
    pattern: str
    special_tokens: Mapping[str, int]


_ENDOFTEXT_GPT2 = {"<|endoftext|>": 50256}
# By the SHA-256 of the file of ranks.
PUBLISHED = {
    "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55": Published(
        "llama3", "llama3", {token: 128_000 + i for i, token in enumerate(LLAMA3_SPECIAL_TOKENS)}
    ),
    "d0bdbaf59b0762c8c807617e2d8ea51420eb1b1de266df2495be755c8e0ed6ed": Published(
        "llama4", "llama4", {token: 200_000 + i for i, token in enumerate(LLAMA4_SPECIAL_TOKENS)}
    ),
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": Published(
        "o200k_base", "o200k", {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}
    ),
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": Published(
        "cl100k_base",
        "cl100k",
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930": Published("r50k_base", "gpt2", _ENDOFTEXT_GPT2),
    "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069": Published("p50k_base", "gpt2", _ENDOFTEXT_GPT2),
}


def matches(content: bytes) -> bool:
    """Return whether the first line looks like base64, a space and a rank."""
    first, _, rank = content[:1000].split(b"\n")[0].rstrip(b"\r").partition(b" ")
    return len(first) > 0 and len(first) % 4 == 0 and rank.isdigit()


def read(
    content: bytes, name: str, pattern: str | None, special_tokens: Mapping[str, int] | Sequence[str] | None
) -> Vocabulary:
    """Read the ranks; see `Tokenizer.from_file` for `pattern` and `special_tokens`.

    Args:
        content: The content of the file.
        name: The name of the vocabulary, unless the file is a published one.
        pattern: The split pattern: a name or a regular expression. Required unless the file is a published one.
        special_tokens: The special tokens: a mapping from text to id, or names to number from the last rank on; names
            of a published file's special tokens keep their ids. Default: those of the published file, or of the named
            pattern.

    Raises:
        ValueError: When a line is not base64 and a rank, a rank or token occurs twice, a rank is missing, a byte has no
            token, or there is no pattern.
    """
    tokens, offsets, ids = _core.parse_ranks(content)
    ranks = memoryview(ids).cast("I")
    published = PUBLISHED.get(hashlib.sha256(content).hexdigest())
    if published is not None:
        name = published.name
        pattern = pattern or published.pattern
        special_tokens = published.special_tokens if special_tokens is None else special_tokens
    if pattern is None:
        raise InputError(
            "the file contains ranks but no split pattern; name it, for example pattern='llama3' (on the command line"
            f" --pattern llama3; known names: {', '.join(PATTERNS)})"
        )
    chosen = find_pattern(pattern)
    known = {} if published is None else published.special_tokens
    special = _number_special_tokens(special_tokens, chosen, known, first=max(ranks) + 1)
    _refuse_holes(ranks, special)
    return Vocabulary(name, chosen, tokens, memoryview(offsets).cast("Q"), ranks, as_added_tokens(special))


def render(vocabulary: Vocabulary) -> bytes:
    """Return the content of a file with the ranks of a vocabulary.

    Raises:
        InputError: When other ids would result from the ranks alone.
    """
    if isinstance(vocabulary, PieceVocabulary):
        raise InputError(
            f"{vocabulary.name} merges characters instead of bytes, which tiktoken's format cannot express; write"
            f" {lossless_format(vocabulary.model)}"
        )
    if vocabulary.core_normalizer is not None:
        raise InputError(
            f"{vocabulary.name} normalizes text before it is split, which tiktoken's format cannot express; write a"
            " tokenizer.json"
        )
    if vocabulary.characters is not None:
        raise InputError(
            f"{vocabulary.name} {vocabulary.characters.effect}, which tiktoken's format cannot express; write a"
            " tokenizer.json"
        )
    if vocabulary.merges_only:
        raise InputError(
            f"{vocabulary.name} never uses the tokens that no merge leads to, or drops bytes without a token, which"
            " tiktoken's format cannot express; write a tokenizer.json"
        )
    if vocabulary.merge_list is not None:
        raise InputError(
            f"{vocabulary.name} merges in another order than that of the ids, which tiktoken's format cannot express;"
            " write a tokenizer.json"
        )
    if vocabulary.foreign_tokens:
        raise InputError(
            f"the token {next(iter(vocabulary.foreign_tokens))!r} stands for no bytes, which tiktoken's format cannot"
            " express; write a tokenizer.json"
        )
    for token in vocabulary.added_tokens:
        unlike = [flag for flag in ("lstrip", "rstrip", "single_word", "normalized") if getattr(token, flag)]
        if not token.special or unlike:
            what = "is not special" if not token.special else f"has {unlike[0]} set"
            raise InputError(
                f"the {token.kind} token {token.content!r} {what}, which tiktoken cannot"
                " express; write a tokenizer.json"
            )
    return b"".join(b"%s %d\n" % (b64encode(token), rank) for token, rank in vocabulary.ranks.items())


def _number_special_tokens(
    special_tokens: Mapping[str, int] | Sequence[str] | None, pattern: Pattern, known: Mapping[str, int], first: int
) -> dict[str, int]:
    """Return the id of each special token; names in `known` keep their ids, and the others follow all ids."""
    if isinstance(special_tokens, Mapping):
        return dict(special_tokens)
    names = checked_names(pattern.special_tokens if special_tokens is None else special_tokens)
    kept = {name: known[name] for name in names if name in known}
    following = max([first - 1, *kept.values()]) + 1
    new = [name for name in names if name not in known]
    return kept | {name: following + i for i, name in enumerate(new)}


def _refuse_holes(ranks: memoryview, special_tokens: Mapping[str, int]) -> None:
    highest = max(ranks)
    if highest < len(ranks):
        return  # no rank is missing, unless one occurs twice, which the vocabulary refuses
    unused = set(range(min(highest, 2 * len(ranks) + 1))).difference(ranks, special_tokens.values())
    if unused:
        raise InputError(f"no token has the rank {min(unused)}, but ranks go up to {highest}; is a line missing?")

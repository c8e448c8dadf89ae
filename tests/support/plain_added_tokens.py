"""A plain counterpart of the core's search for added tokens, and random added tokens with texts made of their parts."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import regex

from bpe.formats.byte_level import token_text
from bpe.vocabulary import AddedToken

PARTS = [*"<a>|béx_1中 \n\t\u00a0\u3000", "'s", "ab", "a b", "  "]


def split(text: str, tokens: Iterable[AddedToken], skipped: Iterable[str] = ()) -> Iterator[str | int]:
    """Yield the parts of a text between its added tokens, and the ids of the tokens.

    Args:
        text: The text.
        tokens: The added tokens.
        skipped: The tokens that stay text, but hide those that overlap them.
    """
    tokens = list(tokens)
    for part in _pass(text, [token for token in tokens if not token.normalized], skipped):
        if isinstance(part, int):
            yield part
        else:
            yield from _pass(part, [token for token in tokens if token.normalized], skipped)


def _pass(text: str, tokens: list[AddedToken], skipped: Iterable[str]) -> Iterator[str | int]:
    longest_first = sorted(tokens, key=lambda token: -len(token.content))
    by_content = {token.content: token for token in tokens}
    done = 0
    for match in re.finditer("|".join(re.escape(token.content) for token in longest_first) or r"(?!)", text):
        token, begin, end = by_content[match.group()], match.start(), match.end()
        if token.content in skipped:
            continue
        if token.single_word and (regex.search(r"\w\Z", text[:begin]) or regex.match(r"\w", text[end:])):
            continue
        if token.lstrip:
            begin = max(done, len(text[:begin].rstrip(WHITE)))
        if token.rstrip:
            end = len(text) - len(text[end:].lstrip(WHITE))
        if begin >= end:
            continue
        if done < begin:
            yield text[done:begin]
        yield token.id
        done = end
    if done < len(text):
        yield text[done:]


WHITE = "".join(chr(point) for point in range(0x3001) if regex.match(r"\p{White_Space}", chr(point)))


def random_tokenizer(rng: random.Random, path: Path) -> list[AddedToken]:
    """Write a tokenizer.json with a few merges and random added tokens, some of them also in "vocab"."""
    tokens = {bytes([byte]): byte for byte in range(256)}
    merges = []
    parts = [b"a", b"b", b" ", b"<", b">", b"x", b"1", b"|"]
    for _ in range(rng.randrange(12)):
        left, right = rng.choice(parts), rng.choice(parts)
        if left + right in tokens or len(left) > 1 < len(right) or len(set(left + right)) < len(left + right):
            continue
        if any(left + right in other or other in left + right for other in list(tokens)[256:] if other != left):
            continue  # another pair would give the same token
        tokens[left + right] = len(tokens)
        merges.append([token_text(left), token_text(right)])
        parts.append(left + right)
    vocab = {token_text(token): id for token, id in tokens.items()}
    names = {"".join(rng.choices(PARTS, k=rng.randrange(1, 5))) for _ in range(rng.randrange(1, 7))}
    names |= {" " * rng.randrange(1, 6)} if rng.random() < 0.3 else set()
    likely, late, special = rng.choice([0, 0.1, 0.3]), rng.choice([0, 0.3, 0.5]), rng.choice([0, 0.5, 1])
    following = iter(range(len(vocab), len(vocab) + len(names)))
    added = [
        AddedToken(
            name,
            vocab[name] if name in vocab else next(following),
            special=rng.random() < special,
            lstrip=rng.random() < likely,
            rstrip=rng.random() < likely,
            single_word=rng.random() < likely,
            normalized=rng.random() < late,
        )
        for name in sorted(names)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "ignore_merges": rng.random() < 0.3, "vocab": vocab, "merges": merges}
    data = {
        "version": "1.0",
        "added_tokens": [token._asdict() for token in added],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": model,
    }
    path.write_text(json.dumps(data))
    return added


def random_text(rng: random.Random, names: list[str]) -> str:
    """Return a text of added tokens, their beginnings and ends, and other characters."""
    parts = []
    for _ in range(rng.randrange(14)):
        name = rng.choice(names)
        cut = rng.randrange(len(name) + 1)
        parts.append(rng.choice([name, name, name[:cut], name[cut:], *(rng.choice(PARTS) for _ in range(3)), "   "]))
    return "".join(parts)

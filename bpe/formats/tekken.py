"""Mistral's tekken.json: byte-level BPE as in tiktoken, whose special tokens come before all other tokens.

The file lists tokens by rank. Only as many are used as its "config" says, and their ids are their ranks plus the number
of special tokens. See ``Tekkenizer`` in mistral-common, which encodes with tiktoken.
"""

from __future__ import annotations

import mmap
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

from bpe.boundaries import Boundaries
from bpe.errors import InputError
from bpe.files import parsed_json
from bpe.patterns import find_pattern
from bpe.published_patterns import TEKKEN_SPECIAL_TOKENS
from bpe.vocabulary import Vocabulary, as_added_tokens, chosen_tokens

_LAST_WITHOUT_A_LIST = 7  # the last version whose files may leave out the special tokens
_A_TOKEN = re.compile(rb'"token_bytes"\s*:\s*"')
_MOST_SPECIAL_TOKENS = 2**16  # far more than the 1,000 of the published files


def matches(content: bytes | mmap.mmap) -> bool:
    """Return whether the content is a JSON object with what only a tekken.json has."""
    if not content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return False
    token = content.find(b'"token_bytes"')
    return _A_TOKEN.search(content, max(token, 0)) is not None or content.find(b'"default_num_special_tokens"') >= 0


def read(
    content: bytes, name: str, pattern: str | None, special_tokens: Mapping[str, int] | Sequence[str] | None
) -> Vocabulary:
    """Read a tekken.json.

    Args:
        content: The content of the file.
        name: The name of the file, which names the vocabulary.
        pattern: The split pattern to use instead of the file's.
        special_tokens: The special tokens to use instead of the file's, or names to add to them.

    Raises:
        InputError: When the JSON is damaged, or a part of the file is missing or of another type.
    """
    data = parsed_json(content, "tekken.json")
    config = _member(data, "config", dict, "the file")
    size = _count(config, "default_vocab_size")
    first = _count(config, "default_num_special_tokens")
    ranks = _ranks(_member(data, "vocab", list, "the file"), size - first, first)
    own = _special_tokens(data, config, first)
    chosen = find_pattern(_member(config, "pattern", str, '"config"') if pattern is None else pattern)
    found = as_added_tokens({token: id for id, token in enumerate(own)})
    added = chosen_tokens(found, special_tokens, {}, size)
    ids = {token.content: token.id for token in added.values()}
    vocabulary = Vocabulary.from_ranks(name.removesuffix(".json"), chosen, ranks, ids)
    if isinstance(special_tokens, Mapping) or not {"<s>", "</s>"} <= ids.keys():
        return vocabulary
    # Tekkenizer knows these two by name, and Mistral's templates begin with the first.
    begin, end, source = ids["<s>"], ids["</s>"], "tekken.json"
    return vocabulary.with_boundaries(
        Boundaries(begin, (end,), end, (begin,), bos_from=source, eos_from=source, prefix_from=source)
    )


def _ranks(vocab: list[Any], count: int, first: int) -> dict[bytes, int]:
    """Return the id of each of the first tokens by its bytes, where `first` is the id of the first of them."""
    if not 256 <= count <= len(vocab):
        raise InputError(
            f'"config" says that {count} tokens are used, but "vocab" has {len(vocab)}; expected 256 of them or more'
        )
    ids: dict[bytes, int] = {}
    for rank, entry in enumerate(vocab[:count]):
        where = f'token {rank} in "vocab"'
        if _count(entry, "rank", where) != rank:
            raise InputError(f"{where} has the rank {entry['rank']}; is a token missing?")
        encoded = _member(entry, "token_bytes", str, where)
        try:
            token = b64decode(encoded, validate=True)
        except ValueError as error:
            raise InputError(f'"token_bytes" of {where} is {encoded!r:.60}, which is not base64') from error
        if not token or token in ids or (rank < 256 and token != bytes([rank])):
            known = "is empty" if not token else f"is that of token {ids[token] - first}" if token in ids else ""
            raise InputError(f'"token_bytes" of {where} {known or "is not the byte of that number"}')
        ids[token] = first + rank
    return ids


def _special_tokens(data: Mapping[str, Any], config: Mapping[str, Any], count: int) -> list[str]:
    """Return the special tokens in the order of their ids. A file may list fewer than it counts, or none."""
    version = _member(config, "version", str, '"config"')
    listed = data.get("special_tokens")
    if listed is None:
        number = re.match(r"v(\d{1,9})", version)
        if number is None or int(number[1]) > _LAST_WITHOUT_A_LIST:
            raise InputError(
                f'"special_tokens" is missing, which version {version!r:.40} needs; download the file again'
            )
        tokens = list(TEKKEN_SPECIAL_TOKENS)
    else:
        entries = _member(data, "special_tokens", list, "the file")
        tokens = [_member(entry, "token_str", str, f'token {i} in "special_tokens"') for i, entry in enumerate(entries)]
        for i, entry in enumerate(entries):
            where = f'token {i} in "special_tokens"'
            if _count(entry, "rank", where) != i:
                raise InputError(f"{where} has the rank {entry['rank']}; is a token missing?")
    if not len(tokens) <= count <= _MOST_SPECIAL_TOKENS:
        raise InputError(f'"default_num_special_tokens" is {count}, but {len(tokens)} special tokens are listed')
    tokens += [f"<SPECIAL_{id}>" for id in range(len(tokens), count)]
    if len(set(tokens)) < len(tokens):
        twice = next(token for i, token in enumerate(tokens) if token in tokens[:i])
        raise InputError(f'"special_tokens" has {twice!r:.60} twice')
    return tokens


def _count(value: object, key: str, where: str = '"config"') -> int:
    number: int = _member(value, key, int, where)
    if isinstance(number, bool) or not 0 <= number < 2**31:
        raise InputError(f'"{key}" of {where} is {number!r:.40}; expected a number from 0 on')
    return number


def _member(value: object, key: str, kind: type, where: str) -> Any:
    """Return a value of a JSON object, which must be of a type."""
    names = {dict: "an object", list: "a list", str: "a string", int: "a number"}
    if not isinstance(value, dict):
        raise InputError(f"{where} is not an object; is this a tekken.json?")
    if key not in value:
        raise InputError(f'"{key}" of {where} is missing; is this a tekken.json?')
    if not isinstance(value[key], kind):
        raise InputError(f'"{key}" of {where} is {value[key]!r:.40}; expected {names[kind]}')
    return value[key]


def render(vocabulary: Vocabulary) -> bytes:
    """Refuse: only tokenizer.json and tiktoken's format are written for such a vocabulary.

    Raises:
        InputError: Always.
    """
    raise InputError(f"{vocabulary.name} cannot be written as tekken.json; save it as .json, which is a tokenizer.json")

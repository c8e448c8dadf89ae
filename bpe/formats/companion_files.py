"""What the files beside a tokenizer say about the beginning and the end of a text, as transformers takes it from them.

generation_config.json and, for what it leaves out, config.json decide what ends a generated text.
tokenizer_config.json and special_tokens_map.json name the tokens of the tokenizer itself.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from bpe.boundaries import KNOWN_NAME, Boundaries
from bpe.errors import InputError
from bpe.files import read_json
from bpe.formats.byte_level import is_id
from bpe.formats.post_processor import has_token
from bpe.vocabulary import AddedToken, Vocabulary

GENERATION, CONFIG = "generation_config.json", "config.json"
TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
VOCAB, MERGES, ADDED_TOKENS = "vocab.json", "merges.txt", "added_tokens.json"


# The tokens that tokenizer_config.json may name, which transformers makes special.
NAMED_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


def boundaries_beside(vocabulary: Vocabulary, directory: Path) -> Boundaries:
    """Return what begins and ends a text, given what the tokenizer file says and the files beside it.

    Args:
        vocabulary: The vocabulary in the tokenizer file.
        directory: The directory of the file.

    Raises:
        InputError: When a file is damaged, or a value has the wrong type; the message names the file and the key.
    """
    files = {name: _read(directory / name) for name in (GENERATION, CONFIG, TOKENIZER_CONFIG, SPECIAL_TOKENS)}
    found = vocabulary.boundaries
    changes: dict[str, Any] = {}
    begin, begin_from = _token(vocabulary, directory, files, "bos_token")
    end, end_from = _token(vocabulary, directory, files, "eos_token")
    if not begin_from and len(found.prefix_ids) == 1 and found.prefix_from != KNOWN_NAME:
        begin, begin_from = found.prefix_ids[0], found.prefix_from  # what the tokenizer.json puts in front
    if not begin_from:
        begins, begin_from = _generated(directory, files, "bos_token_id")
        begin = begins[0] if begins else None
    if begin_from:
        changes |= {"bos_id": begin, "bos_from": begin_from}
        if found.prefix_from == KNOWN_NAME and found.bos_id != begin:
            changes |= {"prefix_ids": (), "prefix_from": begin_from}  # not the token that only its name recommends
    ends, ends_from = _generated(directory, files, "eos_token_id")
    for id in ends:
        if not has_token(vocabulary, id):
            warnings.warn(
                f"{directory / ends_from}: eos_token_id is {id}, but the tokenizer has no token with this id; correct"
                " the id, or add the token to the tokenizer",
                stacklevel=2,
            )
    if not ends_from and end_from:
        ends, ends_from = (() if end is None else (end,)), end_from
    if ends_from:
        changes |= {"eos_ids": ends, "eos_from": ends_from, "eos_id": end if end_from else next(iter(ends), None)}
    changes |= _added(directory, files[TOKENIZER_CONFIG], found, begin if begin_from else found.bos_id, end)
    return found._replace(**changes)


def added_tokens_beside(directory: Path) -> list[AddedToken]:
    """Return the added tokens of tokenizer_config.json, in the order in which transformers adds them to a tokenizer.

    A tokenizer decides about their ids itself; the ids here are only what the file says.

    Args:
        directory: The directory of the file.

    Raises:
        InputError: When the file is damaged, or an entry is not a token; the message names the file and the entry.
    """
    path = directory / TOKENIZER_CONFIG
    config = _read(path)
    entries = config.get("added_tokens_decoder") or {}
    if not isinstance(entries, dict):
        raise InputError(f'{path}: "added_tokens_decoder" is not an object')
    named = {token_content(config.get(key)) for key in NAMED_TOKENS} - {None}
    tokens = []
    for number, entry in entries.items():
        content = token_content(entry) if isinstance(entry, dict) else None
        if content is None or not number.isdecimal() or not is_id(int(number)):
            raise InputError(f'{path}: the entry {number!r} of "added_tokens_decoder" is not an id and a token')
        special = bool(entry.get("special", False)) or content in named
        tokens.append(
            AddedToken(
                content,
                int(number),
                special=special,
                lstrip=bool(entry.get("lstrip", False)),
                rstrip=bool(entry.get("rstrip", False)),
                single_word=bool(entry.get("single_word", False)),
                normalized=bool(entry.get("normalized", not special)),
            )
        )
    return sorted(tokens, key=lambda token: token.id)


def special_names_beside(directory: Path) -> list[str]:
    """Return the texts that tokenizer_config.json and special_tokens_map.json name as some token, such as "eos_token".

    transformers makes each of these tokens special. If tokenizer_config.json has "added_tokens_decoder", then only that
    list says what is special.

    Args:
        directory: The directory of the file.

    Raises:
        InputError: When a file is damaged; the message names it.
    """
    config = _read(directory / TOKENIZER_CONFIG)
    if "added_tokens_decoder" in config:
        return []
    files = (config, _read(directory / SPECIAL_TOKENS))
    texts = [token_content(value) for file in files for key, value in file.items() if key.endswith("_token")]
    return list(dict.fromkeys(text for text in texts if text))


def token_content(token: Any) -> str | None:
    """Return the text of a token, which a file gives as text or as an object; None if it is neither."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; {} if there is no such file."""
    return read_json(path) if path.is_file() else {}


def _token(
    vocabulary: Vocabulary, directory: Path, files: dict[str, dict[str, Any]], key: str
) -> tuple[int | None, str]:
    """Return the id of a token that the files of the tokenizer name, and the file; None and "" if no file does.

    transformers reads special_tokens_map.json only if tokenizer_config.json has no "added_tokens_decoder", and the map
    then takes precedence. A key with the value null says that there is no such token.
    """
    order = [TOKENIZER_CONFIG, SPECIAL_TOKENS]
    if "added_tokens_decoder" not in files[TOKENIZER_CONFIG]:
        order.reverse()
    for name in order:
        if key not in files[name]:
            continue
        value = files[name][key]
        text = value.get("content") if isinstance(value, dict) else value
        if value is None:
            return None, name
        if not isinstance(text, str):
            raise InputError(
                f'{directory / name}: "{key}" is {value!r}; expected the text of a token, or an object with "content"'
            )
        id = _id_of(vocabulary, text)
        if id is not None:
            return id, name
        warnings.warn(
            f"{directory / name}: {key} is {text!r}, but the tokenizer has no such token; correct the name, or add the"
            " token to the tokenizer",
            stacklevel=2,
        )
    return None, ""


def _id_of(vocabulary: Vocabulary, text: str) -> int | None:
    for token in vocabulary.added_tokens:
        if token.content == text:
            return token.id
    try:
        return vocabulary.encoder.find(text.encode()) if text else None
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return None


def _generated(directory: Path, files: dict[str, dict[str, Any]], key: str) -> tuple[tuple[int, ...], str]:
    """Return the ids of the first of the files of the model that names some, and the file; () and "" if none does."""
    config = files[CONFIG]
    text_config = config.get("text_config")  # of a model that reads more than text
    inner = text_config.get(key) if isinstance(text_config, dict) else None
    values = {GENERATION: files[GENERATION].get(key), CONFIG: inner if config.get(key) is None else config[key]}
    for name, value in values.items():
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if not all(map(is_id, ids)):
            raise InputError(f"{directory / name}: {key} is {value!r}; expected an id or a list of ids")
        return tuple(dict.fromkeys(ids)), name
    return (), ""


def _added(
    directory: Path, config: dict[str, Any], found: Boundaries, begin: int | None, end: int | None
) -> dict[str, Any]:
    """Return what add_bos_token and add_eos_token of tokenizer_config.json change.

    Beside a tokenizer.json, transformers ignores the two and its post_processor decides. Then only the source of that
    decision says so, if they differ.
    """
    changes: dict[str, Any] = {}
    for key, field, source, id in (
        ("add_bos_token", "prefix_ids", "prefix_from", begin),
        ("add_eos_token", "suffix_ids", "suffix_from", end),
    ):
        value = config.get(key)
        if value is None:
            continue
        if not isinstance(value, bool):
            raise InputError(f'{directory / TOKENIZER_CONFIG}: "{key}" is {value!r}; expected true or false')
        decided = getattr(found, source)
        if decided and decided != KNOWN_NAME:
            if value != bool(getattr(found, field)):
                changes[source] = f"{decided}; {key} of {TOKENIZER_CONFIG} is {str(value).lower()} and has no effect"
            continue
        if value and id is None:
            warnings.warn(
                f"{directory / TOKENIZER_CONFIG}: {key} is true, but there is no {key.removeprefix('add_')}; name it,"
                " or set the key to false",
                stacklevel=2,
            )
        changes |= {field: (id,) if value and id is not None else (), source: TOKENIZER_CONFIG}
    return changes

"""vocab.json and merges.txt: byte-level BPE in two files, as GPT-2 and Qwen2 are published.

The two files say nothing about how text is split or normalized. As in transformers, the tokenizer class decides, which
`bpe.formats.tokenizer_classes` finds, and the files beside them name the added tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bpe.errors import InputError
from bpe.files import read_json
from bpe.formats import huggingface
from bpe.formats.added_tokens import with_more
from bpe.formats.companion_files import (
    ADDED_TOKENS,
    MERGES,
    NAMED_TOKENS,
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    VOCAB,
    added_tokens_beside,
    token_content,
)
from bpe.formats.tokenizer_classes import CLASSES, TokenizerClass, class_of, no_class
from bpe.vocabulary import AddedToken, Vocabulary

_BEGIN = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*[0-9]')
# Settings of Whisper's class that put other tokens in front of a text.
_OTHER_PREFIX = ("language", "task", "predict_timestamps")
_SUFFIX = "</w>"


def matches(content: bytes) -> bool:
    """Return whether the content begins a JSON object from text to id."""
    return _BEGIN.match(content[:4096]) is not None


def read_directory(
    content: bytes, path: Path, pattern: str | None, special_tokens: Mapping[str, int] | Sequence[str] | None
) -> Vocabulary:
    """Read a vocab.json, the merges.txt in its directory, and the files that name its added tokens.

    Args:
        content: The content of the vocab.json.
        path: Its path.
        pattern: The split pattern to use instead of that of the tokenizer class.
        special_tokens: The special tokens to use instead of the files', or names to add to them.

    Raises:
        InputError: When the merges are missing, a file is damaged, or nothing says how text is split.
    """
    try:
        ids = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not complete JSON ({error}); is the file truncated?") from error
    directory = path.parent
    config = _read(directory / TOKENIZER_CONFIG)
    name = class_of(directory)
    known = CLASSES.get(name)
    _refuse_suffixes(ids)
    if known is None and pattern is None:
        raise no_class(directory, name)
    known = known or TokenizerClass({})
    space = config.get("add_prefix_space")
    if not isinstance(space, (bool, type(None))):
        raise InputError(f'{directory / TOKENIZER_CONFIG}: "add_prefix_space" is {space!r}; expected true or false')
    said = "true" if space else f"true by default of {name}"
    space = known.add_prefix_space if space is None else space
    if space and pattern is not None:
        raise InputError(
            f'{directory / TOKENIZER_CONFIG}: "add_prefix_space" is {said}, which cannot be combined with a pattern;'
            " set it to false, or leave out the pattern"
        )
    named = _named_tokens(directory, config, known)
    last = {"type": "ByteLevel", "add_prefix_space": space, "use_regex": known.use_regex}
    added = _added_tokens(directory, config, named, known.adds_again)
    data: dict[str, Any] = {
        "added_tokens": [],
        "normalizer": known.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*known.splits, last]},
        "post_processor": _post_processor(directory, config, known, ids, named, added),
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": ids, "merges": _merges(directory / MERGES)},
    }
    return huggingface.read_data(data, path.name, pattern, special_tokens, added)


def render(vocabulary: Vocabulary) -> bytes:
    """Refuse: the format has two files, which leave out how text is split."""
    raise InputError(f"{vocabulary.name} cannot be written as {VOCAB}; save it as tokenizer.json")


def _merges(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise InputError(f"there is no {MERGES} beside it; the two files belong together") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error}); copy the file again") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if line.count(" ") != 1 and not line.startswith("#version"):
            raise InputError(f"{path}: line {number} is {line!r}; expected two tokens with a space between them")
    return [line for line in lines if not line.startswith("#version")]


def _named_tokens(directory: Path, config: dict[str, Any], known: TokenizerClass) -> dict[str, AddedToken]:
    """Return the tokens that have a name, such as "eos_token", in the order in which transformers adds them."""
    files = {TOKENIZER_CONFIG: config}
    if "added_tokens_decoder" not in config:
        files[SPECIAL_TOKENS] = _read(directory / SPECIAL_TOKENS)
    values: dict[str, Any] = dict(known.tokens)
    for name, file in files.items():
        for key, value in file.items():
            is_other = key.endswith("_token") and key not in NAMED_TOKENS and not isinstance(value, (bool, type(None)))
            if is_other or (key == "extra_special_tokens" and isinstance(value, dict) and value):
                raise InputError(
                    f'{directory / name}: "{key}" is not supported beside a {VOCAB}; open the directory with'
                    " transformers, save it with save_pretrained, and use the tokenizer.json"
                )
            if key in NAMED_TOKENS:
                values[key] = value
    named = {}
    for key in NAMED_TOKENS:
        if values.get(key) is not None:
            named[key] = _special(values[key], directory, key)
            if key == "mask_token" and known.mask_takes_space and isinstance(values[key], str):
                named[key] = named[key]._replace(lstrip=True)
    return named


def _special(value: Any, directory: Path, key: str) -> AddedToken:
    content = token_content(value)
    if content is None:
        raise InputError(f'{directory}: "{key}" of the files beside {VOCAB} is {value!r}; expected a token')
    flags = value if isinstance(value, dict) else {}
    chosen = {flag: bool(flags.get(flag, False)) for flag in ("lstrip", "rstrip", "single_word", "normalized")}
    return AddedToken(content, 0, **chosen)


def _added_tokens(
    directory: Path, config: dict[str, Any], named: Mapping[str, AddedToken], adds_again: bool
) -> list[AddedToken]:
    """Return the added tokens in the order in which transformers adds them to the tokenizer."""
    specials = list(named.values())
    files = [config] if "added_tokens_decoder" in config else [config, _read(directory / SPECIAL_TOKENS)]
    for file in files:
        for key in ("additional_special_tokens", "extra_special_tokens"):
            entries = file.get(key) or []
            if not isinstance(entries, list):
                raise InputError(f'{directory}: "{key}" of the files beside {VOCAB} is not a list')
            specials += [_special(entry, directory, key) for entry in entries]
    listed = added_tokens_beside(directory)
    if "added_tokens_decoder" not in config:
        names = {token.content for token in specials}
        more = _read(directory / ADDED_TOKENS)
        for text, id in more.items():
            if not isinstance(id, int) or isinstance(id, bool) or not text:
                raise InputError(f"{directory / ADDED_TOKENS}: the token {text!r} has the id {id!r}")
            listed.append(AddedToken(text, id, special=text in names, normalized=text not in names))
        listed.sort(key=lambda token: token.id)
    known = {token.content for token in listed}
    for token in specials:
        if token.content not in known:
            known.add(token.content)
            listed.append(token)
    return [*listed, *(AddedToken(token.content, 0) for token in specials)] if adds_again else listed


def _post_processor(
    directory: Path,
    config: Mapping[str, Any],
    known: TokenizerClass,
    ids: Any,
    named: Mapping[str, AddedToken],
    added: Sequence[AddedToken],
) -> dict[str, Any] | None:
    """Return the post-processor of a class, which puts tokens in front of a text and behind it; None if it does not."""
    if not known.before or not isinstance(ids, dict):
        return None
    for key in _OTHER_PREFIX:
        if config.get(key) and "<|startoftranscript|>" in known.before:
            raise InputError(
                f'{directory / TOKENIZER_CONFIG}: "{key}" is {config[key]!r}, which puts other tokens in front of a'
                f" text and is not supported beside a {VOCAB}; remove it"
            )
    all_ids = {**ids, **{token.content: token.id for token in with_more((), added, ids)}}
    special: dict[str, Any] = {}
    sides: list[list[dict[str, Any]]] = []
    for side in (known.before, known.behind):
        sides.append([])
        for name in side:
            content = named[name].content if name in named else name
            if content not in all_ids:
                raise InputError(
                    f"{directory}: the token {content!r}, which is put around each text, is missing; add it to {VOCAB}"
                )
            special[content] = {"id": content, "ids": [all_ids[content]], "tokens": [content]}
            sides[-1].append({"SpecialToken": {"id": content, "type_id": 0}})
    single = [*sides[0], {"Sequence": {"id": "A", "type_id": 0}}, *sides[1]]
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special}


def _refuse_suffixes(ids: Any) -> None:
    """Refuse a vocabulary whose words end with a suffix, as CLIP's and OpenAI GPT's do."""
    if isinstance(ids, dict) and all(letter + _SUFFIX in ids for letter in "aeiou"):
        raise InputError(
            f"words end with {_SUFFIX}, as in CLIP's tokenizer; only byte-level BPE is supported: open the directory"
            " with transformers"
        )


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}

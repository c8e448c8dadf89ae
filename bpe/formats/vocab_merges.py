"""vocab.json and merges.txt: byte-level BPE in two files, as GPT-2 and Qwen2 are published.

The two files say nothing about how text is split or normalized. As in transformers, "tokenizer_class" of
tokenizer_config.json decides, and the files beside them name the added tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bpe.errors import InputError
from bpe.files import read_json
from bpe.formats import huggingface
from bpe.formats.companion_files import (
    NAMED_TOKENS,
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    added_tokens_beside,
    token_content,
)
from bpe.patterns import PATTERNS
from bpe.published_patterns import QWEN2
from bpe.vocabulary import AddedToken, Vocabulary

VOCAB, MERGES, ADDED_TOKENS = "vocab.json", "merges.txt", "added_tokens.json"
_BEGIN = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*[0-9]')
_END = "<|endoftext|>"
_SPLIT = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}


class _Class(NamedTuple):
    """What a tokenizer class of transformers adds to the two files."""

    tokens: Mapping[str, str]
    """The tokens that it names if the files beside do not."""
    normalizer: Mapping[str, Any] | None = None
    splits: Sequence[Mapping[str, Any]] = ()
    """The steps before ByteLevel, instead of its own expression."""
    adds_again: bool = False
    """Whether the class adds its special tokens once more, without any flags."""


_CLASSES = {
    "GPT2Tokenizer": _Class({"bos_token": _END, "eos_token": _END, "unk_token": _END}),
    "Qwen2Tokenizer": _Class(
        {"eos_token": _END, "unk_token": _END, "pad_token": _END}, {"type": "NFC"}, (_SPLIT,), True
    ),
    "GPTNeoXTokenizer": _Class(
        {"bos_token": _END, "eos_token": _END, "unk_token": _END, "pad_token": "<|padding|>"}, {"type": "NFC"}
    ),
    "RobertaTokenizer": _Class(
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>"}
        | {"cls_token": "<s>", "mask_token": "<mask>"}
    ),
}


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
    known = _CLASSES.get(name)
    if known is None and pattern is None:
        what = (
            f"{TOKENIZER_CONFIG} names the tokenizer class {name!r}" if name else "no tokenizer_config.json beside it"
        )
        raise InputError(
            f"{what}, which does not tell the split pattern; name the pattern, for example pattern='gpt2' (on the"
            f" command line --pattern gpt2; known names: {', '.join(PATTERNS)}), or set tokenizer_class to one of"
            f" {', '.join(_CLASSES)}"
        )
    known = known or _Class({})
    space = config.get("add_prefix_space")
    if not isinstance(space, (bool, type(None))):
        raise InputError(f'{directory / TOKENIZER_CONFIG}: "add_prefix_space" is {space!r}; expected true or false')
    if space and pattern is not None:
        raise InputError(
            f'{directory / TOKENIZER_CONFIG}: "add_prefix_space" is true, which cannot be combined with a pattern; set'
            " it to false, or leave out the pattern"
        )
    named = _named_tokens(directory, config, known)
    last = {"type": "ByteLevel", "add_prefix_space": bool(space), "use_regex": not known.splits}
    data: dict[str, Any] = {
        "added_tokens": [],
        "normalizer": known.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*known.splits, last]},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": ids, "merges": _merges(directory / MERGES)},
    }
    added = _added_tokens(directory, config, named, known.adds_again)
    if name == "RobertaTokenizer":
        data["post_processor"] = _roberta(ids, added, named)
    return huggingface.read_data(data, path.name, pattern, special_tokens, added)


def render(vocabulary: Vocabulary) -> bytes:
    """Refuse: the format has two files, which leave out how text is split."""
    raise InputError(f"{vocabulary.name} cannot be written as {VOCAB}; save it as tokenizer.json")


def class_of(directory: Path) -> str:
    """Return the tokenizer class that tokenizer_config.json names, without "Fast" at its end; "" if there is none."""
    name = _read(directory / TOKENIZER_CONFIG).get("tokenizer_class")
    return name.removesuffix("Fast") if isinstance(name, str) else ""


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


def _named_tokens(directory: Path, config: dict[str, Any], known: _Class) -> dict[str, AddedToken]:
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


def _roberta(ids: Any, added: Sequence[AddedToken], named: Mapping[str, AddedToken]) -> dict[str, Any]:
    """Return the post-processor of RoBERTa, which puts a token in front of a text and another behind it."""
    of_token = ids if isinstance(ids, dict) else {}
    pairs = {}
    for key, name in (("sep", "sep_token"), ("cls", "cls_token")):
        content = named[name].content if name in named else ""
        if content not in of_token:
            raise InputError(f"{VOCAB} has no token {content!r}, the {name}; add it to the file")
        pairs[key] = [content, of_token[content]]
    return {"type": "RobertaProcessing", **pairs, "trim_offsets": True, "add_prefix_space": False}


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}

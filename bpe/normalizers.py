"""How text is normalized before it is split, in the form of the "normalizer" of a tokenizer.json.

Each entry becomes steps of the core, which gives what ``tokenizers`` gives: see `bpe/core/text/normalizer.hpp`. The
Unicode version of each normalizer is that of ``tokenizers``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from bpe import _core
from bpe.errors import InputError

CoreStep: TypeAlias = tuple[Any, ...]
"""The name and the settings of a step of the core."""

_Keys: TypeAlias = Mapping[str, type | tuple[type, ...]]
_Type: TypeAlias = tuple[_Keys, Callable[[Mapping[str, Any]], Iterator[CoreStep]]]
"""The keys of a type of normalizer besides "type", with the types of their values, and what reads its steps."""

_DEEPEST = 60
"""How deep sequences may be nested. ``tokenizers`` refuses JSON that is nested twice as deep."""


def compile_normalizer(entry: Mapping[str, Any] | None) -> _core.Normalizer | None:
    """Return what normalizes text as an entry of a tokenizer.json says.

    >>> compile_normalizer({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]}).apply("é")
    b'e'

    Args:
        entry: The value of "normalizer".

    Returns:
        The normalizer, or None if text stays as it is: the entry is None, or a sequence without steps.

    Raises:
        InputError: When the entry is of an unknown type, has a wrong or an unknown key, or cannot be followed exactly.
            The message names the key.
    """
    steps = [] if entry is None else list(_steps(entry, "normalizer", 0))
    try:
        return _core.Normalizer(steps) if steps else None
    except InputError as error:
        raise InputError(f'"normalizer": {error}') from None


def is_only_nfc(entry: Mapping[str, Any] | None) -> bool:
    """Return whether an entry of a tokenizer.json does nothing but NFC. Arguments and errors as `compile_normalizer`.

    >>> is_only_nfc({"type": "Sequence", "normalizers": [{"type": "NFC"}]}), is_only_nfc(None)
    (True, False)
    """
    steps = [] if entry is None else list(_steps(entry, "normalizer", 0))
    return bool(steps) and all(step == ("nfc",) for step in steps)


def _steps(entry: Any, where: str, depth: int) -> Iterator[CoreStep]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("type"), str):
        raise InputError(f'"{where}" is {_shown(entry)}; expected an object with a "type", such as {{"type": "NFC"}}')
    kind = entry["type"]
    if kind not in _TYPES:
        raise InputError(f'"{where}" is of the type {kind!r}; supported are {", ".join(sorted(_TYPES))}')
    keys, read = _TYPES[kind]
    for key in entry.keys() - {"type", *keys}:
        raise InputError(f'"{where}" ({kind}) has the key "{key}", which tokenizers ignores; remove it')
    for key, expected in keys.items():
        _check_value(entry, key, expected, f"{where} ({kind})")
    if kind == "Sequence":
        if depth == _DEEPEST:
            raise InputError(f'"{where}" is nested too deep')
        for number, inner in enumerate(entry["normalizers"]):
            yield from _steps(inner, f"{where}.normalizers[{number}]", depth + 1)
        return
    try:
        yield from read(entry)
    except InputError as error:
        raise InputError(f'"{where}" ({kind}): {error}') from None


def _check_value(entry: Mapping[str, Any], key: str, expected: type | tuple[type, ...], where: str) -> None:
    if key not in entry:
        if isinstance(expected, tuple):
            return  # may be null, and then also missing
        raise InputError(f'"{where}" has no "{key}"')
    if not isinstance(entry[key], expected):
        kinds = expected if isinstance(expected, tuple) else (expected,)
        names = " or ".join(_JSON_NAMES[kind] for kind in kinds)
        raise InputError(f'"{key}" of "{where}" is {_shown(entry[key])}; expected {names}')


_JSON_NAMES = {bool: "true or false", type(None): "null", str: "a string", list: "a list", dict: "an object"}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fixed(*steps: CoreStep) -> Callable[[Mapping[str, Any]], Iterator[CoreStep]]:
    return lambda entry: iter(steps)


def _bert(entry: Mapping[str, Any]) -> Iterator[CoreStep]:
    strips_accents = entry.get("strip_accents")
    if entry["clean_text"]:
        yield ("bert_clean",)
    if entry["handle_chinese_chars"]:
        yield ("bert_chinese",)
    if entry["lowercase"] if strips_accents is None else strips_accents:
        yield ("nfd",)
        yield ("bert_accents",)
    if entry["lowercase"]:
        yield ("lowercase",)


def _strip(entry: Mapping[str, Any]) -> Iterator[CoreStep]:
    if entry["strip_left"] or entry["strip_right"]:
        yield ("strip", entry["strip_left"], entry["strip_right"])


def _prepend(entry: Mapping[str, Any]) -> Iterator[CoreStep]:
    yield ("prepend", _utf8(entry["prepend"], "prepend"))


def _replace(entry: Mapping[str, Any]) -> Iterator[CoreStep]:
    pattern = entry["pattern"]
    content = _utf8(entry["content"], "content")
    if len(pattern) != 1 or not isinstance(text := next(iter(pattern.values())), str):
        raise InputError('"pattern" is no object with a "String" or a "Regex"')
    if "String" in pattern:
        yield ("replace", _utf8(text, "String"), content)
    elif "Regex" in pattern:
        from bpe.splitting.compile import compile_pattern  # here, because few files need it, and it adds to start-up

        program = compile_pattern(text, "tokenizers")
        yield ("replace_matches", program.sets, program.instructions, content)
    else:
        raise InputError(f'"pattern" has the key "{next(iter(pattern))}"; expected "String" or "Regex"')


def _precompiled(entry: Mapping[str, Any]) -> Iterator[CoreStep]:
    text = entry["precompiled_charsmap"]
    try:
        charsmap = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f'"precompiled_charsmap" is not base64 ({error})') from None
    yield ("precompiled", charsmap)


def _utf8(text: str, key: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InputError(f'"{key}" is {_shown(text)}, which contains half of a surrogate pair') from None


_BERT: _Type = (
    {"clean_text": bool, "handle_chinese_chars": bool, "strip_accents": (bool, type(None)), "lowercase": bool},
    _bert,
)

_TYPES: dict[str, _Type] = {
    "NFC": ({}, _fixed(("nfc",))),
    "NFD": ({}, _fixed(("nfd",))),
    "NFKC": ({}, _fixed(("nfkc",))),
    "NFKD": ({}, _fixed(("nfkd",))),
    "Lowercase": ({}, _fixed(("lowercase",))),
    "StripAccents": ({}, _fixed(("strip_accents",))),
    "Nmt": ({}, _fixed(("nmt",))),
    "ByteLevel": ({}, _fixed(("byte_level",))),
    "Strip": ({"strip_left": bool, "strip_right": bool}, _strip),
    "Prepend": ({"prepend": str}, _prepend),
    "Replace": ({"pattern": dict, "content": str}, _replace),
    "Precompiled": ({"precompiled_charsmap": str}, _precompiled),
    "BertNormalizer": _BERT,
    "Bert": _BERT,
    "Sequence": ({"normalizers": list}, _fixed()),
}

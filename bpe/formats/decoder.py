"""The decoder of a tokenizer.json with byte-level tokens: only what decodes to the bytes of the tokens is supported."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from bpe.errors import InputError

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")


def check_decoder(decoder: Any, texts: Iterable[str]) -> None:
    """Refuse a decoder that does not decode to the bytes of the tokens.

    ByteLevel does, and Fuse and ByteFallback beside it change nothing. A file without a decoder says nothing: then the
    tokens are decoded as by ByteLevel.

    Args:
        decoder: The "decoder" of the file.
        texts: The texts of the tokens.

    Raises:
        InputError: When the decoder changes the text, which the message names, or is damaged.
    """
    if decoder is None:
        return
    kinds = _kinds(decoder)
    for kind in kinds:
        if kind not in ("ByteLevel", "Fuse", "ByteFallback"):
            raise InputError(
                f'"decoder" has {kind!r}, which is not supported for byte-level BPE; supported are ByteLevel, with Fuse'
                " and ByteFallback beside it"
            )
    if kinds.count("ByteLevel") != 1:
        raise InputError(f'"decoder" has ByteLevel {kinds.count("ByteLevel")} times; expected it once')
    text = next(filter(_BYTE.fullmatch, texts), None) if "ByteFallback" in kinds else None
    if text is not None:
        raise InputError(f'"decoder" has ByteFallback, which makes a byte of the token {text!r}; not supported')


def _kinds(decoder: Any, depth: int = 0) -> list[str]:
    kind = decoder.get("type") if isinstance(decoder, dict) else None
    if not isinstance(kind, str) or depth > 64:
        raise InputError(f'"decoder" has {decoder!r:.60} in place of a step; expected an object with a type')
    if kind != "Sequence":
        return [kind]
    inner = decoder.get("decoders")
    if not isinstance(inner, list):
        raise InputError('a Sequence in "decoder" has no list "decoders"')
    return [kind for each in inner for kind in _kinds(each, depth + 1)]

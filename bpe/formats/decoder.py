"""The decoder of a tokenizer.json: only what decodes to the bytes of the tokens is supported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from bpe.errors import InputError
from bpe.piece_vocabulary import SPACE

_TO_SPACE = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
_REMEDY = (
    " not supported for merges of characters; write Replace, ByteFallback, Fuse and Strip as in the tokenizer.json of"
    " Llama 2, or null"
)
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
    kinds = [step["type"] for step in _steps(decoder)]
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


def check_piece_decoder(decoder: Any, byte_fallback: bool) -> None:
    """Refuse a decoder that does not decode tokens with a symbol for spaces as SentencePiece does.

    A file without a decoder says nothing: then the tokens are decoded as by SentencePiece.

    Args:
        decoder: The "decoder" of the file.
        byte_fallback: Whether the model has tokens for bytes.

    Raises:
        InputError: When a step changes the text otherwise, which the message names, or the decoder is damaged.
    """
    if decoder is None:
        return
    steps = _steps(decoder)
    known = ({"type": "ByteFallback"}, {"type": "Fuse"}, _TO_SPACE, _STRIP)
    for step in steps:
        if step not in known and not (step["type"] == "Metaspace" and step.get("replacement") == SPACE):
            raise InputError(f'"decoder" has the step {json.dumps(step, ensure_ascii=False):.100}, which is' + _REMEDY)
    kinds = [step["type"] for step in steps]
    before_fuse = kinds[: kinds.index("Fuse")] if "Fuse" in kinds else kinds
    if "Strip" in before_fuse:
        raise InputError('"decoder" has Strip without Fuse before it, which strips every token and is' + _REMEDY)
    if byte_fallback and "ByteFallback" not in before_fuse:
        raise InputError('"decoder" leaves the tokens of bytes, such as <0x0A>, as they are, which is' + _REMEDY)
    if "Metaspace" not in kinds and _TO_SPACE not in steps:
        raise InputError(f'"decoder" has no step that makes a space of {SPACE}, which is' + _REMEDY)


def _steps(decoder: Any, depth: int = 0) -> list[dict[str, Any]]:
    kind = decoder.get("type") if isinstance(decoder, dict) else None
    if not isinstance(kind, str) or depth > 64:
        raise InputError(f'"decoder" has {decoder!r:.60} in place of a step; expected an object with a type')
    if kind != "Sequence":
        return [decoder]
    inner = decoder.get("decoders")
    if not isinstance(inner, list):
        raise InputError('a Sequence in "decoder" has no list "decoders"')
    return [step for each in inner for step in _steps(each, depth + 1)]

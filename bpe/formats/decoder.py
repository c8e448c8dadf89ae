"""The decoder of a tokenizer.json: only what decodes to the bytes of the tokens is supported."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
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
_READ_AS_BYTE = re.compile("<0x[+0-9A-Fa-f][0-9A-Fa-f]>")  # by tokenizers, whose numbers may have a sign


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
                ' and ByteFallback beside it. Set "decoder" to null, which changes no ids, or open the file with'
                " tokenizers"
            )
    if kinds.count("ByteLevel") != 1:
        raise InputError(f'"decoder" has ByteLevel {kinds.count("ByteLevel")} times; expected it once')
    text = next(filter(_BYTE.fullmatch, texts), None) if "ByteFallback" in kinds else None
    if text is not None:
        raise InputError(f'"decoder" has ByteFallback, which makes a byte of the token {text!r}; not supported')


def decodes_bytes(decoder: Any) -> bool:
    """Return whether a decoder makes bytes of tokens such as <0x0A>."""
    return decoder is not None and any(step["type"] == "ByteFallback" for step in _steps(decoder))


def piece_decoding(decoder: Any, byte_texts: Collection[str], texts: Iterable[str]) -> str:
    """Return how a file decodes tokens with a symbol for spaces: the `decoding` of a `PieceModel`.

    A file without a decoder does not say: then the tokens are decoded as by SentencePiece.

    Args:
        decoder: The "decoder" of the file.
        byte_texts: The texts of the tokens that stand for bytes.
        texts: The texts of all tokens, added tokens included.

    Raises:
        InputError: When a step changes the text otherwise, which the message names, or the decoder is damaged.
    """
    if decoder is None:
        return "sentencepiece"
    steps = _steps(decoder)
    makes_space, is_fused, has_bytes, decoding = False, False, False, "keep"
    for step in steps:
        is_metaspace = step["type"] == "Metaspace" and step.get("replacement") == SPACE
        if step["type"] == "ByteFallback":
            if is_fused:
                raise InputError('"decoder" has ByteFallback behind Fuse, which is' + _REMEDY)
            has_bytes = True
        elif step["type"] == "Fuse":
            is_fused = True
        elif step == _STRIP:
            if not is_fused:
                raise InputError(
                    '"decoder" has Strip without Fuse before it, which strips every token and is' + _REMEDY
                )
            if not makes_space:
                raise InputError(
                    f'"decoder" has before Strip no step that makes a space of {SPACE}, which is' + _REMEDY
                )
            if decoding != "keep":
                raise InputError('"decoder" has Strip behind a step that removes spaces as well, which is' + _REMEDY)
            decoding = "strip"
        elif step != _TO_SPACE and not is_metaspace:
            raise InputError(f'"decoder" has the step {json.dumps(step, ensure_ascii=False):.100}, which is' + _REMEDY)
        elif not makes_space:
            if has_bytes and {f"<0x{byte:02X}>" for byte in SPACE.encode()}.issubset(byte_texts):
                raise InputError(f'"decoder" has {step["type"]} behind ByteFallback, which is' + _REMEDY)
            if is_metaspace and _scheme(step) != "never":
                if is_fused:
                    raise InputError('"decoder" has Metaspace behind Fuse, which removes all spaces and is' + _REMEDY)
                decoding = "metaspace"
            makes_space = True
    if byte_texts and not has_bytes:
        raise InputError('"decoder" leaves the tokens of bytes, such as <0x0A>, as they are, which is' + _REMEDY)
    if not makes_space:
        raise InputError(f'"decoder" has no step that makes a space of {SPACE}, which is' + _REMEDY)
    others = (text for text in texts if text not in byte_texts and _READ_AS_BYTE.fullmatch(text))
    if has_bytes and (text := next(others, None)) is not None:
        raise InputError(f'"decoder" has ByteFallback, which makes a byte of the token {text!r}; that is' + _REMEDY)
    return decoding


def _scheme(metaspace: Mapping[str, Any]) -> Any:
    return metaspace.get("prepend_scheme", "always" if metaspace.get("add_prefix_space", True) else "never")


def written_decoder(decoding: str, has_prefix: bool) -> dict[str, Any]:
    """Return the decoder of a tokenizer.json.

    Args:
        decoding: The `decoding` of a `PieceModel`.
        has_prefix: Whether a text gets a space in front, which SentencePiece removes.
    """
    to_space: dict[str, Any] = _TO_SPACE
    if decoding == "metaspace":
        to_space = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": False}
    strips = decoding == "strip" or (decoding == "sentencepiece" and has_prefix)
    steps = [to_space, {"type": "ByteFallback"}, {"type": "Fuse"}, *([_STRIP] if strips else [])]
    return {"type": "Sequence", "decoders": steps}


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

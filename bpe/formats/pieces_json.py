"""SentencePiece's BPE in a tokenizer.json: Llama 1 and 2, Mistral, Gemma, Phi-3 and others."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from bpe.errors import InputError
from bpe.formats.byte_level import is_id
from bpe.formats.decoder import decodes_bytes, piece_decoding, written_decoder
from bpe.formats.piece_merges import with_merges
from bpe.piece_vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    PieceModel,
    PieceNormalizer,
    PieceVocabulary,
)
from bpe.vocabulary import AddedToken, chosen_tokens

_BYTE_TEXT = re.compile("<0x[0-9A-F]{2}>")
_TO_SPACE_SYMBOL = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
# Gemma's pre-tokenizer, which finds nothing because its normalizer leaves no spaces.
_NO_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def has_pieces(data: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer.json merges characters with a symbol for spaces, as SentencePiece does."""
    parts = [data.get("pre_tokenizer"), data.get("normalizer")]
    if '"ByteLevel"' in json.dumps(parts):
        return False
    model = data.get("model")
    model = model if isinstance(model, dict) else {}
    if model.get("type") not in (None, "BPE"):
        return False
    return bool(model.get("byte_fallback")) or SPACE in json.dumps(parts, ensure_ascii=False)


def read_pieces(
    data: Mapping[str, Any],
    name: str,
    pattern: str | None,
    special_tokens: Mapping[str, int] | Sequence[str] | None,
    found: Sequence[AddedToken],
) -> PieceVocabulary:
    """Read the vocabulary of a tokenizer.json for which `has_pieces` is true.

    Args:
        data: The content of the file.
        name: What to call the vocabulary.
        pattern: Must be None: such a vocabulary has no split pattern.
        special_tokens: The special tokens to use instead of the file's, or names to add to them.
        found: The added tokens of the file.

    Raises:
        InputError: When a part of the file is damaged, or `tokenizers` would give other ids.
    """
    if pattern is not None:
        raise InputError("the tokenizer merges characters and splits text by no pattern; leave out the pattern")
    model = data["model"]
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(option):
            raise InputError(
                f"model.{option} is {model[option]!r}, which is not supported for merges of characters; open the file"
                f" with the package tokenizers, or set {option} to {'false' if option == 'ignore_merges' else 'null'}"
                " if the model was trained so"
            )
    texts = _texts(model["vocab"])
    normalizer = _normalizer(data, model)
    for token in found:
        _refuse_normalized(token, normalizer)
    unknown_text = model.get("unk_token")
    if unknown_text is not None and unknown_text not in model["vocab"]:
        raise InputError(f"model.unk_token is {unknown_text!r}, which is no token")
    specials = {token.content for token in found if token.special}
    byte_fallback = bool(model.get("byte_fallback"))
    has_bytes = byte_fallback or decodes_bytes(data.get("decoder"))
    byte_texts = {text for text in texts if has_bytes and _BYTE_TEXT.fullmatch(text)} - {unknown_text}
    decoding = piece_decoding(data.get("decoder"), byte_texts, [*texts, *(token.content for token in found)])

    def kind_of(text: str) -> int:
        if text == unknown_text:
            return UNKNOWN
        if text in byte_texts:
            return BYTE
        return CONTROL if text in specials else NORMAL

    pieces = PieceModel(
        tuple(texts),
        memoryview(array("f", bytes(4 * len(texts)))),
        bytes(map(kind_of, texts)),
        byte_fallback,
        normalizer,
        unknown_text or "" if decoding == "sentencepiece" else (unknown_text or "").replace(SPACE, " "),
        _merges(model, model["vocab"]),
        "dropped" if unknown_text is None else "fused" if model.get("fuse_unk") else "each",
        decoding=decoding,
    )
    following = max([len(texts), *(token.id + 1 for token in found)])
    added = chosen_tokens(found, special_tokens, model["vocab"], following).values()
    return PieceVocabulary(name, pieces, added)


def _refuse_normalized(token: AddedToken, normalizer: PieceNormalizer) -> None:
    """Refuse an added token that is searched for after spaces were replaced, if that makes a difference."""
    if not token.normalized:
        return
    reason, is_metaspace = "", normalizer.prefix_unless_space  # which replaces spaces after the search
    if normalizer.remove_extra_whitespaces or (normalizer.add_dummy_prefix and not is_metaspace):
        reason = "a normalizer that adds or removes spaces at the edges of a text"
    elif not is_metaspace and normalizer.escape_whitespaces and (" " in token.content or SPACE in token.content):
        reason = "a normalizer that replaces spaces, which the token contains"
    elif not is_metaspace and normalizer.escape_whitespaces and (token.lstrip or token.rstrip):
        reason = "a normalizer that replaces the spaces that lstrip and rstrip take"
    if reason:
        raise InputError(
            f"the {token.kind} token {token.content!r} is searched for in the normalized text, which is not supported"
            f' with {reason}; set its "normalized" to false'
        )


def _texts(ids: Mapping[str, Any]) -> list[str]:
    """Return the text of each token, by id."""
    texts = [""] * len(ids)
    for text, id in ids.items():
        if not is_id(id) or id >= len(texts) or texts[id]:
            raise InputError(
                f"model.vocab gives {text!r} the id {id!r}; the {len(texts):,} tokens must have the ids 0 to"
                f" {len(texts) - 1:,}"
            )
        if not text or any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"the token {id}, {text!r}, is empty or not valid Unicode")
        texts[id] = text
    return texts


def _merges(model: Mapping[str, Any], ids: Mapping[str, int]) -> memoryview:
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise InputError('the model has no list "merges"')
    numbers = array("I")
    for place, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise InputError(f"merge {place}, {merge!r}, is not a pair of tokens")
        try:
            numbers.extend((ids[pair[0]], ids[pair[1]], ids[pair[0] + pair[1]]))
        except KeyError as error:
            raise InputError(f"merge {place}, {pair!r}, needs {error.args[0]!r}, which is no token") from None
    return memoryview(numbers)


def _normalizer(data: Mapping[str, Any], model: Mapping[str, Any]) -> PieceNormalizer:
    """Return how a text is normalized, from "normalizer" and "pre_tokenizer"."""
    given, pre_tokenizer = data.get("normalizer"), data.get("pre_tokenizer")
    is_sequence = isinstance(given, dict) and given.get("type") == "Sequence"
    entries = given.get("normalizers") if isinstance(given, dict) and is_sequence else [] if given is None else [given]
    plain = PieceNormalizer(add_dummy_prefix=False, remove_extra_whitespaces=False)
    if pre_tokenizer in (None, _NO_SPLIT):
        for prefix, remove, escape in product((False, True), repeat=3):
            normalizer = plain._replace(
                add_dummy_prefix=prefix, remove_extra_whitespaces=remove, escape_whitespaces=escape
            )
            if entries == _entries(normalizer) and (escape or pre_tokenizer is None):
                return normalizer
    elif isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Metaspace" and not entries:
        return _metaspace(pre_tokenizer, model, plain)
    raise InputError(
        f"the normalizer {_brief(given)} with the pre_tokenizer {_brief(pre_tokenizer)} is not supported for merges of"
        " characters; supported are Prepend and Replace of the space, or Metaspace. Open the file with the package"
        " tokenizers, or train the model again with one of these"
    )


def _metaspace(entry: Mapping[str, Any], model: Mapping[str, Any], plain: PieceNormalizer) -> PieceNormalizer:
    scheme = entry.get("prepend_scheme", "always" if entry.get("add_prefix_space", True) else "never")
    if entry.get("replacement") != SPACE or scheme not in ("always", "first", "never"):
        raise InputError(f"the pre_tokenizer {_brief(entry)} is not supported")
    if entry.get("split", True):
        merges = model.get("merges", [])
        rights = (merge[1] if isinstance(merge, list) else merge.partition(" ")[2] for merge in merges)
        if SPACE not in model["vocab"] or any(isinstance(right, str) and right.startswith(SPACE) for right in rights):
            raise InputError(
                "the pre_tokenizer Metaspace splits text at spaces that merges cross, which is not supported; set its"
                ' "split" to false if the model was trained so'
            )
    return plain._replace(add_dummy_prefix=scheme != "never", prefix_unless_space=True, prefix_parts=scheme == "always")


def _brief(entry: object) -> str:
    text = json.dumps(entry, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."


def pieces_data(vocabulary: PieceVocabulary) -> dict[str, Any]:
    """Return the parts of a tokenizer.json that describe the pieces and the normalization.

    Raises:
        InputError: When ``tokenizers`` would give other ids.
    """
    model = with_merges(vocabulary)
    normalizer, pre_tokenizer = _written_normalizer(vocabulary, model)
    ids = {piece: id for id, piece in enumerate(model.pieces)}
    if len(ids) < len(model.pieces):
        raise InputError("two pieces have the same text, and tokenizer.json has one id for one text")
    merges = [] if model.merges is None else model.merges.tolist()
    pairs = zip(merges[0::3], merges[1::3], strict=True)
    return {
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "decoder": written_decoder(model.decoding, model.normalizer.add_dummy_prefix),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": model.pieces[model.unknown_id] if model.unknown_id >= 0 else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": model.unknown == "fused",
            "byte_fallback": model.byte_fallback,
            "ignore_merges": False,
            "vocab": ids,
            "merges": [[model.pieces[left], model.pieces[right]] for left, right in pairs],
        },
    }


def added_pieces(vocabulary: PieceVocabulary) -> list[AddedToken]:
    """Return the added tokens of a tokenizer.json: those of the vocabulary, and the user-defined pieces."""
    kinds = enumerate(zip(vocabulary.model.pieces, vocabulary.model.types, strict=True))
    own = [AddedToken(piece, id, special=False) for id, (piece, kind) in kinds if kind == USER_DEFINED]
    return sorted(
        {token.content: token for token in [*own, *vocabulary.added_tokens]}.values(), key=lambda token: token.id
    )


def _difference_from_tokenizers(model: PieceModel) -> str | None:
    """Return what a model does that no tokenizer.json expresses; None if there is nothing."""
    normalizer = model.normalizer
    user_defined = [piece for piece, kind in zip(model.pieces, model.types, strict=True) if kind == USER_DEFINED]
    differs = {
        "replaces characters before it merges (precompiled_charsmap)": bool(normalizer.map),
        "ends words with spaces (treat_whitespace_as_suffix)": normalizer.whitespace_as_suffix,
        "has user-defined pieces, behind which tokenizers would put another space": (
            normalizer.add_dummy_prefix and bool(user_defined)
        ),
        "has user-defined pieces with spaces, which tokenizers would not find": any(
            SPACE in piece or " " in piece for piece in user_defined
        ),
        "removes extra spaces before user-defined pieces (remove_extra_whitespaces)": (
            normalizer.remove_extra_whitespaces and bool(user_defined)
        ),
    }
    return next((what for what, is_so in differs.items() if is_so), None)


def lossless_format(model: PieceModel) -> str:
    """Return a file that expresses a model which another format does not, in the words of a message."""
    return "a tokenizer.json" if _difference_from_tokenizers(model) is None else "a SentencePiece model (.model)"


def _written_normalizer(vocabulary: PieceVocabulary, model: PieceModel) -> tuple[Any, Any]:
    """Return "normalizer" and "pre_tokenizer"."""
    normalizer = model.normalizer
    what = _difference_from_tokenizers(model)
    if what is not None:
        raise InputError(
            f"{vocabulary.name} {what}; tokenizers would give other ids. Write a SentencePiece model (.model)"
        )
    if normalizer.prefix_unless_space:
        scheme = "never" if not normalizer.add_dummy_prefix else "always" if normalizer.prefix_parts else "first"
        return None, {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
    entries = _entries(normalizer)
    return ({"type": "Sequence", "normalizers": entries} if entries else None), None


def _entries(normalizer: PieceNormalizer) -> list[dict[str, Any]]:
    """Return the normalizers of tokenizers that do what SentencePiece does with spaces."""
    entries: list[dict[str, Any]] = []
    space = SPACE if normalizer.escape_whitespaces else " "
    if normalizer.remove_extra_whitespaces:
        removed = ((r"\A +", ""), (f"[ {space}]+\\z", ""), (" {2,}", " "))
        entries += [{"type": "Replace", "pattern": {"Regex": regex}, "content": new} for regex, new in removed]
    if normalizer.add_dummy_prefix:
        entries.append({"type": "Prepend", "prepend": space})
    if normalizer.escape_whitespaces:
        entries.append(_TO_SPACE_SYMBOL)
    return entries

"""The tokenizer of SentencePiece's BPE in a GGUF: ``tokenizer.ggml.model = llama``."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from bpe.errors import InputError
from bpe.formats.gguf_boundaries import boundaries_in, boundary_metadata
from bpe.formats.piece_merges import with_scores
from bpe.formats.pieces_json import lossless_format
from bpe.piece_vocabulary import (
    BYTE,
    CONTROL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    PieceModel,
    PieceNormalizer,
    PieceVocabulary,
    piece_tokens,
)
from bpe.vocabulary import Vocabulary, chosen_tokens

MODEL = "llama"
"""The value of tokenizer.ggml.model."""
_DEFAULT_IDS = {"bos": 1, "eos": 2}  # llama.cpp's, if the file does not give any


def read_pieces(
    metadata: Mapping[str, Any],
    name: str,
    pattern: str | None,
    special_tokens: Mapping[str, int] | Sequence[str] | None,
) -> Vocabulary:
    """Read the vocabulary in the metadata of a GGUF; see `bpe.formats.gguf.vocabulary_of`.

    Raises:
        InputError: When the arrays do not belong together, or `sentencepiece` would refuse the pieces.
    """
    if pattern is not None:
        raise InputError("tokenizer.ggml.model is 'llama', which splits text by no pattern; leave out the pattern")
    tokens = _values(metadata, "tokens", "strings")
    scores = _values(metadata, "scores", "numbers")
    types = _values(metadata, "token_type", "numbers")
    if not len(tokens) == len(scores) == len(types):
        raise InputError(
            f"{len(tokens)} tokens, but {len(scores)} in tokenizer.ggml.scores and {len(types)} in"
            " tokenizer.ggml.token_type"
        )
    for id, kind in enumerate(types):
        if not 1 <= kind <= BYTE:
            raise InputError(f"tokenizer.ggml.token_type gives the token {id}, {tokens[id]!r}, the type {kind}")
    unknown_id = metadata.get("tokenizer.ggml.unknown_token_id")
    if unknown_id is not None:  # Phi-3 has the type for tokens that fill gaps, such as [PAD32011], and not for <unk>
        filled = [UNUSED if kind == UNKNOWN else kind for kind in types]
        types = [UNKNOWN if id == unknown_id else kind for id, kind in enumerate(filled)]
    model = PieceModel(
        tuple(tokens), memoryview(array("f", scores)), bytes(types), BYTE in types, _normalizer(metadata)
    )
    ids = {text: id for id, text in enumerate(tokens)}
    added = chosen_tokens(piece_tokens(model), special_tokens, ids, len(tokens)).values()
    vocabulary = PieceVocabulary(name.removesuffix(".gguf"), model, added)
    if isinstance(special_tokens, Mapping):
        return vocabulary  # the ids in the file are those of other tokens
    return vocabulary.with_boundaries(boundaries_in(_with_defaults(metadata, len(tokens)), tokens, ids, vocabulary))


def _values(metadata: Mapping[str, Any], name: str, expected: str) -> list[Any]:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if isinstance(value, memoryview) and expected == "numbers":
        return value.tolist()
    if not isinstance(value, list) or expected == "numbers":
        raise InputError(f"no array tokenizer.ggml.{name} of {expected}; is this a model without a tokenizer?")
    return value


def _normalizer(metadata: Mapping[str, Any]) -> PieceNormalizer:
    flags = {"add_space_prefix": True, "remove_extra_whitespaces": False}
    for name, default in flags.items():
        value = metadata.get(f"tokenizer.ggml.{name}", default)
        if not isinstance(value, bool):
            raise InputError(f"tokenizer.ggml.{name} is {value!r}, not a bool")
        flags[name] = value
    map = metadata.get("tokenizer.ggml.precompiled_charsmap", b"")
    if not isinstance(map, (bytes, memoryview)):
        raise InputError("tokenizer.ggml.precompiled_charsmap is not an array of bytes")
    return PieceNormalizer(
        map=bytes(map),
        add_dummy_prefix=flags["add_space_prefix"],
        remove_extra_whitespaces=flags["remove_extra_whitespaces"],
    )


def _with_defaults(metadata: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the metadata with what llama.cpp takes for granted: the ids, and that the BOS is put in front."""
    full = dict(metadata)
    for kind, id in _DEFAULT_IDS.items():
        if id < count:
            full.setdefault(f"tokenizer.ggml.{kind}_token_id", id)
    if "tokenizer.ggml.bos_token_id" in full:
        full.setdefault("tokenizer.ggml.add_bos_token", True)
    return full


def piece_metadata(vocabulary: PieceVocabulary, size: int) -> dict[str, Any]:
    """Return the metadata that describes a vocabulary; see `bpe.formats.gguf.vocabulary_metadata`.

    Raises:
        InputError: When llama.cpp would give other ids.
    """
    _refuse_what_differs(vocabulary)
    model = with_scores(vocabulary)
    count = len(model.pieces)
    texts = [*model.pieces, *(f"[PAD{id}]" for id in range(count, size))]
    types = array("i", [*model.types, *[UNUSED] * (size - count)])
    scores = array("f", [*model.scores.tolist(), *[0.0] * (size - count)])
    for token in vocabulary.added_tokens:
        for flag in ("lstrip", "rstrip", "single_word", "normalized"):
            if getattr(token, flag):
                raise InputError(f"the {token.kind} token {token.content!r} has {flag} set, which GGUF cannot express")
        if token.id < count and texts[token.id] != token.content:
            raise InputError(f"the {token.kind} token {token.content!r} and {texts[token.id]!r} have the same id")
        if not token.special and model.normalizer.add_dummy_prefix:
            raise InputError(
                f"the added token {token.content!r} is found in every text, and llama.cpp would put a space behind it;"
                " write a tokenizer.json"
            )
        if token.id >= count:
            texts[token.id] = token.content
        if token.id >= count or not token.special:
            types[token.id] = CONTROL if token.special else USER_DEFINED
    return {
        "tokenizer.ggml.model": MODEL,
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": memoryview(scores),
        "tokenizer.ggml.token_type": memoryview(types),
        "tokenizer.ggml.unknown_token_id": model.unknown_id,
        "tokenizer.ggml.add_space_prefix": model.normalizer.add_dummy_prefix,
        **boundary_metadata(vocabulary, texts),
    }


def _is_metaspace(normalizer: PieceNormalizer) -> bool:
    return normalizer.add_dummy_prefix and normalizer.prefix_unless_space


def _refuse_what_differs(vocabulary: PieceVocabulary) -> None:
    """Refuse what llama.cpp's tokenizer ``llama`` does not do."""
    model, normalizer = vocabulary.model, vocabulary.model.normalizer
    differs = {
        "has no pieces of bytes (byte_fallback), without which it cannot encode every text": not model.byte_fallback,
        "replaces characters before it merges (precompiled_charsmap)": bool(normalizer.map),
        "removes extra spaces (remove_extra_whitespaces)": normalizer.remove_extra_whitespaces,
        "puts a space only in front of words (Metaspace)": _is_metaspace(normalizer),
        "ends words with spaces (treat_whitespace_as_suffix)": normalizer.whitespace_as_suffix,
        "does not write spaces as U+2581 (escape_whitespaces)": not normalizer.escape_whitespaces,
        "has user-defined pieces, behind which llama.cpp would put another space": (
            USER_DEFINED in model.types and normalizer.add_dummy_prefix
        ),
    }
    for what, is_so in differs.items():
        if is_so:
            raise InputError(
                f"{vocabulary.name} {what}; llama.cpp would give other ids. Write {lossless_format(model)}"
            )

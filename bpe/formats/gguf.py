"""The tokenizer in a GGUF, llama.cpp's format; see `bpe.formats.gguf_container` for the file itself."""

from __future__ import annotations

import mmap
import warnings
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from bpe.errors import InputError
from bpe.formats.byte_level import (
    is_pretoken,
    token_text,
    unused_as_ordinary,
    vocabulary_from_texts,
)
from bpe.formats.gguf_boundaries import boundaries_in, boundary_metadata
from bpe.formats.gguf_container import MAGIC, Container, lay_out
from bpe.formats.gguf_pieces import MODEL as PIECES
from bpe.formats.gguf_pieces import piece_metadata, read_pieces
from bpe.formats.gguf_pre import PRE_TOKENIZERS, known, pattern_of, pre_of
from bpe.normalizers import is_only_nfc
from bpe.patterns import find_pattern
from bpe.piece_vocabulary import PieceVocabulary
from bpe.vocabulary import AddedToken, Vocabulary, chosen_tokens

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # the types of tokens
_ADDED = (_CONTROL, _USER_DEFINED)


def matches(content: bytes | mmap.mmap) -> bool:
    """Return whether the content begins a GGUF."""
    return content[: len(MAGIC)] == MAGIC


def read(
    content: bytes | mmap.mmap,
    name: str,
    pattern: str | None,
    special_tokens: Mapping[str, int] | Sequence[str] | None,
) -> Vocabulary:
    """Read the vocabulary in a GGUF.

    Args:
        content: The content of the file.
        name: The name of the file, which names the vocabulary.
        pattern: The split pattern to use instead of the file's.
        special_tokens: The special tokens to use instead of the file's, or names to add to them.

    Raises:
        InputError: When the file is damaged, or as `vocabulary_of` does.
    """
    return vocabulary_of(Container(content).metadata, name, pattern, special_tokens)


def vocabulary_of(
    metadata: Mapping[str, Any],
    name: str,
    pattern: str | None = None,
    special_tokens: Mapping[str, int] | Sequence[str] | None = None,
) -> Vocabulary:
    """Read the vocabulary in the metadata of a GGUF. Control and user-defined tokens are its added tokens.

    The arguments are those of `read`.

    Raises:
        InputError: When there is no vocabulary, or llama.cpp would give other ids.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind == PIECES:
        return read_pieces(metadata, name, pattern, special_tokens)
    if kind is None:
        raise InputError("there is no tokenizer.ggml.model; is this a model without a tokenizer?")
    if kind != "gpt2":
        raise InputError(
            f"tokenizer.ggml.model is {kind!r}; supported are 'gpt2', byte-level BPE, and 'llama', SentencePiece's BPE;"
            " use the model's tokenizer.json, vocab.txt or SentencePiece model"
        )
    pre = metadata.get("tokenizer.ggml.pre")
    chosen = pattern_of(pre) if pattern is None else find_pattern(pattern)
    found_pre = known(pre)
    merges_only = found_pre is None or found_pre.merges_only
    tokens, merges = (_array_of(metadata, key, list) for key in ("tokens", "merges"))
    types = _array_of(metadata, "token_type", memoryview).tolist()
    if len(types) != len(tokens):
        raise InputError(f"{len(tokens)} tokens, but {len(types)} in tokenizer.ggml.token_type")
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if _UNUSED in types:
        ids = {text: id for id, (text, kind) in enumerate(zip(tokens, types, strict=True)) if kind != _UNUSED}
    if len(ids) < len(types) - types.count(_UNUSED):
        raise InputError("two tokens of tokenizer.ggml.tokens are the same")
    found = [AddedToken(tokens[id], id, kind == _CONTROL) for id, kind in enumerate(types) if kind in _ADDED]
    added = chosen_tokens(found, special_tokens, ids, len(tokens)).values()
    # Only a control token can stand in a text that is not split at it.
    unused = unused_as_ordinary([token.content for token in found if not token.special], merges, None)
    controls = [token.content for token in {*found, *added} if token.special]
    unused |= unused_as_ordinary(controls, merges, None if merges_only else chosen)
    ordinary = ids.copy()
    for text in unused:
        ordinary.pop(text, None)
    vocabulary = vocabulary_from_texts(name.removesuffix(".gguf"), chosen, ordinary, added, merges, merges_only, ids)
    if isinstance(special_tokens, Mapping):
        return vocabulary  # the ids in the file are those of other tokens
    return vocabulary.with_boundaries(boundaries_in(metadata, tokens, ids, vocabulary))


def _array_of(metadata: Mapping[str, Any], name: str, kind: type) -> Any:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, kind):
        expected = "strings" if kind is list else "numbers"
        raise InputError(f"no array tokenizer.ggml.{name} of {expected}; is this a model without a tokenizer?")
    return value


def render(vocabulary: Vocabulary) -> bytes:
    """Return the content of a GGUF without tensors, which llama.cpp opens as a vocabulary alone.

    Raises:
        InputError: When llama.cpp would give other ids; see `vocabulary_metadata`.
    """
    metadata = {"general.architecture": "llama", **vocabulary_metadata(vocabulary, vocabulary.n_vocab)}
    return lay_out(metadata, {})[0]


def vocabulary_metadata(vocabulary: Vocabulary, size: int) -> dict[str, Any]:
    """Return the metadata that describes a vocabulary.

    Args:
        vocabulary: The vocabulary.
        size: The number of tokens to list. Ids that the vocabulary does not use are listed as unused.

    Raises:
        InputError: When llama.cpp would give other ids: the vocabulary normalizes text by more than NFC; llama.cpp has
            no pre-tokenizer with this split pattern, or one that treats tokens that no merge leads to differently; or
            an added token has the text of another token, or would be found in other places.
    """
    if isinstance(vocabulary, PieceVocabulary):
        return piece_metadata(vocabulary, size)
    _check_normalizer(vocabulary)
    if vocabulary.characters is not None:
        raise InputError(
            f"{vocabulary.name} {vocabulary.characters.effect}, which llama.cpp does not do; write a tokenizer.json"
        )
    has_unreachable = vocabulary.unreachable_count > 0
    pre = pre_of(vocabulary.pattern, vocabulary.merges_only if has_unreachable else None)
    merges_only = PRE_TOKENIZERS[pre].merges_only
    if has_unreachable and merges_only != vocabulary.merges_only:
        raise InputError(
            f"no merge leads to {vocabulary.unreachable_count} of the tokens; with the pre-tokenizer {pre},"
            f" llama.cpp {'never uses' if merges_only else 'uses'} them, unlike {vocabulary.name}"
        )
    texts = [f"[PAD{id}]" for id in range(size)]
    types = array("i", [_UNUSED]) * size
    for token, id in vocabulary.ranks.items():
        texts[id], types[id] = token_text(token), _NORMAL
    ids = {text: id for id, text in enumerate(texts)}
    _refuse_other_matches(vocabulary.added_tokens)
    whole_in = None if merges_only else vocabulary.pattern
    for added in vocabulary.added_tokens:
        text, id = added.content, added.id
        if ids.get(text, id) != id:
            raise InputError(f"the {added.kind} token {text!r} is also an ordinary token, which GGUF cannot express")
        if types[id] != _UNUSED and texts[id] != text:
            raise InputError(f"the {added.kind} token {text!r} and {texts[id]!r} have the same id, {id}; GGUF has one")
        if added.special and whole_in is not None and text not in ids and is_pretoken(text, whole_in):
            raise InputError(
                f"the special token {text!r} is a word, which llama.cpp would always read as the special token; give"
                " it a text that is not a word"
            )
        texts[id], types[id] = text, _CONTROL if added.special else _USER_DEFINED
    pairs = vocabulary.merges()
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": memoryview(types),
        "tokenizer.ggml.merges": [f"{texts[left]} {texts[right]}" for left, right, _ in pairs],
        **boundary_metadata(vocabulary, texts),
    }


def _check_normalizer(vocabulary: Vocabulary) -> None:
    """Warn that llama.cpp does not apply NFC, and refuse any other normalizer.

    Published GGUFs of Qwen and GPT-NeoX lack the NFC of their tokenizer.json as well. Most text is in NFC, and gets the
    same ids. Any other normalizer changes ordinary text.

    Raises:
        InputError: When the vocabulary has another normalizer, or an added token whose text NFC changes.
    """
    normalizer = vocabulary.core_normalizer
    if normalizer is None:
        return
    if not is_only_nfc(vocabulary.normalizer):
        raise InputError(
            f"{vocabulary.name} normalizes text before it is split, by more than NFC, which llama.cpp does not do;"
            ' write a tokenizer.json, or remove the "normalizer" if your text is normalized already'
        )
    for token in vocabulary.added_tokens:
        content = token.content.encode()
        if token.normalized and normalizer.apply(content) != content:
            raise InputError(
                f"the {token.kind} token {token.content!r} is not in NFC, and llama.cpp would not find it in"
                ' text that is; write its text in NFC, or set its "normalized" to false'
            )
    warnings.warn(
        f"{vocabulary.name} normalizes text to NFC, which llama.cpp does not do; there, text that is not in NFC gets"
        " other ids",
        stacklevel=2,
    )


def _refuse_other_matches(added_tokens: Sequence[AddedToken]) -> None:
    """Refuse added tokens that llama.cpp would find in other places of a text.

    It searches all of the text for the longest token, then what is left for the next, and knows no flags. That gives
    the tokens that a search from left to right gives, if no token ends with the beginning of another.
    """
    contents = sorted(token.content for token in added_tokens)
    firsts = {content[0] for content in contents}
    for token in added_tokens:
        for flag in ("lstrip", "rstrip", "single_word"):
            if getattr(token, flag):
                raise InputError(f"the {token.kind} token {token.content!r} has {flag} set, which GGUF cannot express")
        text = token.content
        for cut in range(1, len(text)):
            if text[cut] not in firsts or set(text) == {text[0]}:  # of runs of a character, both find the longest
                continue
            place = bisect_left(contents, text[cut:])
            if place < len(contents) and contents[place].startswith(text[cut:]) and contents[place] != text[cut:]:
                raise InputError(
                    f"the {token.kind} token {text!r} ends as {contents[place]!r} begins; llama.cpp would find them in"
                    " other places of a text"
                )
    inner = [token for token in added_tokens if not (token.special and token.normalized)]
    for outer in (token for token in added_tokens if token.special or token.normalized):
        for token in inner:
            is_first = token.normalized < outer.normalized or token.special < outer.special
            if is_first and token.content in outer.content:
                raise InputError(
                    f"the {token.kind} token {token.content!r} is a part of {outer.content!r}; llama.cpp would find"
                    " them in other places of a text"
                )

"""GGUF, llama.cpp's format: metadata, tokenizer and tensors in one file that is mapped, not read.

The layout is that of the specification in ggml's docs/gguf.md, versions 2 and 3, little endian. All lengths, counts and
offsets are held against the size of the file before anything is made of them.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bpe.errors import InputError
from bpe.formats.byte_level import byte_characters, check_merges, from_vocabulary
from bpe.formats.gguf_container import MAGIC, Container, lay_out
from bpe.patterns import find_pattern

if TYPE_CHECKING:
    from bpe.tokenizer import Tokenizer


# tokenizer.ggml.pre -> the split pattern, and whether tokens come from merging only, even those that are a whole
# pretoken. Of llama.cpp's names, those that split exactly as a pattern here does.
PRE_TOKENIZERS = {
    "llama-bpe": ("llama3", False),
    "smollm": ("smollm", True),
    "gpt-2": ("gpt2", True),
    "qwen2": ("qwen2", True),
}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # of tokens


# --- the tokenizer ---


def matches(content: bytes | mmap.mmap) -> bool:
    """Whether this is the beginning of a GGUF."""
    return content[: len(MAGIC)] == MAGIC


def read(
    content: bytes | mmap.mmap,
    name: str,
    pattern: str | None,
    special_tokens: Mapping[str, int] | Sequence[str] | None,
) -> Tokenizer:
    """The tokenizer in a file; `pattern` and `special_tokens` take the place of the file's where they are given.

    Raises:
        InputError: a damaged file, or as `tokenizer_of` does.
    """
    return tokenizer_of(Container(content).metadata, name, pattern, special_tokens)


def tokenizer_of(
    metadata: Mapping[str, Any],
    name: str,
    pattern: str | None = None,
    special_tokens: Mapping[str, int] | Sequence[str] | None = None,
) -> Tokenizer:
    """The tokenizer in a file's metadata. Control tokens and user-defined tokens are the special ones.

    Raises:
        InputError: no vocabulary, or one whose ids we could not give exactly.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise InputError(f"tokenizer.ggml.model is {kind!r}; only 'gpt2', byte-level BPE, is read")
    pre_tokenizer = metadata.get("tokenizer.ggml.pre")
    if not isinstance(pre_tokenizer, str) or (pattern is None and pre_tokenizer not in PRE_TOKENIZERS):
        raise InputError(f"tokenizer.ggml.pre is {pre_tokenizer!r}; those read are {', '.join(PRE_TOKENIZERS)}")
    own_pattern, merges_only = PRE_TOKENIZERS.get(pre_tokenizer, ("", True))
    tokens, merges = (_array_of(metadata, key, list) for key in ("tokens", "merges"))
    types = _array_of(metadata, "token_type", memoryview).tolist()
    if len(types) != len(tokens):
        raise InputError(f"{len(tokens)} tokens, but {len(types)} in tokenizer.ggml.token_type")
    vocabulary = {text: id for id, (text, kind) in enumerate(zip(tokens, types, strict=True)) if kind != _UNUSED}
    ordinary = vocabulary.copy()
    specials = {text: ordinary.pop(text) for text, id in vocabulary.items() if types[id] in (_CONTROL, _USER_DEFINED)}
    if len(vocabulary) < len(types) - types.count(_UNUSED):
        raise InputError("two tokens of tokenizer.ggml.tokens are the same")
    if isinstance(special_tokens, Mapping):
        specials = dict(special_tokens)
    elif special_tokens is not None:
        specials = {token: specials[token] for token in special_tokens if token in specials}
    chosen = find_pattern(pattern or own_pattern)
    tokenizer = from_vocabulary(name.removesuffix(".gguf"), chosen, ordinary, specials, merges_only)
    check_merges(tokenizer, merges, vocabulary)
    return tokenizer


def _array_of(metadata: Mapping[str, Any], name: str, kind: type) -> Any:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, kind):
        expected = "texts" if kind is list else "numbers"
        raise InputError(f"no array tokenizer.ggml.{name} of {expected}; is this a model without a tokenizer?")
    return value


def render(tokenizer: Tokenizer) -> bytes:
    """The content of a file without tensors, which llama.cpp opens as a vocabulary alone.

    Raises:
        InputError: a split pattern that no pre-tokenizer of llama.cpp's has.
    """
    metadata = {"general.architecture": "llama", **tokenizer_metadata(tokenizer, tokenizer.n_vocab)}
    return lay_out(metadata, {})[0]


def tokenizer_metadata(tokenizer: Tokenizer, size: int) -> dict[str, Any]:
    """The metadata that says what a tokenizer does, with `size` tokens, of which those it does not have are unused.

    Raises:
        InputError: llama.cpp would give other ids: it has no pre-tokenizer with this split pattern, or one that treats
            tokens which no merge leads to otherwise; or a special token has the text of another token.
    """
    names = {find_pattern(pattern): name for name, (pattern, _) in PRE_TOKENIZERS.items()}
    pre_tokenizer = names.get(tokenizer.pattern)
    if pre_tokenizer is None:
        raise InputError(
            f"llama.cpp has no pre-tokenizer for the pattern {tokenizer.pattern.name or tokenizer.pattern.text!r};"
            f" it has those of {', '.join(filter(None, (pattern.name for pattern in names)))}"
        )
    reachable = 256 - len(tokenizer.unknown_bytes) + tokenizer._core.pair_count
    if reachable < len(tokenizer.mergeable_ranks) and PRE_TOKENIZERS[pre_tokenizer][1] != tokenizer.merges_only:
        raise InputError(
            f"merging does not lead to {len(tokenizer.mergeable_ranks) - reachable} of the tokens, which llama.cpp"
            f" {'leaves out' if PRE_TOKENIZERS[pre_tokenizer][1] else 'takes'} with it, unlike {tokenizer.name}"
        )
    characters = byte_characters()
    texts = [f"[PAD{id}]" for id in range(size)]
    types = array("i", [_UNUSED]) * size
    for token, id in tokenizer.mergeable_ranks.items():
        texts[id], types[id] = token.decode("latin-1").translate(characters), _NORMAL
    ordinary = set(texts)
    for text, id in tokenizer.special_tokens.items():
        if text in ordinary:
            raise InputError(f"the special token {text!r} is an ordinary token, too, which GGUF cannot express")
        texts[id], types[id] = text, _CONTROL
    pairs = tokenizer._core.pairs().reshape(-1, 3).tolist()
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre_tokenizer,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": memoryview(types),
        "tokenizer.ggml.merges": [f"{texts[left]} {texts[right]}" for left, right, _ in pairs],
    }


# --- the layout ---

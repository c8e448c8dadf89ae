"""SentencePiece's format: a protobuf with the pieces, their scores, and how a text is normalized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bpe.errors import InputError
from bpe.subwords import sentencepiece_encoder
from bpe.vocabulary import Vocabulary


def matches(content: bytes) -> bool:
    """Return whether the content begins a message whose first field is a piece with a text."""
    return content[:1] == b"\n" and b"\n" in content[2:4]


def read(
    content: bytes, name: str, pattern: str | None, special_tokens: Mapping[str, int] | Sequence[str] | None
) -> Vocabulary:
    """Read a SentencePiece model.

    Args:
        content: The content of the file.
        name: The name of the file, which names the vocabulary.
        pattern: None: the format has no split pattern.
        special_tokens: The special tokens to use instead of the file's, or names to add to them.

    Raises:
        InputError: When the model is damaged, of an unknown kind, or a pattern is given.
    """
    if pattern is not None:
        raise InputError("a SentencePiece model has no split pattern; leave out the pattern")
    kind = sentencepiece_encoder.MODEL_TYPES[sentencepiece_encoder.model_type(content)]
    if kind == "bpe":
        raise InputError("SentencePiece models of BPE are not supported yet; use the model's tokenizer.json")
    return sentencepiece_encoder.read(content, name, special_tokens)


def render(vocabulary: Vocabulary) -> bytes:
    """Return the content of a .model file.

    Raises:
        InputError: When the vocabulary is not a SentencePiece model, or has special tokens that were added to it.
    """
    return sentencepiece_encoder.render(vocabulary)

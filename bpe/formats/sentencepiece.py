"""SentencePiece's format: a protobuf with the pieces, their scores, and how a text is normalized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bpe.errors import InputError
from bpe.formats import sentencepiece_bpe
from bpe.piece_vocabulary import PieceVocabulary
from bpe.subwords import sentencepiece_encoder
from bpe.vocabulary import Vocabulary


def matches(content: bytes) -> bool:
    """Return whether the content begins a list of pieces."""
    first = content[:16]
    if not first.strip():
        return False  # blank lines
    for at in range(1, min(6, len(first))):
        if first[at] < 0x80:  # the last byte of the first piece's length
            return first[0] == 0x0A and first[at + 1 : at + 2] in (b"\x0a", b"\x15", b"\x18", b"")
    return False


def read(
    content: bytes, name: str, pattern: str | None, special_tokens: Mapping[str, int] | Sequence[str] | None
) -> Vocabulary:
    """Read a SentencePiece model: BPE with the core, any other kind with ``sentencepiece``.

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
        return sentencepiece_bpe.read(content, name, special_tokens)
    return sentencepiece_encoder.read(content, name, special_tokens)


def render(vocabulary: Vocabulary) -> bytes:
    """Return the content of a .model file.

    Raises:
        InputError: When no SentencePiece model gives the same ids.
    """
    if isinstance(vocabulary, PieceVocabulary) or vocabulary.library is None:
        return sentencepiece_bpe.render(vocabulary)
    return sentencepiece_encoder.render(vocabulary)

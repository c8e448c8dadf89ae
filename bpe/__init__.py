"""Byte-level BPE: train a vocabulary, encode and decode with it, exactly as tiktoken does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bpe.errors import InputError
from bpe.streaming import StreamDecoder, StreamEncoder
from bpe.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bpe.training.trainer import train, train_from_counts, train_from_iterator

__all__ = [
    "InputError",
    "StreamDecoder",
    "StreamEncoder",
    "Tokenizer",
    "train",
    "train_from_counts",
    "train_from_iterator",
]
__version__ = "0.1.0"

_TRAINING = {"train", "train_from_counts", "train_from_iterator"}


def __getattr__(name: str) -> Any:
    """Import training when it is first used: it takes longer to import than all the rest, and few programs need it."""
    if name not in _TRAINING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bpe.training import trainer

    return getattr(trainer, name)

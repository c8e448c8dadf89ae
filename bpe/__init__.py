"""Byte-level BPE: train a vocabulary, encode and decode with it, exactly as tiktoken does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bpe.errors import InputError
from bpe.streaming import StreamDecoder, StreamEncoder
from bpe.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bpe.training.trainer import train

__all__ = ["InputError", "StreamDecoder", "StreamEncoder", "Tokenizer", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`train` is imported when it is first asked for: it takes longer than all the rest, and few need it."""
    if name != "train":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bpe.training.trainer import train

    return train

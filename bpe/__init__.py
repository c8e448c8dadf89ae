"""Byte-level BPE: train a vocabulary, encode and decode with it, exactly as tiktoken does."""

from __future__ import annotations

from .errors import InputError
from .streaming import StreamDecoder, StreamEncoder
from .tokenizer import Tokenizer
from .trainer import train

__all__ = ["InputError", "StreamDecoder", "StreamEncoder", "Tokenizer", "train"]
__version__ = "0.1.0"

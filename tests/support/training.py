"""Training on a mix of files and documents in memory, which no public function accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bpe import Tokenizer
from bpe.training.settings import TrainSettings
from bpe.training.trainer import train_sources


def train_on(
    sources: Sequence[Any],
    vocab_size: int,
    pattern: str | None = None,
    special_tokens: Sequence[str] | None = None,
    **options: Any,
) -> Tokenizer:
    """Train on any sources that `bpe.corpus` reads, each with its own weight, and return the tokenizer."""
    settings = TrainSettings(vocab_size=vocab_size, pattern=pattern, special_tokens=special_tokens, **options)
    return train_sources(sources, settings)

"""Training with other libraries, the reference for tests of training."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, trainers


def train_with_tokenizers(
    files: list[str], vocab_size: int, pattern: str, min_frequency: int = 0
) -> tokenizers.Tokenizer:
    """Train Hugging Face's BPE trainer on files, with a split pattern given as a regular expression."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([Path(file).read_bytes().decode() for file in files], trainer)
    return tokenizer

"""A tokenizer of bytes and one merge, and log-probabilities in float64, for tests of evaluation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bpe import Tokenizer
from model import Transformer
from support.reference_model import reference_logits
from support.references import BYTE_RANKS

LETTERS_SPECIAL = {"<|begin_of_text|>": 257, "<|end_of_text|>": 258}


def letters_tokenizer(special: dict[str, int]) -> Tokenizer:
    """Return a tokenizer whose tokens are the bytes and "th" (id 256), with the given special tokens."""
    return Tokenizer("letters", pat_str="llama3", mergeable_ranks={**BYTE_RANKS, b"th": 256}, special_tokens=special)


def log_probabilities(model: Transformer, ids: list[int]) -> npt.NDArray[np.float64]:
    """Return the log-probabilities after each token, computed in float64 with plain loops, `[ids, vocabulary]`."""
    logits = reference_logits(model, ids)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def places_before(target: int, window: int, stride: int, length: int) -> int:
    """Return the number of tokens of context of a target, by the definition of windows."""
    end = window
    while end < target:
        end += stride
    return target - max(0, min(end, length - 1) - window)

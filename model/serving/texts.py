"""What the scheduler takes and gives: requests for texts, their tokens, and how it fares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from model.generation.sampling import Sampling
from model.serving.choosing import Grammar

Finish: TypeAlias = Literal["end", "length", "error"]


@dataclass(frozen=True)
class TextRequest:
    """Texts to generate from one prompt."""

    ids: Sequence[int]
    """The ids of the prompt."""
    max_tokens: int
    """The largest number of tokens to generate in each text. The end of the context may come first."""
    sampling: Sampling = field(default_factory=Sampling)
    end_ids: frozenset[int] = frozenset()
    """Tokens that end a text. They are delivered, with finish="end"."""
    logprobs: int | None = None
    """The number of likeliest tokens that are delivered with each token; None for no log-probabilities."""
    grammar: Grammar | None = None
    """What each text may be; None for any text."""
    n: int = 1
    """The number of texts. The prompt is read once; text i draws with the seed `sampling.seed` + i."""


@dataclass(frozen=True)
class Chosen:
    """A token of a text, the end of a text, or both."""

    index: int
    """The text, from 0 to n - 1."""
    id: int | None
    """The token; None where a text ends without a further token."""
    logprob: float | None = None
    """The log-probability of the token in nats, as in `GeneratedToken`; None if not requested."""
    top: list[tuple[int, float]] = field(default_factory=list)
    """The likeliest ids with their log-probabilities, as many as requested."""
    finish: Finish | None = None
    """Why the text ends: "end" (an id of `end_ids`, or the grammar allows no further token), "length" (max_tokens, the
    context, or the scheduler stopped), or "error"; None if it continues."""
    error: str | None = None
    """What went wrong, for finish="error"."""
    is_callers_fault: bool = False
    """Whether the error is due to the request (a grammar or a bias that allows no token), not to the server."""


class Busy(Exception):
    """Too many texts are waiting, or the scheduler is stopping.

    Args:
        message: What is too much.
        retry_after: Estimated seconds until there is room, at least 1.
        is_stopping: Whether the scheduler is stopping.
    """

    def __init__(self, message: str, retry_after: int, is_stopping: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.is_stopping = is_stopping


@dataclass
class Statistics:
    """Counters, from the start of the scheduler, and gauges."""

    running: int = 0
    """Texts that are being read or generated (gauge)."""
    waiting: int = 0
    """Texts that have not started (gauge)."""
    kept: int = 0
    """Ended texts whose keys and values are in memory (gauge)."""
    kv_bytes: int = 0
    """Bytes of keys and values that have memory (gauge)."""
    kv_limit: int = 0
    """Largest number of bytes of keys and values."""
    prompt_tokens: int = 0
    """Tokens of the prompts of texts that started: those read and those reused."""
    read_tokens: int = 0
    """Tokens of prompts that were read."""
    reused_tokens: int = 0
    """Tokens of prompts that were in memory."""
    generated_tokens: int = 0
    """Tokens that were chosen."""
    requests: int = 0
    """Requests that were accepted."""
    refused: int = 0
    """Requests that were refused with `Busy`."""
    ended: int = 0
    """Texts that ended with an end token or a complete grammar."""
    cut: int = 0
    """Texts that ended for want of room, or since the scheduler stopped."""
    failed: int = 0
    """Texts that ended with an error."""
    cancelled: int = 0
    """Texts that were cancelled."""
    steps: int = 0
    """Calls of the model."""
    step_tokens: int = 0
    """Tokens in all steps, of prompts and of texts."""
    model_seconds: float = 0.0
    """Seconds in the model."""
    choose_seconds: float = 0.0
    """Seconds spent choosing tokens."""
    deliver_seconds: float = 0.0
    """Seconds in the `deliver` functions."""

"""Sampling: how the next token is chosen from logits. In NumPy, for models whose logits are arrays.

`model.generation.tensor_sampling` does the same with tensors. Equal logits and equal draws choose equal tokens, except
where float32 rounding or the order of tied tokens decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from bpe.arguments import checked
from bpe.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]

_LARGEST = float(np.finfo(np.float32).max)
ROUNDING = 1e-5  # sums of probabilities in float32 that differ by less may be equal


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling`, which the functions that generate text take as keyword arguments."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[int, float]
    seed: int | None


@checked
@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The settings apply in the order in which they are listed.

    Args:
        logit_bias: Added to the logits of these ids; minus infinity bans a token.
        repetition_penalty: For tokens that occur in the prompt or the answer, positive logits are divided by it and
            negative logits are multiplied by it (Keskar et al. 2019, arXiv:1909.05858); 1 has no effect.
        frequency_penalty: Subtracted from the logit of a token once for each time that it occurs in the answer; 0 has
            no effect.
        presence_penalty: Subtracted from the logit of a token once if it occurs in the answer; 0 has no effect.
        temperature: 0 always chooses the likeliest token, and the settings below have no effect; 1 draws from the
            model's own distribution.
        top_k: Keep the k likeliest tokens, and those that tie with the last of them; None keeps all.
        top_p: Of these, keep the smallest set of likeliest tokens whose probabilities sum to at least p (Holtzman et
            al. 2019, arXiv:1904.09751); None keeps all.
        min_p: Keep the tokens at least p times as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082).
        seed: The same seed draws the same tokens on the same machine; None draws a new seed.

    Raises:
        InputError: When a setting is out of range; the message names it.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = 0.95
    min_p: float | None = None
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(
                f"temperature is {self.temperature}; it must be 0 (always the likeliest token) or a positive number"
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}; it must be at least 1, or None to keep all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise InputError(f"min_p is {self.min_p}; it must be between 0 and 1")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise InputError(f"repetition_penalty is {self.repetition_penalty}; it must be a positive number")
        if not math.isfinite(self.frequency_penalty):
            raise InputError(f"frequency_penalty is {self.frequency_penalty}; it must be a finite number")
        if not math.isfinite(self.presence_penalty):
            raise InputError(f"presence_penalty is {self.presence_penalty}; it must be a finite number")
        for id, bias in self.logit_bias.items():
            if not bias <= _LARGEST:
                raise InputError(
                    f"logit_bias of {id} is {bias}; it must be a number, or minus infinity to ban the token"
                )


class Penalties:
    """The bias and the penalties of a `Sampling`, applied to the logits of several sequences."""

    def __init__(self, sampling: Sampling, prompts: list[list[int]], vocabulary: int) -> None:
        """Start with the prompts of the sequences.

        Args:
            sampling: The settings.
            prompts: The ids of the prompt of each sequence; ids without a logit are ignored.
            vocabulary: The number of logits of a sequence.
        """
        self._sampling = sampling
        self._biased = np.array([*sampling.logit_bias], np.int64)
        self._bias = np.array([*sampling.logit_bias.values()], np.float32)
        shape = (len(prompts), vocabulary)
        self._said: npt.NDArray[np.bool_] | None = None  # [batch, vocabulary]: whether prompt or answer have the token
        if sampling.repetition_penalty != 1:
            self._said = np.zeros(shape, bool)
            for said, prompt in zip(self._said, prompts, strict=True):
                ids = np.array(prompt, np.int64)
                said[ids[ids < vocabulary]] = True
        counted = sampling.frequency_penalty or sampling.presence_penalty
        self._counts = np.zeros(shape, np.float32) if counted else None  # in the answer

    def apply(self, logits: Floats) -> Floats:
        """Return the changed logits, [batch, vocabulary]; the given ones are unchanged."""
        if len(self._biased):
            logits = logits.copy()
            logits[:, self._biased] += self._bias
        if self._said is not None:
            penalty = np.float32(self._sampling.repetition_penalty)
            with np.errstate(over="ignore"):
                penalized = np.where(logits > 0, logits / penalty, logits * penalty)
            logits = np.where(self._said, penalized, logits)
        if self._counts is not None:
            logits = logits - np.float32(self._sampling.frequency_penalty) * self._counts
            if self._sampling.presence_penalty:
                logits -= np.float32(self._sampling.presence_penalty) * (self._counts > 0)
        return logits

    def update(self, ids: Sequence[int]) -> None:
        """Record the next token of each sequence."""
        rows = np.arange(len(ids))
        if self._said is not None:
            self._said[rows, ids] = True
        if self._counts is not None:
            self._counts[rows, ids] += 1

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these sequences."""
        self._said = None if self._said is None else self._said[[*rows]]
        self._counts = None if self._counts is None else self._counts[[*rows]]


def not_finite(largest: Sequence[float]) -> InputError:
    """Return the error for sequences of which a largest logit is not finite."""
    return InputError(
        f"the largest logit is {[*largest]}, so no token can be drawn; the weights are damaged, or "
        "overflowed in a 16-bit dtype, or logit_bias bans all tokens"
    )


def sample(logits: Floats, sampling: Sampling, draws: Sequence[float]) -> list[int]:
    """Choose the next token of each sequence.

    Args:
        logits: [batch, vocabulary]; minus infinity bans a token.
        sampling: The settings.
        draws: [batch], uniform in [0, 1): the point of the cumulative distribution at which to take the token.

    Returns:
        The ids, [batch].

    Raises:
        InputError: When the largest logit of a sequence is not finite.
    """
    greedy: list[int] = logits.argmax(-1).tolist()  # the first NaN, if there is any
    likeliest = [float(row[id]) for row, id in zip(logits, greedy, strict=True)]
    if not all(map(math.isfinite, likeliest)):
        raise not_finite(likeliest)
    if sampling.temperature == 0:
        return greedy
    chosen = []
    for row, highest, draw in zip(logits, likeliest, draws, strict=True):
        probabilities, ids = candidates(row, sampling, highest)
        cumulative = probabilities.cumsum()
        # A draw is below 1, so the product stays below the total after rounding and falls on a token whose probability
        # is not 0.
        chosen.append(int(ids[cumulative.searchsorted(draw * cumulative[-1], "right")]))
    return chosen


def candidates(logits: Floats, sampling: Sampling, highest: float | None = None) -> tuple[npt.NDArray[np.float64], Ids]:
    """Return the candidates for the next token and their probabilities after temperature, top_k, top_p and min_p.

    The candidates are those of transformers' logits warpers. Where tokens tie, they are those of a stable sort.

    Args:
        logits: [vocabulary].
        sampling: The settings; the temperature is above 0.
        highest: The largest of the logits, if the caller knows it.

    Returns:
        Probabilities, float64 [n], and ids, int64 [n], with n at most vocabulary. Tokens that were not kept are missing
        or have probability 0. Probabilities sum to 1. With top_k or top_p, the likeliest token is the first.
    """
    shifted = _shifted(logits, sampling.temperature, float(logits.max()) if highest is None else highest)
    few = sampling.top_k if sampling.top_k is not None and sampling.top_k < len(shifted) else None
    nucleus = sampling.top_p if sampling.top_p is not None and sampling.top_p < 1 else None
    if few is not None:
        ids = np.flatnonzero(shifted >= np.partition(shifted, len(shifted) - few)[len(shifted) - few])
        weights = np.exp(shifted[ids].astype(np.float64))
        total = float(weights.sum())
    elif nucleus is not None:
        ids, weights, total = _nearly_likeliest(shifted, nucleus)
    else:
        ids = np.flatnonzero(shifted >= _least(sampling.min_p))
        weights = np.exp(shifted[ids].astype(np.float64))
        total = float(weights.sum())
    if few is not None or nucleus is not None:
        order = (-weights[::-1]).argsort(kind="stable")  # of tied tokens, the last first, as transformers keeps them
        ids, weights = ids[::-1][order], weights[::-1][order]
    kept = np.ones(len(weights), bool)
    is_doubtful = False
    if nucleus is not None:
        probabilities = weights / total
        before = probabilities.cumsum() - probabilities
        kept = before < nucleus
        is_doubtful = bool(((np.abs(before - nucleus) <= ROUNDING) & (weights > 0)).any())
    if sampling.min_p is not None:
        is_doubtful |= bool(((np.abs(weights - sampling.min_p) <= ROUNDING * sampling.min_p) & (weights > 0)).any())
        kept &= weights >= sampling.min_p
    if is_doubtful:
        kept = np.isin(ids, np.flatnonzero(_warped(shifted, few, nucleus, sampling.min_p) > -np.inf))
    weights = np.where(kept, weights, 0)
    return weights / weights.sum(), ids


def _least(min_p: float | None) -> float:
    """Return a logit that the tokens that min_p keeps exceed, less the maximum."""
    return math.log(min_p) - 1e-3 if min_p else -math.inf


def _shifted(logits: Floats, temperature: float, highest: float) -> Floats:
    """Return the logits divided by the temperature, less their maximum."""
    with np.errstate(all="ignore"):
        scaled = logits / np.float32(temperature)
        top = np.float32(highest) / np.float32(temperature)
        if np.isfinite(top):
            shifted: Floats = scaled - top
            return shifted
        # A temperature such as 1e-38 overflows.
        wide: Floats = ((logits.astype(np.float64) - highest) / temperature).astype(np.float32)
        return wide


def _nearly_likeliest(shifted: Floats, enough: float) -> tuple[Ids, npt.NDArray[np.float64], float]:
    """Return the likeliest tokens, in the order of their ids, whose probabilities sum to more than `enough`.

    Returns:
        Their ids, their weights (the exponentials of `shifted`), and the sum of the weights of all tokens.
    """
    total = float(np.exp(shifted).sum(dtype=np.float64))
    # A few tokens are nearly always enough. To compare 49,152 numbers takes 0.01 ms, to sort them 3 ms.
    for least in (-4.0, -8.0, -16.0):
        ids = np.flatnonzero(shifted > least)
        weights = np.exp(shifted[ids].astype(np.float64))
        if weights.sum() > (enough + ROUNDING) * total:
            return ids, weights, total
    return np.arange(len(shifted)), np.exp(shifted.astype(np.float64)), total


def _warped(shifted: Floats, few: int | None, nucleus: float | None, min_p: float | None) -> Floats:
    """Set the scaled logits [vocabulary] of tokens that are not kept to -inf, by transformers' steps in float32.

    The steps are those of TopKLogitsWarper, TopPLogitsWarper and MinPLogitsWarper.
    """
    scaled: Floats = shifted.copy()
    if few is not None:
        scaled[scaled < np.partition(scaled, len(scaled) - few)[len(scaled) - few]] = -np.inf
    if nucleus is not None:
        order = scaled.argsort(kind="stable")
        cumulative = _softmax(scaled[order]).cumsum(dtype=np.float64).astype(np.float32)
        dropped = cumulative <= np.float32(1 - nucleus)
        dropped[-1] = False
        scaled[order[dropped]] = -np.inf
    if min_p is not None:
        probabilities = _softmax(scaled)
        scaled[probabilities < np.float32(min_p) * probabilities.max()] = -np.inf
    return scaled


def _softmax(scaled: Floats) -> Floats:
    weights: Floats = np.exp(scaled - scaled.max())
    weights /= weights.sum()
    return weights


def log_softmax(logits: Floats) -> Floats:
    """Return the log-probabilities of logits, [..., vocabulary]."""
    shifted = logits - logits.max(-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return result


def top(numbers: Floats, count: int) -> list[tuple[int, float]]:
    """Return the ids and the values of the largest numbers, in falling order."""
    if count == 0:
        return []
    ids = np.argpartition(numbers, len(numbers) - count)[len(numbers) - count :]
    ids = ids[(-numbers[ids]).argsort(kind="stable")]
    return [*zip(ids.tolist(), numbers[ids].tolist(), strict=True)]

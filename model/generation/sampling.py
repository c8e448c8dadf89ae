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
_BLOCK = 256  # weights that are summed at a time


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


class _Occurrences:
    """The tokens that occur in a text, and how often each does."""

    def __init__(self, ids: Sequence[int] = ()) -> None:
        self._places: dict[int, int] = {}
        self._ids: Ids = np.empty(64, np.int64)
        self._counts: Floats = np.zeros(64, np.float32)
        for id in ids:
            self.add(id)

    def add(self, id: int) -> None:
        place = self._places.setdefault(id, len(self._places))
        if place == len(self._ids):
            self._ids = np.concatenate((self._ids, np.empty_like(self._ids)))
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
        self._ids[place] = id
        self._counts[place] += 1

    @property
    def ids(self) -> Ids:
        """The tokens, each once."""
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> Floats:
        """How often each of `ids` occurs."""
        return self._counts[: len(self._places)]


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
        self._said: list[_Occurrences] | None = None  # in prompt and answer of each sequence
        if sampling.repetition_penalty != 1:
            self._said = [_Occurrences([id for id in prompt if id < vocabulary]) for prompt in prompts]
        counted = sampling.frequency_penalty or sampling.presence_penalty
        self._counts = [_Occurrences() for _ in prompts] if counted else None  # in the answer of each sequence

    def apply(self, logits: Floats) -> Floats:
        """Return the changed logits, [batch, vocabulary]; the given ones are unchanged.

        Only the logits of tokens that occur are computed: to change all 49,152 takes ten times as long.
        """
        if len(self._biased) or self._said or self._counts:
            logits = logits.copy()
        if len(self._biased):
            logits[:, self._biased] += self._bias
        if self._said is not None:
            penalty = np.float32(self._sampling.repetition_penalty)
            for row, said in zip(logits, self._said, strict=True):
                old = row[said.ids]
                with np.errstate(over="ignore"):
                    row[said.ids] = np.where(old > 0, old / penalty, old * penalty)
        if self._counts is not None:
            frequency = np.float32(self._sampling.frequency_penalty)
            presence = np.float32(self._sampling.presence_penalty)
            for row, answer in zip(logits, self._counts, strict=True):
                row[answer.ids] = row[answer.ids] - frequency * answer.counts - presence
        return logits

    def update(self, ids: Sequence[int]) -> None:
        """Record the next token of each sequence."""
        for occurrences in (self._said, self._counts):
            for text, id in zip(occurrences or (), ids, strict=bool(occurrences)):
                text.add(id)

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these sequences."""
        self._said = None if self._said is None else [self._said[row] for row in rows]
        self._counts = None if self._counts is None else [self._counts[row] for row in rows]


def restricted(logits: Floats, allowed: npt.NDArray[np.bool_]) -> Floats:
    """Return logits with -inf for the tokens that are not allowed; the given ones are unchanged.

    Args:
        logits: [..., vocabulary].
        allowed: The same shape.
    """
    return restricted_by_bits(logits, np.packbits(allowed, axis=-1, bitorder="little"))


_LIMITS = np.where(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), np.inf, -np.inf)
_LIMITS = _LIMITS.astype(np.float32)  # [256, 8]: for each bit of a byte, the largest value that a logit keeps


def restricted_by_bits(logits: Floats, bits: npt.NDArray[np.uint8]) -> Floats:
    """Return logits with -inf for the tokens whose bit is 0; the given ones are unchanged.

    Args:
        logits: [..., vocabulary].
        bits: [..., bytes], at least a bit for each token; the first token's is the lowest of the first byte.
    """
    # A table and a minimum have no branches: 0.012 ms for 49,152 logits and 0.030 ms for 128,256, whatever the mask.
    # np.where takes 0.02 to 0.2 and 0.05 to 0.6 ms, most where allowed and other tokens alternate.
    limits: Floats = _LIMITS.take(bits, axis=0, mode="clip").reshape(*bits.shape[:-1], -1)[..., : logits.shape[-1]]
    return np.minimum(logits, limits, out=limits)


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
    return [_draw(row, sampling, highest, draw) for row, highest, draw in zip(logits, likeliest, draws, strict=True)]


def _draw(logits: Floats, sampling: Sampling, highest: float, draw: float) -> int:
    """Return the candidate at a point of the cumulative distribution, without listing all candidates where possible."""
    if sampling.top_k is None and (sampling.top_p is None or sampling.top_p == 1) and not sampling.min_p:
        quick = _draw_of_all(_shifted(logits, sampling.temperature, highest), draw)
        if quick is not None:
            return quick
    if sampling.top_k is None and sampling.top_p is not None and sampling.top_p < 1 and sampling.min_p is None:
        quick = _draw_of_nucleus(_shifted(logits, sampling.temperature, highest), sampling.top_p, draw)
        if quick is not None:
            return quick
    probabilities, ids = candidates(logits, sampling, highest)
    cumulative = probabilities.cumsum()
    # A draw is below 1, so the product stays below the total after rounding and falls on a token whose probability is
    # not 0.
    return int(ids[cumulative.searchsorted(draw * cumulative[-1], "right")])


def _draw_of_all(shifted: Floats, draw: float) -> int | None:
    """Return the token at a point of the cumulative distribution of all tokens, if rounding cannot change it.

    Sums in float32 that are off by less than `ROUNDING` find the token in a tenth of the time of sums in float64, and
    nearly always tell that no other token is near enough to the point.
    """
    blocks = -(-len(shifted) // _BLOCK)
    weights = np.zeros(blocks * _BLOCK, np.float32)
    np.exp(shifted, out=weights[: len(shifted)])
    sums = weights.reshape(blocks, _BLOCK).sum(-1).cumsum(dtype=np.float64)
    total = float(sums[-1])
    point, near = draw * total, ROUNDING * total
    block = int(sums.searchsorted(point, "right"))
    if block == blocks:
        return None
    start = float(sums[block - 1]) if block else 0.0
    inside = weights[block * _BLOCK : (block + 1) * _BLOCK].cumsum(dtype=np.float64) + start
    place = int(inside.searchsorted(point, "right"))
    if place == _BLOCK:
        return None
    before = float(inside[place - 1]) if place else start
    is_safe = (before + near < point or (before == 0 and not block and not place)) and point + near < inside[place]
    return block * _BLOCK + place if is_safe else None


def _draw_of_nucleus(shifted: Floats, enough: float, draw: float) -> int | None:
    """Return the token at a point of the cumulative distribution of a nucleus, if rounding cannot change it.

    The weights are sorted without their ids, which takes a tenth of the time.
    """
    ids, weights, total = _nearly_likeliest(shifted, enough)
    falling = np.sort(weights)[::-1]
    cumulative = falling.cumsum()
    before = (cumulative - falling) / total
    # Rounding may decide where the nucleus ends, but hardly ever does the token depend on it.
    fewest = max(1, int(before.searchsorted(enough - ROUNDING)))
    most = max(1, int(before.searchsorted(enough + ROUNDING, "right")))
    place = int(cumulative[:fewest].searchsorted(draw * cumulative[fewest - 1], "right"))
    if most > fewest and place != int(cumulative[:most].searchsorted(draw * cumulative[most - 1], "right")):
        return None
    tied = np.flatnonzero(weights == falling[place])  # of tied tokens, the last comes first
    return int(ids[tied[-1 - (place - np.count_nonzero(weights > falling[place]))]])


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
        order = _ascending(shifted[ids])[::-1]  # of tied tokens, the last first, as transformers keeps them
        ids, weights = ids[order], weights[order]
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
        kept = (_warped(shifted, few, nucleus, sampling.min_p) > -np.inf)[ids]
    weights = np.where(kept, weights, 0)
    return weights / weights.sum(), ids


def _ascending(numbers: Floats) -> Ids:
    """Return the places of numbers in rising order, as a stable sort does.

    The bits of a number and its place are sorted as one integer: 49,152 take 0.3 ms, a stable sort of floats 3 ms.
    """
    bits = (numbers + np.float32(0)).view(np.int32)  # no negative zero, which would be below zero
    bits = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)  # rising with the number
    keys = (bits.astype(np.int64) << 32) | np.arange(len(bits))
    keys.sort()
    places: Ids = keys & 0xFFFFFFFF
    return places


def _least(min_p: float | None) -> float:
    """Return a logit that the tokens that min_p keeps exceed, less the maximum."""
    return math.log(min_p) - 1e-3 if min_p else -math.inf


def _shifted(logits: Floats, temperature: float, highest: float) -> Floats:
    """Return the logits divided by the temperature, less their maximum."""
    with np.errstate(all="ignore"):
        scaled = logits if temperature == 1 else logits / np.float32(temperature)
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
    total = float(np.exp(shifted).sum())
    # A few tokens are nearly always enough. To compare 49,152 numbers takes 0.01 ms, to sort them 3 ms.
    for least in (-4.0, -8.0, -10.0, -12.0, -16.0):
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
        order = _ascending(scaled)
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

"""Sampling: how the next token is chosen from logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional

from bpe.arguments import checked
from bpe.errors import InputError

_LARGEST = torch.finfo(torch.float32).max
_ROUNDING = 1e-5  # sums of probabilities in float32 that differ by less may be equal


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling`, which the functions that generate text take as keyword arguments."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float
    frequency_penalty: float
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
        for id, bias in self.logit_bias.items():
            if not bias <= _LARGEST:
                raise InputError(
                    f"logit_bias of {id} is {bias}; it must be a number, or minus infinity to ban the token"
                )


class Penalties:
    """The bias and the penalties of a `Sampling`, applied to the logits of several sequences."""

    def __init__(
        self, sampling: Sampling, prompts: list[list[int]], vocabulary: int, device: torch.device | str
    ) -> None:
        """Start with the prompts of the sequences.

        Args:
            sampling: The settings.
            prompts: The ids of the prompt of each sequence; ids without a logit are ignored.
            vocabulary: The number of logits of a sequence.
            device: The device of the logits.
        """
        self._sampling = sampling
        self._biased = torch.tensor(list(sampling.logit_bias), dtype=torch.long, device=device)
        self._bias = torch.tensor(list(sampling.logit_bias.values()), device=device)
        shape = (len(prompts), vocabulary)
        self._said: Tensor | None = None  # [batch, vocabulary]: whether prompt or answer contain the token
        if sampling.repetition_penalty != 1:
            self._said = torch.zeros(shape, dtype=torch.bool, device=device)
            for said, prompt in zip(self._said, prompts, strict=True):
                ids = torch.tensor(prompt, dtype=torch.long, device=device)
                said[ids[ids < vocabulary]] = True
        self._counts = torch.zeros(shape, device=device) if sampling.frequency_penalty else None  # in the answer

    def apply(self, logits: Tensor) -> Tensor:
        """Return the changed logits [batch, vocabulary], in float32 if anything changes."""
        if len(self._biased):
            logits = logits.float().index_add(-1, self._biased, self._bias.expand(len(logits), -1))
        if self._said is not None:
            logits = logits.float()
            penalty = self._sampling.repetition_penalty
            penalized = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(self._said, penalized, logits)
        if self._counts is not None:
            logits = logits.float() - self._sampling.frequency_penalty * self._counts
        return logits

    def update(self, ids: Tensor) -> None:
        """Record the next token of each sequence: ids [batch]."""
        if self._said is not None:
            self._said.scatter_(-1, ids[:, None], True)
        if self._counts is not None:
            self._counts.scatter_add_(-1, ids[:, None], self._counts.new_ones(len(ids), 1))

    def select(self, rows: Tensor) -> None:
        """Keep only these sequences."""
        self._said = None if self._said is None else self._said[rows]
        self._counts = None if self._counts is None else self._counts[rows]


def argmax(logits: Tensor) -> Tensor:
    """Return the ids [batch] of the largest logits [batch, vocabulary]; NaN counts as the largest.

    For 8 rows of 49,152 on a CPU, torch's argmax takes 0.85 ms, a twentieth of a step that generates 8 texts; NumPy's
    takes 0.04 ms.
    """
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    return torch.from_numpy(logits.detach().float().numpy().argmax(-1))


def sample(logits: Tensor, sampling: Sampling, draws: Tensor) -> Tensor:
    """Choose the next token of each sequence.

    Args:
        logits: [batch, vocabulary], any floating dtype; minus infinity bans a token.
        sampling: The settings.
        draws: float64 [batch], uniform in [0, 1): the point of the cumulative distribution at which to take the token.

    Returns:
        The ids, int64 [batch].

    Raises:
        InputError: When the largest logit of a sequence is not finite.
    """
    greedy = argmax(logits)
    likeliest = logits.gather(-1, greedy[:, None]).squeeze(-1)
    if not bool(likeliest.isfinite().all()):
        raise InputError(
            f"the largest logit is {likeliest.tolist()}, so no token can be drawn; the weights are damaged, or "
            "overflowed in a 16-bit dtype, or logit_bias bans all tokens"
        )
    if sampling.temperature == 0:
        return greedy
    # On the CPU, since not every device has float64. Draws are below 1, so the product stays below the total after
    # rounding and falls on a token whose probability is not 0.
    probabilities, ids = (tensor.cpu() for tensor in candidates(logits, sampling))
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    drawn = torch.searchsorted(cumulative, draws.cpu()[:, None] * cumulative[:, -1:], right=True)
    return ids.gather(-1, drawn).squeeze(-1).to(logits.device)


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return the candidates for the next token and their probabilities after temperature, top_k, top_p and min_p.

    The candidates are those of transformers' logits warpers, also where tokens tie or rounding decides.

    Args:
        logits: [batch, vocabulary].
        sampling: The settings; the temperature is above 0.

    Returns:
        Probabilities, float32 [batch, n], and ids, [batch, n], with n at most vocabulary. Tokens that were not kept
        are missing or have probability 0. Each row sums to 1.
    """
    scaled = _scaled(logits.float(), sampling.temperature)
    probabilities, ids, doubtful = _quick_candidates(scaled, sampling)
    if bool(doubtful.any()):
        exact = _warped(scaled[doubtful], sampling).softmax(-1)
        if ids.shape[-1] < exact.shape[-1]:
            count = max(ids.shape[-1], int((exact > 0).sum(-1).max()))
            missing = (0, count - ids.shape[-1])
            probabilities, ids = functional.pad(probabilities, missing), functional.pad(ids, missing)
            exact, ids[doubtful] = exact.topk(count)
        else:
            exact = exact.gather(-1, ids[doubtful])
        probabilities[doubtful] = exact
    return probabilities / probabilities.sum(-1, keepdim=True), ids


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """Logits divided by the temperature, less their maximum where a temperature such as 1e-30 would overflow."""
    scaled = logits / temperature
    if bool(scaled.amax(-1).isfinite().all()):
        return scaled
    return (logits - logits.amax(-1, keepdim=True)) / temperature


def _quick_candidates(scaled: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates without a sort of all tokens: probabilities and ids [batch, n], and where rounding might decide.

    The probabilities are not normalized.
    """
    vocabulary = scaled.shape[-1]
    few = sampling.top_k if sampling.top_k is not None and sampling.top_k < vocabulary else None
    nucleus = sampling.top_p if sampling.top_p is not None and sampling.top_p < 1 else None
    ids = torch.arange(vocabulary, device=scaled.device).expand(scaled.shape)
    doubtful = torch.zeros(len(scaled), dtype=torch.bool, device=scaled.device)
    if few is not None:
        scaled, ids = _top_k(scaled, few)
    if nucleus is None or few is not None:
        probabilities = scaled.softmax(-1)
    else:
        probabilities, scaled, ids = _likeliest_first(scaled, nucleus)
    if nucleus is not None:
        sum_before = probabilities.cumsum(-1) - probabilities
        dropped = sum_before >= nucleus
        near = ((sum_before - nucleus).abs() <= _ROUNDING) & (probabilities > 0)
        tied = dropped[:, 1:] & ~dropped[:, :-1] & (scaled[:, 1:] == scaled[:, :-1])
        doubtful = near.any(-1) | tied.any(-1)
        probabilities = probabilities.masked_fill(dropped, 0)
    if sampling.min_p is not None:
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        near = ((probabilities - least).abs() <= _ROUNDING * least) & (probabilities > 0)
        doubtful = doubtful | near.any(-1)
        probabilities = probabilities.masked_fill(probabilities < least, 0)
    return probabilities, ids, doubtful


def _top_k(scaled: Tensor, few: int) -> tuple[Tensor, Tensor]:
    """The `few` highest of each row in falling order, and all that tie with the last of them; the others are -inf."""
    highest, ids = scaled.topk(few)
    last = highest[:, -1:]
    count = int((scaled >= last).sum(-1).max())
    if count > few:
        highest, ids = scaled.topk(count)
        highest = highest.masked_fill(highest < last, -torch.inf)
    return highest, ids


def _likeliest_first(scaled: Tensor, enough: float) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, scaled logits and ids of the likeliest tokens: in every row, more than sum to `enough`."""
    shifted = scaled - scaled.amax(-1, keepdim=True)
    total = shifted.exp().sum(-1, keepdim=True)
    # A few tokens are nearly always enough. Finding the likeliest 64 of 49,152 takes 0.13 ms and 1,024 takes 0.6 ms
    # (two CPU cores); sorting all 128,256 takes 11 ms.
    for count in (64, 1024, scaled.shape[-1]):
        likeliest, ids = shifted.topk(min(count, scaled.shape[-1]))
        probabilities = likeliest.exp() / total
        if bool((probabilities[:, :-1].sum(-1) > enough + _ROUNDING).all()):
            break
    return probabilities, scaled.gather(-1, ids), ids


def _warped(scaled: Tensor, sampling: Sampling) -> Tensor:
    """Set the scaled logits [rows, vocabulary] of tokens that are not kept to -inf, by transformers' steps in float32.

    The steps are those of TopKLogitsWarper, TopPLogitsWarper and MinPLogitsWarper. Which of several tied tokens top_p
    keeps depends on the order in which torch sorts them, as in transformers.
    """
    if sampling.top_k is not None and sampling.top_k < scaled.shape[-1]:
        scaled = scaled.masked_fill(scaled < scaled.topk(sampling.top_k).values[:, -1:], -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        ascending, order = scaled.sort()
        dropped = ascending.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        dropped[:, -1] = False
        scaled = scaled.masked_fill(dropped.scatter(-1, order, dropped), -torch.inf)
    if sampling.min_p is not None:
        probabilities = scaled.softmax(-1)
        highest = probabilities.amax(-1, keepdim=True)
        scaled = scaled.masked_fill(probabilities < sampling.min_p * highest, -torch.inf)
    return scaled

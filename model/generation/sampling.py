"""From logits to the next token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bpe.errors import InputError

_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. In the order in which it is done:

    logit_bias: added to the logits of these ids; minus infinity bans a token.
    repetition_penalty: logits of tokens that the prompt or the answer holds are divided by it where positive and
        multiplied where negative (Keskar et al. 2019, arXiv:1909.05858); 1 does nothing.
    frequency_penalty: taken off the logit of a token for each time that the answer holds it; 0 does nothing.
    temperature: 0 takes the likeliest token and ends here; 1 draws from the model's own distribution.
    top_k: keep the k likeliest tokens.
    top_p: keep, of these, the fewest likeliest whose probabilities sum to at least p (Holtzman et al. 2019,
        arXiv:1904.09751).
    min_p: keep those at least p times as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082).
    seed: the same seed draws the same tokens, on the same machine; None draws a new one.

    Raises InputError, naming the argument, where one is out of range.
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
            raise InputError(f"top_k is {self.top_k}; it must be at least 1, or left out to keep all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise InputError(f"min_p is {self.min_p}; it must be between 0 and 1")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise InputError(f"repetition_penalty is {self.repetition_penalty}; it must be a positive number")
        if not math.isfinite(self.frequency_penalty):
            raise InputError(f"frequency_penalty is {self.frequency_penalty}; it must be a number")
        for id, bias in self.logit_bias.items():
            if not bias <= _LARGEST:
                raise InputError(f"logit_bias of {id} is {bias}; it must be a number, or minus infinity to ban it")


class Penalties:
    """What has been said counts for the next token: the bias and the penalties of a `Sampling`, for some sequences.

    prompts: the ids of each sequence that the answer follows, of which those without a logit do not count; vocabulary:
        how many logits there are.
    """

    def __init__(
        self, sampling: Sampling, prompts: list[list[int]], vocabulary: int, device: torch.device | str
    ) -> None:
        self._sampling = sampling
        self._biased = torch.tensor(list(sampling.logit_bias), dtype=torch.long, device=device)
        self._bias = torch.tensor(list(sampling.logit_bias.values()), device=device)
        shape = (len(prompts), vocabulary)
        self._said: Tensor | None = None  # [batch, vocabulary], whether the prompt or the answer holds the token
        if sampling.repetition_penalty != 1:
            self._said = torch.zeros(shape, dtype=torch.bool, device=device)
            for said, prompt in zip(self._said, prompts, strict=True):
                ids = torch.tensor(prompt, dtype=torch.long, device=device)
                said[ids[ids < vocabulary]] = True
        self._counts = torch.zeros(shape, device=device) if sampling.frequency_penalty else None  # in the answer

    def apply(self, logits: Tensor) -> Tensor:
        """The logits [batch, vocabulary], changed; in float32 where anything is."""
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

    def say(self, ids: Tensor) -> None:
        """Each sequence has got its next token: ids [batch]."""
        if self._said is not None:
            self._said.scatter_(-1, ids[:, None], True)
        if self._counts is not None:
            self._counts.scatter_add_(-1, ids[:, None], self._counts.new_ones(len(ids), 1))

    def select(self, rows: Tensor) -> None:
        """Keep these sequences only."""
        self._said = None if self._said is None else self._said[rows]
        self._counts = None if self._counts is None else self._counts[rows]


def argmax(logits: Tensor) -> Tensor:
    """The ids [batch] of the largest logits [batch, vocabulary]; of one that is not a number where there is any.

    Of 8 rows of 49,152 on a CPU, torch's own takes 0.85 ms, a twentieth of a step that writes 8 texts, NumPy's 0.04.
    """
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    return torch.from_numpy(logits.detach().float().numpy().argmax(-1))


def sample(logits: Tensor, sampling: Sampling, draws: Tensor) -> Tensor:
    """The next token of each sequence: ids [batch], int64.

    logits: [batch, vocabulary], any floating dtype; minus infinity bans a token.
    draws: float64 [batch], uniform in [0, 1): where in the distribution to take the token.

    Raises InputError for logits that are not numbers.
    """
    greedy = argmax(logits)
    likeliest = logits.gather(-1, greedy[:, None]).squeeze(-1)
    if not bool(likeliest.isfinite().all()):
        raise InputError(
            f"the largest logit is {likeliest.tolist()}, so no token can be drawn; the weights may be damaged, or have "
            "overflowed in a 16-bit type, or logit_bias bans all tokens"
        )
    if sampling.temperature == 0:
        return greedy
    # On the CPU, since not every other device has float64; draws are below 1, so that one stays below the whole when
    # rounded and falls on a token whose probability is not 0.
    probabilities, ids = (tensor.cpu() for tensor in candidates(logits, sampling))
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    drawn = torch.searchsorted(cumulative, draws.cpu()[:, None] * cumulative[:, -1:], right=True)
    return ids.gather(-1, drawn).squeeze(-1).to(logits.device)


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The tokens that may come next, and how likely each is drawn, by temperature, top_k, top_p and min_p.

    logits [batch, vocabulary] -> probabilities [batch, n] in float32 and ids [batch, n], n at most vocabulary. Tokens
    that were not kept are left out or have probability 0; each row sums to 1.
    """
    vocabulary = logits.shape[-1]
    few = sampling.top_k if sampling.top_k is not None and sampling.top_k < vocabulary else None
    nucleus = sampling.top_p if sampling.top_p is not None and sampling.top_p < 1 else None
    logits, ids = logits.float(), torch.arange(vocabulary, device=logits.device).expand(logits.shape)
    if few is not None:
        logits, ids = logits.topk(few)
    # The maximum is taken off before the division: a temperature of 1e-30 must not overflow.
    scaled = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    if nucleus is None or few is not None:
        probabilities = scaled.softmax(-1)
    else:
        probabilities, ids = _likeliest_first(scaled, nucleus)
    if nucleus is not None:
        sum_before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(sum_before >= nucleus, 0)
    if sampling.min_p is not None:
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < least, 0)
    return probabilities / probabilities.sum(-1, keepdim=True), ids


def _likeliest_first(scaled: Tensor, enough: float) -> tuple[Tensor, Tensor]:
    """Probabilities and ids of so many of the likeliest tokens that they hold `enough` in every row."""
    total = scaled.exp().sum(-1, keepdim=True)
    # Few nearly always do: the likeliest 64 of 49,152 are found in 0.13 ms, 1,024 in 0.6 ms (two CPU cores), and all of
    # 128,256 are sorted in 11 ms.
    for count in (64, 1024, scaled.shape[-1]):
        likeliest, ids = scaled.topk(min(count, scaled.shape[-1]))
        probabilities = likeliest.exp() / total
        if bool((probabilities.sum(-1) >= enough).all()):
            break
    return probabilities, ids

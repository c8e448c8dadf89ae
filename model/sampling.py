"""From logits to the next token."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bpe.errors import InputError

_LIKELIEST = 1024


def sample(
    logits: Tensor,
    *,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw the next token of each sequence.

    logits: [batch, vocabulary], any floating dtype; minus infinity bans a token.
    temperature: 0 takes the likeliest token; 1 draws from the model's own distribution.
    top_k, top_p, min_p: see `candidates`.
    generator: the source of randomness, on the device of the logits; the same state draws the same tokens.

    Returns ids [batch], int64. Raises InputError for arguments out of range, and for logits that are not numbers.
    """
    check_sampling(temperature, top_k, top_p, min_p)
    likeliest = logits.amax(-1)
    if not bool(torch.isfinite(likeliest).all()):
        raise InputError(
            f"the largest logit is {likeliest.flatten().tolist()}, so no token can be drawn; "
            "the weights may be damaged, or have overflowed in a 16-bit type"
        )
    if temperature == 0:
        return logits.argmax(-1)
    probabilities, ids = candidates(logits, temperature, top_k, top_p, min_p)
    drawn = torch.multinomial(probabilities, 1, generator=generator)
    return ids.gather(-1, drawn).squeeze(-1)


def candidates(
    logits: Tensor, temperature: float, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None
) -> tuple[Tensor, Tensor]:
    """The tokens that may come next, and how likely each is drawn.

    In this order: logits are divided by the temperature; `top_k` keeps the k likeliest tokens; `top_p` keeps, of
    these, the fewest likeliest whose probabilities sum to at least p (Holtzman et al. 2019, arXiv:1904.09751); `min_p`
    keeps those at least p times as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082).

    logits [batch, vocabulary] -> probabilities [batch, n] in float32 and ids [batch, n], n at most vocabulary. Tokens
    that were not kept are left out or have probability 0; each row sums to 1.
    """
    # The maximum is taken off before the division: a temperature of 1e-30 must not overflow.
    scaled = (logits.float() - logits.float().amax(-1, keepdim=True)) / temperature
    vocabulary = logits.shape[-1]
    if top_k is not None and top_k < vocabulary:
        scaled, ids = scaled.topk(top_k)
        probabilities = scaled.softmax(-1)
    elif top_p is not None and top_p < 1:
        probabilities, ids = _likeliest_first(scaled.softmax(-1), top_p)
    else:
        probabilities, ids = scaled.softmax(-1), torch.arange(vocabulary, device=logits.device).expand(logits.shape)
    if top_p is not None and top_p < 1:
        sum_before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(sum_before >= top_p, 0)
    if min_p is not None:
        probabilities = probabilities.masked_fill(probabilities < min_p * probabilities.amax(-1, keepdim=True), 0)
    return probabilities / probabilities.sum(-1, keepdim=True), ids


def _likeliest_first(probabilities: Tensor, enough: float) -> tuple[Tensor, Tensor]:
    # The likeliest 1,024 nearly always hold enough, and cost 0.8 ms where sorting all of 128,256 costs 11 ms (two CPU
    # cores).
    likeliest, ids = probabilities.topk(min(_LIKELIEST, probabilities.shape[-1]))
    if bool((likeliest.sum(-1) >= enough).all()):
        return likeliest, ids
    return probabilities.sort(-1, descending=True)


def check_sampling(temperature: float, top_k: int | None, top_p: float | None, min_p: float | None) -> None:
    """Raise InputError, naming the argument, unless all are in range."""
    if not (math.isfinite(temperature) and temperature >= 0):
        raise InputError(
            f"temperature is {temperature}; it must be 0 (always the likeliest token) or a positive number"
        )
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k is {top_k}; it must be at least 1, or left out to keep all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p is {top_p}; it must be above 0 and at most 1")
    if min_p is not None and not 0 <= min_p <= 1:
        raise InputError(f"min_p is {min_p}; it must be between 0 and 1")

"""How the next tokens of several texts are chosen, each with settings of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from model.generation.sampling import Floats, Penalties, Sampling, log_softmax, sample, top


class Matcher(Protocol):
    """The state of one text in a grammar."""

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow."""
        ...

    def restrict(self, logits: Floats) -> Floats:
        """Return the logits [n_vocab] with minus infinity for the tokens that may not follow."""
        ...

    def accept(self, id: int) -> None:
        """Append a token to the text."""


class Grammar(Protocol):
    """What a text may be; `model.generation.grammar` compiles them."""

    def start(self) -> Matcher:
        """Return the state of an empty text."""
        ...


class Choice(NamedTuple):
    """A token that was chosen."""

    id: int
    logprob: float | None
    """Its log-probability in nats, before grammar, bias, penalties and temperature; None if not requested."""
    top: list[tuple[int, float]]
    """The likeliest ids with their log-probabilities, as many as requested."""


class Chooser:
    """Chooses the tokens of one text: its settings, its random numbers, what it has said, and its grammar."""

    def __init__(
        self,
        prompt: Sequence[int],
        n_vocab: int,
        sampling: Sampling,
        number: int = 0,
        logprobs: int | None = None,
        grammar: Grammar | None = None,
    ) -> None:
        """Start a text.

        Args:
            prompt: The ids of the prompt.
            n_vocab: The number of logits.
            sampling: The settings.
            number: The number of the text among those of its prompt; it is added to the seed.
            logprobs: The number of likeliest tokens that are recorded with each token; None for no log-probabilities.
            grammar: What the text may be; None for any text.
        """
        seed = sampling.seed
        self._random = random.Random() if seed is None else random.Random((seed + number) % 2**64)
        self._sampling, self._logprobs = sampling, logprobs
        self._penalties = Penalties(sampling, [[*prompt]], n_vocab)
        self._matcher = None if grammar is None else grammar.start()

    @property
    def finished(self) -> bool:
        """Whether the grammar allows no further token."""
        return self._matcher is not None and self._matcher.finished

    def choose(self, logits: Floats) -> Choice:
        """Choose the next token.

        Args:
            logits: float32 [n_vocab]; unchanged.

        Raises:
            InputError: When no token can be chosen: the logits are not finite, or bias and grammar ban all tokens.
        """
        allowed = logits if self._matcher is None else self._matcher.restrict(logits)
        draw = self._random.random()
        ids = sample(self._penalties.apply(allowed[None]), self._sampling, [draw])
        return self._chosen(logits, ids[0])

    def _chosen(self, logits: Floats, id: int) -> Choice:
        self._penalties.update([id])
        if self._matcher is not None:
            self._matcher.accept(id)
        if self._logprobs is None:
            return Choice(id, None, [])
        normalised = log_softmax(logits)
        return Choice(id, float(normalised[id]), top(normalised, self._logprobs))


def choose_all(choosers: Sequence[Chooser], logits: Sequence[Floats]) -> list[Choice | Exception]:
    """Choose the next token of each text.

    Args:
        choosers: One for each text.
        logits: float32 [n_vocab] for each text.

    Returns:
        The choice of each text, or what kept it from being made; the other texts have theirs.
    """
    results: list[Choice | Exception] = []
    for chooser, row in zip(choosers, logits, strict=True):
        try:
            results.append(chooser.choose(row))
        except Exception as error:  # of logits that are not finite, or of a grammar; it ends this text only
            results.append(error)
    return results

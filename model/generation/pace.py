"""How many tokens to propose in speculative decoding: as many as make generation fastest, judging by what was measured.

A call that reads proposals takes longer than a call that reads one token of each text, and saves one call for each
proposal that is accepted. `Pace` measures both, and plans each call for the most tokens per second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

_MEMORY = 0.97  # weight of earlier outcomes at each new one: the last 30 or so decide
_PRIOR = 5.0  # outcomes that the prior of a kind weighs as much as
_GAIN = 1.05  # times the rate without proposals, which they must promise
_LIKE_BEFORE = 0.97  # how good a kind is, compared with that of the proposal before it, until it was tried
_FIRST_SLOPE = 0.3  # a token more takes this part of a call, until it is measured: native kernels take 0.25 to 0.45
_WARM_UP = 3  # calls without proposals at first: those right after a prompt take up to 1.7 times as long as later ones
_SHARE = 0.015  # of the time, for proposals that may not be accepted
_CREDIT = (3.0, 24.0)  # plain calls: what proposals may cost at first, and the most that is ever saved for them
_SPACING = (8, 256)  # calls between two trials of what was not worth it, at first and at most
_MISSES = 3  # calls in a row of which no proposal is accepted, before a pause
_PAUSE = (4, 64)  # calls of a pause, at first and at most; it doubles as long as nothing is accepted
_TRIAL = 3  # proposals of a text in a trial
_FIT_AT, _FIT_PRIOR = 8, 0.3  # a number of proposals, and the weight of two calls that are assumed to have been made
_FASTER_CALL, _SLOWER_CALL = 0.1, 0.02  # weight of a call without proposals in the estimate, if faster and if slower
_TYPICAL_CALL, _MOST_TYPICAL = 0.05, 1.15  # weight in the mean of such calls, and its bound, as a part of the estimate
_FIRST_CALLS = 5  # of which the fastest counts, since memory is new and threads sleep at first
_SLOWEST = 1.8  # a call that took more than this many times its estimate was interrupted, and counts as that much


class CallTimes:
    """The seconds of a call by its numbers of texts and proposals, measured while it runs.

    A call without proposals has an estimate for each number of texts. Proposals add a part for all and one for each,
    relative to such a call, which are fitted to the last calls.
    """

    def __init__(self) -> None:
        self._plain: dict[int, float] = {}
        self._typical: dict[int, float] = {}  # a mean of the calls without proposals
        self._calls = 0  # without proposals
        # Sums of weights, proposals, their squares, and of relative times alone and multiplied with proposals. They
        # fade, except for the prior, which decides as long as little is measured.
        self._prior = np.array([1, _FIT_AT, _FIT_AT**2, _FIRST_SLOPE * _FIT_AT, _FIRST_SLOPE * _FIT_AT**2]) * _FIT_PRIOR
        self._prior += np.array([1, 1, 1, _FIRST_SLOPE, _FIRST_SLOPE]) * _FIT_PRIOR
        self._sums = np.zeros(5)
        self._fixed, self._each = 0.0, _FIRST_SLOPE

    def __bool__(self) -> bool:
        return bool(self._plain)

    def plain(self, texts: int) -> float:
        """Return the estimated seconds of a call without proposals; 0 before the first measurement."""
        if texts in self._plain or not self._plain:
            return self._plain.get(texts, 0.0)
        known = min(self._plain, key=lambda count: abs(count - texts))
        return self._plain[known] * (1 + _FIRST_SLOPE * (texts - 1)) / (1 + _FIRST_SLOPE * (known - 1))

    def typical(self, texts: int) -> float:
        """Return the mean seconds of a call without proposals, where no larger calls slow it down."""
        return min(self._typical.get(texts, math.inf), _MOST_TYPICAL * self.plain(texts))

    def of(self, texts: int, proposals: int) -> float:
        """Return the estimated seconds of a call; 0 before the first measurement."""
        return self.plain(texts) * (1 + (self._fixed + self._each * proposals if proposals else 0.0))

    def add(self, texts: int, proposals: int, seconds: float) -> float:
        """Record a call, and return its seconds, less what an interruption took."""
        expected = self.of(texts, proposals)
        if not expected:
            self._plain[texts] = seconds  # also where there are proposals, which is corrected later
        elif proposals:
            seconds = min(seconds, _SLOWEST * expected)
            time = seconds / self.plain(texts) - 1
            self._sums = _MEMORY * self._sums + [1, proposals, proposals**2, time, time * proposals]
            weight, x, xx, y, xy = (self._sums + self._prior).tolist()
            self._each = max(0.0, (weight * xy - x * y) / (weight * xx - x * x))
            self._fixed = max(0.0, (y - self._each * x) / weight)
        else:
            self._calls += 1
            seconds = min(seconds, _SLOWEST * expected)
            # Each call that is larger than the one before slows down the next ones; the fast ones show what calls take
            # among others of their kind.
            weight = 1.0 if seconds < expected and self._calls < _FIRST_CALLS else _FASTER_CALL
            self._plain[texts] = expected + (weight if seconds < expected else _SLOWER_CALL) * (seconds - expected)
            if self._calls >= _FIRST_CALLS:
                typical = self._typical.get(texts, seconds)
                self._typical[texts] = typical + _TYPICAL_CALL * (seconds - typical)
        return seconds


class Pace:
    """Plans how many proposals each text gets in the next call."""

    def __init__(self, most: int, adaptive: bool = True) -> None:
        """Begin without measurements.

        Args:
            most: The largest number of proposals of a text in a call.
            adaptive: Whether the number follows what is measured; otherwise it is always the largest.
        """
        self.most = most
        self.times = CallTimes()
        self.proposing = 0.0
        """Seconds that one more proposal of each text takes to make."""
        self._adaptive = adaptive
        self._outcomes: dict[int, tuple[float, float]] = {}  # accepted, proposed: by kind, both fading
        self._credit = 0.0  # seconds; see `record`
        self._spacing, self._since = _SPACING[0], 0
        self._warm_up = _WARM_UP
        self._has_plain = self._has_credit = False
        self._misses, self._pause, self._paused = 0, _PAUSE[0], 0
        self._plain_calls = 0  # without proposals, since the last with some

    def acceptance(self, kind: int, prior: float) -> float:
        """Return the estimated probability that a proposal of a kind is accepted if those before it are.

        Args:
            kind: The kind.
            prior: The probability as long as few proposals of the kind were made.
        """
        accepted, proposed = self._outcomes.get(kind, (0.0, 0.0))
        return (accepted + _PRIOR * prior) / (proposed + _PRIOR)

    def plan(self, outlooks: Sequence[Sequence[int]], priors: Mapping[int, float]) -> list[int]:
        """Return how many proposals each text gets.

        Args:
            outlooks: The kinds of the proposals that can be made for each text, in their order.
            priors: The probability of acceptance of each kind, as long as few proposals of it were made.
        """
        if not self._adaptive:
            return [len(outlook) for outlook in outlooks]
        none = [0] * len(outlooks)
        if not any(outlooks) or self._warm_up:  # the first calls measure what others are compared with
            return none
        if self._paused:
            self._paused -= 1
            return none
        counts = self._fastest(outlooks, priors)
        self._since += 1
        if not any(counts):
            if self._since < self._spacing:
                return none
            counts = [min(_TRIAL, len(outlook)) for outlook in outlooks]
            if self._extra(len(outlooks), sum(counts), max(counts)) > self._credit:
                return none
            self._spacing = min(2 * self._spacing, _SPACING[1])
        self._since = 0
        return counts

    def plain_seconds(self, texts: int) -> float:
        """Return the mean seconds of a call without proposals; 0 if there was none yet."""
        return self.times.typical(texts) if self._has_plain else 0.0

    def _extra(self, texts: int, proposals: int, deepest: int) -> float:
        """Return the seconds that a call with so many proposals takes longer than one without.

        Args:
            texts: The number of texts.
            proposals: The number of proposals for all of them.
            deepest: The largest number for one of them.
        """
        return self.times.of(texts, proposals) - self.times.plain(texts) + self.proposing * deepest

    def _fastest(self, outlooks: Sequence[Sequence[int]], priors: Mapping[int, float]) -> list[int]:
        """Return the numbers of proposals that give the most tokens per second, of those that there is credit for."""
        chances = []  # that a proposal and all before it are accepted
        for text, outlook in enumerate(outlooks):
            chance, before = 1.0, 0.0
            for place, kind in enumerate(outlook):
                # Proposals behind good ones are good, until they were tried.
                before = self.acceptance(kind, max(priors[kind], _LIKE_BEFORE * before))
                chance *= before
                chances.append((-chance, place, text))
        chances.sort()
        texts = len(outlooks)
        counts, best = [0] * texts, [0] * texts
        plain = self.times.plain(texts)
        expected, rate, deepest = float(texts), _GAIN * texts / plain, 0
        for taken, (chance, place, text) in enumerate(chances, 1):
            counts[text] += 1
            deepest = max(deepest, place + 1)
            expected -= chance
            extra = self._extra(texts, taken, deepest)
            if extra > self._credit:
                break
            faster = expected / (plain + extra)
            if faster > rate:
                rate, best = faster, counts.copy()
        return best

    def record(self, texts: int, counts: Sequence[int], seconds: float, proposing: float) -> None:
        """Record a call.

        Args:
            texts: The number of texts that it read.
            counts: The number of proposals of each.
            seconds: How long it took.
            proposing: How many seconds the proposals took to make.
        """
        self._plain_calls = 0 if any(counts) else self._plain_calls + 1
        self._has_plain |= not any(counts)
        self._warm_up = max(0, self._warm_up - 1)
        if self._plain_calls != 1 or not self.times:  # else it was slowed down by the larger one before it
            seconds = self.times.add(texts, sum(counts), seconds)
        plain = self.times.plain(texts)
        if not self._has_credit:
            self._has_credit, self._credit = True, _CREDIT[0] * plain
        deepest = max(counts, default=0)
        if deepest:
            each = proposing / deepest
            self.proposing += (0.2 if self.proposing else 1.0) * (each - self.proposing)
            self._credit -= seconds + proposing - plain
        self._credit = min(self._credit + _SHARE * plain, _CREDIT[1] * plain)

    def learn(self, texts: int, kinds: Sequence[int], accepted: int) -> None:
        """Record which proposals of a text in a call were accepted.

        Args:
            texts: The number of texts that the call read.
            kinds: The kinds of its proposals, in their order.
            accepted: How many were accepted, from the first on.
        """
        for place, kind in enumerate(kinds[: accepted + 1]):
            before, proposed = self._outcomes.get(kind, (0.0, 0.0))
            self._outcomes[kind] = _MEMORY * before + (place < accepted), _MEMORY * proposed + 1
        if kinds:
            self._misses = 0 if accepted else self._misses + 1
        if self._misses >= _MISSES * texts:
            # This also measures calls without proposals again, without which a wrong estimate could last.
            self._paused, self._pause, self._misses = self._pause, min(2 * self._pause, _PAUSE[1]), 0
        if accepted:
            self._spacing, self._pause = _SPACING[0], _PAUSE[0]
            self._credit += accepted * self.times.plain(texts) / texts

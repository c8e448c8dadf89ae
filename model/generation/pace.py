"""How many tokens to propose in speculative decoding: as many as make generation fastest, judging by what was measured.

A call that reads proposals takes longer than a call that reads one token of each text, and saves one call for each
proposal that is accepted. `Pace` measures both, and plans each call for the most tokens per second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_MEMORY = 0.97  # weight of earlier outcomes at each new one: the last 30 or so decide
_PRIOR = 2.0  # outcomes that the prior of a kind weighs as much as
_GAIN = 1.05  # times the rate without proposals, which they must promise
_LIKE_BEFORE = 0.97  # how good a kind is, compared with that of the proposal before it, until it was tried
_FIRST_SLOPE = 0.3  # a token more takes this part of a call, until it is measured: native kernels take 0.25 to 0.45
_WARM_UP = 3  # calls without proposals at first: those right after a prompt take up to 1.7 times as long as later ones
_SHARE = 0.02  # of the time, for proposals that may not be accepted
_CREDIT = (4.0, 24.0)  # plain calls: what proposals may cost at first, and the most that is ever saved for them
_SPACING = (8, 256)  # calls between two trials of what was not worth it, at first and at most
_MISSES = 3  # calls in a row of which no proposal is accepted, before a pause
_PAUSE = (4, 64)  # calls of a pause, at first and at most; it doubles as long as nothing is accepted
_TRIAL = 3  # proposals of a text in a trial
_NEW_CALL, _OTHER_CALL = 0.1, 0.03  # weight of a call in the estimates for its number of tokens, and for others
_SLOWER_CALL = 0.02  # weight of a call without proposals that is slower than the estimate
_FIRST_CALLS = 4  # with as many tokens: the fastest counts, since memory is new and threads sleep at first
_SLOWEST = 3.0  # calls that took longer than this many times the estimate were interrupted, and count as that much


class CallTimes:
    """The seconds of a call by its number of tokens, measured while it runs and interpolated where it was not."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._calls: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._seconds)

    def of(self, tokens: int) -> float:
        """Return the estimate for a number of tokens; 0 before the first measurement."""
        if not self._seconds or tokens in self._seconds:
            return self._seconds.get(tokens, 0.0)
        below = max((n for n in self._seconds if n < tokens), default=None)
        above = min((n for n in self._seconds if n > tokens), default=None)
        if below is not None and above is not None:
            share = (tokens - below) / (above - below)
            return self._seconds[below] * (1 - share) + self._seconds[above] * share
        known = above if below is None else below
        assert known is not None
        return self._seconds[known] * (1 + _FIRST_SLOPE * (tokens - 1)) / (1 + _FIRST_SLOPE * (known - 1))

    def add(self, tokens: int, seconds: float, plain: bool = False) -> float:
        """Record a call, and return its seconds, less what an interruption took.

        Calls without proposals are estimated as they are among others of their kind: each call that is larger than the
        one before slows down the next ones.

        The estimates of other numbers of tokens follow slowly, because all calls take longer as a text grows.
        """
        calls = self._calls[tokens] = self._calls.get(tokens, 0) + 1
        if not self._seconds:
            self._seconds[tokens] = seconds
            return seconds
        expected = self.of(tokens)
        seconds = min(seconds, _SLOWEST * expected)
        if calls <= _FIRST_CALLS:
            new = seconds if calls == 1 else min(seconds, expected)
        else:
            new = expected + (_SLOWER_CALL if plain and seconds > expected else _NEW_CALL) * (seconds - expected)
        self._seconds[tokens] = new
        if expected:
            change = 1 + _OTHER_CALL * (seconds / expected - 1)
            self._seconds |= {n: time * change for n, time in self._seconds.items() if n != tokens}
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
        self._credit: float | None = None  # seconds
        self._spacing, self._since = _SPACING[0], 0
        self._warm_up = _WARM_UP
        self._has_plain = False
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
            self._spacing = min(2 * self._spacing, _SPACING[1])
        self._since = 0
        assert self._credit is not None
        return counts if self._extra(len(outlooks), counts) <= self._credit else none

    def plain_seconds(self, texts: int) -> float:
        """Return the seconds of a call without proposals; 0 if there was none yet."""
        return self.times.of(texts) if self._has_plain else 0.0

    def _extra(self, texts: int, counts: Sequence[int]) -> float:
        """Return the seconds that a call with these proposals takes longer than one without."""
        return self.times.of(texts + sum(counts)) - self.times.of(texts) + self.proposing * max(counts)

    def _fastest(self, outlooks: Sequence[Sequence[int]], priors: Mapping[int, float]) -> list[int]:
        """Return the numbers of proposals that give the most tokens per second."""
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
        expected, rate, deepest = float(texts), _GAIN * texts / self.times.of(texts), 0
        for taken, (chance, place, text) in enumerate(chances, 1):
            counts[text] += 1
            deepest = max(deepest, place + 1)
            expected -= chance
            faster = expected / (self.times.of(texts + taken) + self.proposing * deepest)
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
            seconds = self.times.add(texts + sum(counts), seconds, plain=not any(counts))
        plain = self.times.of(texts)
        if self._credit is None:
            self._credit = _CREDIT[0] * plain
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
            if self._credit is not None:
                self._credit += accepted * self.times.of(texts) / texts

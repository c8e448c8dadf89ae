"""Where the proposals of speculative decoding come from: the text itself, or a model that is faster.

No proposal can change what is generated, since the model verifies each. A proposer is good if it is fast and often
right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from model.generation.sequences import Part, Sequences

_PART = 512  # tokens of a prompt that a draft model reads at a time
_LONGEST = 24  # tokens: longer matches are not told apart
_CANDIDATES = 64  # places that are compared, the latest first
_KINDS = (1, 2, 3, 4, 6, 9, 13, 18, 24)  # lengths of matches that differ in how often they are right
_RESUMED = 100  # kind: the tokens behind a token that was replaced
_MOST_RESUMED = 6  # tokens after a replaced one
_LEAST_RUN = 12  # tokens of the source before a replaced one: after fewer, the next one is right one time in ten


class Proposer(Protocol):
    """Proposes the next tokens of several texts, which have numbers."""

    priors: Mapping[int, float]
    """The probability that a proposal is accepted, by its kind, before anything is known."""

    def start(self, text: int, ids: Sequence[int]) -> None:
        """Begin a text, or continue it if it began with ids that are known."""

    def add(self, text: int, id: int) -> None:
        """Add the next token to a text."""

    def outlook(self, text: int, most: int) -> list[int]:
        """Return the kinds of the proposals that can be made for a text, at most so many."""
        ...

    def propose(self, counts: Mapping[int, int]) -> dict[int, list[int]]:
        """Return so many proposals for each text, or fewer, of the kinds that `outlook` returned last."""
        ...

    def end(self, text: int) -> None:
        """Forget a text."""


class Index:
    """Finds the earlier place of a text whose tokens are followed by what may follow the text.

    That is the place before which the most tokens equal the last tokens of the text: the latest of those, and among the
    latest `_CANDIDATES` places with the same last two tokens. Adding a token takes about 0.3 us, and a search a few us,
    whatever the length of the text.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._pairs: dict[tuple[int, int], int] = {}  # the last place behind two tokens
        self._previous: list[int] = []  # by place: the place before it behind the same two tokens, or 0
        self._last: dict[int, int] = {}  # the last place behind a token
        self._earlier = 0  # the place before it behind the same token, or 0
        self._source = 0  # the place that the next token was taken to come from, or 0
        self._resumed = 0  # tokens since a replaced one, 0 if there is none
        self._run = 0  # tokens that came from the source before that

    def add(self, id: int) -> None:
        """Add a token to the text."""
        ids = self.ids
        if self._source:
            if ids[self._source] == id:
                self._resumed += self._resumed > 0
                self._run += 1
                self._source += 1
            else:  # a token was replaced, or the text leaves its source
                self._source, self._resumed = (self._source + 1, 1) if self._run >= _LEAST_RUN else (0, 0)
                self._run = 0
        ids.append(id)
        place = len(ids)
        self._earlier = self._last.get(id, 0)
        self._last[id] = place
        pair = (ids[-2] if place > 1 else -1, id)
        self._previous.append(self._pairs.get(pair, 0))
        self._pairs[pair] = place

    def find(self) -> tuple[int, int]:
        """Return the place whose token may come next, and how many tokens before it equal the end of the text.

        Returns:
            Both are 0 if there is no such place. The length is `_RESUMED` for the place after a replaced token.
        """
        length, best = self._longest()
        if length < 2 and self._source and 0 < self._resumed <= _MOST_RESUMED and self._source < len(self.ids):
            return self._source, _RESUMED
        if best != self._source:
            self._source, self._run = best, length
        self._resumed = 0
        return best, length

    def _longest(self) -> tuple[int, int]:
        ids = self.ids
        place, end = self._previous[-1] if ids else 0, len(ids)
        if not place:
            return (1, self._earlier) if self._earlier else (0, 0)
        length, best = 0, 0
        for _ in range(_CANDIDATES):
            # ids[place - length - 1] decides whether this place can be better.
            if length < place and (not length or ids[place - length - 1] == ids[end - length - 1]):
                same, most = 2, min(_LONGEST, place)
                while same < most and ids[place - same - 1] == ids[end - same - 1]:
                    same += 1
                if same > length:
                    length, best = same, place
                    if length == _LONGEST:
                        break
            place = self._previous[place - 1]
            if not place:
                break
        return length, best

    def copied(self, place: int, count: int) -> list[int]:
        """Return the tokens from a place on. Behind the end of the text, they continue with themselves."""
        period = len(self.ids) - place
        ids = self.ids[place : place + count]
        while len(ids) < count:
            ids.append(ids[len(ids) - period])
        return ids


class NgramProposer:
    """Proposes what followed the last tokens of a text where they occurred before, in the prompt or the answer.

    This is prompt lookup (Saxena 2023). Where the text departs from its source in one token, as when a name is
    replaced, the source continues behind that token.
    """

    # As measured with SmolLM2, which edited, summarized and told freely.
    priors: Mapping[int, float] = {
        **dict(zip(_KINDS, (0.2, 0.5, 0.62, 0.72, 0.82, 0.9, 0.95, 0.96, 0.98), strict=True)),
        _RESUMED: 0.3,
    }

    def __init__(self) -> None:
        self._texts: dict[int, Index] = {}
        self._found: dict[int, int] = {}

    def start(self, text: int, ids: Sequence[int]) -> None:
        index = self._texts[text] = Index()
        for id in ids:
            index.add(id)

    def add(self, text: int, id: int) -> None:
        self._texts[text].add(id)

    def outlook(self, text: int, most: int) -> list[int]:
        place, length = self._texts[text].find()
        self._found[text] = place
        if not place:
            return []
        if length == _RESUMED:
            return [_RESUMED, *(_kind_of(2 + more) for more in range(most - 1))][:most]
        return [_kind_of(length + more) for more in range(most)]

    def propose(self, counts: Mapping[int, int]) -> dict[int, list[int]]:
        return {text: self._texts[text].copied(self._found[text], count) for text, count in counts.items()}

    def end(self, text: int) -> None:
        del self._texts[text]


_KIND_OF = [max((kind for kind in _KINDS if kind <= length), default=1) for length in range(_LONGEST + 1)]


def _kind_of(length: int) -> int:
    return _KIND_OF[min(length, _LONGEST)]


class LayersProposer:
    """Proposes what the model itself finds likeliest after its first layers.

    The keys and values of these layers are those of the model, so no memory and no reading of the prompt is needed.
    """

    def __init__(self, sequences: Sequences, layers: int, n_vocab: int, most: int) -> None:
        """Begin without texts.

        Args:
            sequences: The memory of the model for each text; when tokens are proposed, it lacks only the last one.
            layers: The number of first layers.
            n_vocab: The number of ids to choose from.
            most: The largest number of proposals of a text.
        """
        self._sequences, self._layers, self._n_vocab = sequences, layers, n_vocab
        self.priors: Mapping[int, float] = dict.fromkeys(range(most), 0.5)
        self._last: dict[int, int] = {}

    def start(self, text: int, ids: Sequence[int]) -> None:
        self._last[text] = ids[-1]

    def add(self, text: int, id: int) -> None:
        self._last[text] = id

    def outlook(self, text: int, most: int) -> list[int]:
        return list(range(max(0, most)))

    def propose(self, counts: Mapping[int, int]) -> dict[int, list[int]]:
        stored = {text: self._sequences.length(text) for text in counts}
        proposals: dict[int, list[int]] = {text: [] for text in counts}
        last = dict(self._last)
        while texts := [text for text, count in counts.items() if len(proposals[text]) < count]:
            logits = self._sequences.read([Part(text, [last[text]]) for text in texts], self._layers)
            for text, id in zip(texts, logits[:, : self._n_vocab].argmax(-1).tolist(), strict=True):
                proposals[text].append(id)
                last[text] = id
        for text, length in stored.items():
            self._sequences.truncate(text, length)
        return proposals

    def end(self, text: int) -> None:
        del self._last[text]


class DraftProposer:
    """Proposes what a smaller model of the same vocabulary finds likeliest."""

    def __init__(self, sequences: Sequences, rows: int, context: int, n_vocab: int, most: int) -> None:
        """Begin without texts.

        Args:
            sequences: The memory of the draft model for each text.
            rows: The number of ids that the draft model knows.
            context: The number of tokens that its context holds.
            n_vocab: The number of ids to choose from.
            most: The largest number of proposals of a text.
        """
        self._sequences, self._rows, self._context, self._n_vocab = sequences, rows, context, n_vocab
        self.priors: Mapping[int, float] = dict.fromkeys(range(most), 0.7)
        self._texts: dict[int, list[int]] = {}
        self._read: dict[int, list[int]] = {}  # the ids in the memory
        self._same: dict[int, int] = {}  # how many of them are known to be those of the text

    def start(self, text: int, ids: Sequence[int]) -> None:
        self._texts[text] = list(ids)
        self._read.setdefault(text, [])
        self._same[text] = 0
        if len(ids) < self._context and max(ids) < self._rows:
            new = self._unread(text)[:-1]
            for start in range(0, len(new), _PART):  # so that Ctrl-C takes effect between two parts
                part = new[start : start + _PART]
                self._sequences.read([Part(text, part, 0)])
                self._read[text] += part

    def add(self, text: int, id: int) -> None:
        self._texts[text].append(id)

    def outlook(self, text: int, most: int) -> list[int]:
        ids = self._texts[text]
        if max(ids[self._same[text] :], default=0) >= self._rows:  # an id that only the large model has
            return []
        return list(range(max(0, min(most, self._context - len(ids)))))

    def propose(self, counts: Mapping[int, int]) -> dict[int, list[int]]:
        texts = [text for text, count in counts.items() if count]
        proposals: dict[int, list[int]] = {text: [] for text in counts}
        new = {text: self._unread(text) for text in texts}
        while texts:
            logits = self._sequences.read([Part(text, new[text]) for text in texts])[:, : self._n_vocab]
            for text, id in zip(texts, logits.argmax(-1).tolist(), strict=True):
                self._read[text] += new[text]
                proposals[text].append(id)
                new[text] = [id]
            texts = [text for text in texts if len(proposals[text]) < counts[text]]
        return proposals

    def _unread(self, text: int) -> list[int]:
        """Return the ids that the draft model must read, after it has forgotten what was not accepted."""
        ids, read, same = self._texts[text], self._read[text], self._same[text]
        most = min(len(read), len(ids) - 1)
        while same < most and read[same] == ids[same]:
            same += 1
        self._same[text] = same
        del read[same:]
        self._sequences.truncate(text, same)
        return ids[same:]

    def end(self, text: int) -> None:
        del self._texts[text], self._same[text], self._read[text]
        self._sequences.free(text)

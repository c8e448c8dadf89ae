"""Speculative decoding: several proposed tokens are verified in one call of the model.

The model reads the last token together with the proposals for the next ones. At each position, the token is chosen from
the model's own logits with the random number of that position, as without speculation, and the proposal counts as
accepted if it is that token. So proposals decide only how many calls are needed: the text is the same, token for
token, also where tokens are drawn, since logits do not depend on how many tokens a call reads. (Leviathan et al. 2023,
arXiv:2211.17192, and Chen et al. 2023, arXiv:2302.01318, accept and redraw at random instead, which preserves the
distribution, but not the text of a seed. For proposals that are certain, such as n-grams, the share that is accepted is
the same.)
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np
import numpy.typing as npt

from bpe.arguments import checked
from bpe.errors import InputError
from model.generation.native import NativeModel
from model.generation.pace import Pace
from model.generation.proposers import DraftProposer, LayersProposer, NgramProposer, Proposer
from model.generation.sampling import Floats, Penalties, Sampling, log_softmax, restricted, sample, top
from model.generation.sequences import Part, Sequences, new_sequences
from model.rotary import depends_on_length

if TYPE_CHECKING:
    from model.transformer import Transformer

ROOM = 1024  # generated tokens that memory is reserved for at first
MOST = 15  # proposals; with the last token, 16 are read, which kernels multiply together


@checked
@dataclass(frozen=True)
class Speculation:
    """How tokens are proposed in speculative decoding.

    By default, what followed the same tokens earlier in the prompt or the answer is proposed; `draft` and `layers`
    exclude each other.

    Args:
        draft: A smaller model of the same vocabulary, which makes the proposals.
        draft_tokenizer: The tokenizer of the draft model. `Completions` compares it with that of the model.
        layers: The number of the model's own first layers, which make the proposals: with their last state as that of
            all layers. They are often right only in models that were trained for it, as LayerSkip's (Elhoushi et al.
            2024, arXiv:2404.16710).
        most: The largest number of proposals for a text in a call of the model.
        adaptive: Propose fewer tokens, or none, where that is faster; otherwise always as many as possible.

    Raises:
        InputError: When a setting is out of range or without effect; the message names it.
    """

    draft: Union[Transformer, NativeModel, None] = None
    draft_tokenizer: Any = None
    layers: int | None = None
    most: int = MOST
    adaptive: bool = True

    def __post_init__(self) -> None:
        if self.draft is not None and self.layers is not None:
            raise InputError("speculation: draft and layers exclude each other; give only one of them")
        if self.layers is not None and self.layers < 1:
            raise InputError(f"speculation: layers is {self.layers}; it must be at least 1")
        if self.draft_tokenizer is not None and self.draft is None:
            raise InputError("speculation: draft_tokenizer has no effect without draft; leave it out, or give draft")
        if self.most < 1:
            raise InputError(f"speculation: most is {self.most}; it must be at least 1")

    @property
    def by(self) -> Literal["ngram", "draft", "layers"]:
        """What makes the proposals."""
        return "draft" if self.draft is not None else "ngram" if self.layers is None else "layers"

    def check(self, model: Transformer | NativeModel, has_images: bool) -> None:
        """Check that a model can verify what is proposed.

        Raises:
            InputError: When it cannot.
        """
        if has_images:
            raise InputError("speculation does not work with images; leave out one of the two")
        config = model.config
        if depends_on_length(config) and config.max_seq_len > config.rope_original_length:
            raise InputError(
                f"speculation does not work with rope_scaling {config.rope_scaling!r}, where the length of a text"
                " decides how all of it is rotated; leave speculation out"
            )
        if self.draft is model:
            raise InputError("the draft model is the model itself, which cannot be faster; give a smaller one")
        if self.layers is not None and self.layers >= config.n_layers:
            raise InputError(f"speculation: layers is {self.layers}, but the model has {config.n_layers}; give fewer")


@dataclass
class SpeculationCounts:
    """What speculative decoding did in a generation, after the prompts were read."""

    calls: int = 0
    """Calls of the model, times the texts that each of them read."""
    tokens: int = 0
    """Tokens that these calls have added to the texts."""
    proposed: int = 0
    """Proposals that the model read."""
    accepted: int = 0
    """Proposals that became tokens."""
    seconds: float = 0.0
    """Time of the calls and of making proposals."""
    plain_seconds: float = 0.0
    """Estimated time that the same tokens take without proposals."""

    @property
    def accepted_share(self) -> float:
        """The share of the proposals that were accepted; 0 if there were none."""
        return self.accepted / self.proposed if self.proposed else 0.0

    @property
    def tokens_per_call(self) -> float:
        """Tokens for each text in a call; 1 without proposals."""
        return self.tokens / self.calls if self.calls else 1.0

    @property
    def gain(self) -> float:
        """How many times as fast as without proposals, as estimated from calls without any; 1 if there were none."""
        return self.plain_seconds / self.seconds if self.seconds and self.plain_seconds else 1.0

    def add(self, other: SpeculationCounts) -> None:
        """Add the counts of another generation."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class SingleText:
    """One text in `Sequences`, for a `Session`."""

    def __init__(self, sequences: Sequences) -> None:
        self.sequences = sequences

    @property
    def length(self) -> int:
        """The number of tokens in the memory."""
        return self.sequences.length(0)

    def truncate(self, length: int) -> None:
        """Remove all tokens from `length` on."""
        self.sequences.truncate(0, length)


@dataclass
class Speculator:
    """What is kept of speculation from one generation of a session to the next."""

    speculation: Speculation
    proposer: Proposer
    pace: Pace

    @classmethod
    def of(cls, speculation: Speculation, sequences: Sequences, n_vocab: int) -> Speculator:
        """Return a new one for texts of a model."""
        proposer: Proposer = NgramProposer()
        if speculation.draft is not None:
            draft, config = speculation.draft, speculation.draft.config
            drafts, rows = new_sequences(draft, sequences.count), config.vocab_size
            proposer = DraftProposer(drafts, rows, config.max_seq_len, min(rows, n_vocab), speculation.most)
        elif speculation.layers is not None:
            proposer = LayersProposer(sequences, speculation.layers, n_vocab, speculation.most)
        return cls(speculation, proposer, Pace(speculation.most, speculation.adaptive))


@dataclass
class _Text:
    """A text that is generated."""

    sequence: int
    ids: list[int]
    """Prompt and answer."""
    room: int
    """The number of tokens that may still be chosen."""
    penalties: Penalties
    logits: Floats
    """[proposals + 1, n_vocab]: for the next token, and for those after each proposal."""
    kinds: list[int] = field(default_factory=list)
    proposals: list[int] = field(default_factory=list)
    accepted: int = 0
    """How many of the proposals are already tokens of the text; `logits[accepted]` is for the next token."""


class SpeculativeDecoder:
    """The texts of one generation in `Sequences`, of which each may be several tokens ahead; see `Decoder`."""

    def __init__(
        self,
        sequences: Sequences,
        speculator: Speculator,
        sampling: Sampling,
        n_vocab: int,
        room: Sequence[int],
        samples: int,
        end_ids: Collection[int],
        counts: SpeculationCounts,
    ) -> None:
        """Begin without texts.

        Args:
            sequences: The memory of the model for all texts.
            speculator: Where proposals come from.
            sampling: How tokens are chosen.
            n_vocab: The number of ids to choose from.
            room: The number of tokens that may be generated after each prompt.
            samples: The number of texts for each prompt.
            end_ids: Tokens that end a text.
            counts: What was done is added to it.
        """
        self._sequences, self._sampling, self._n_vocab = sequences, sampling, n_vocab
        self._proposer, self._pace, self._most = speculator.proposer, speculator.pace, speculator.speculation.most
        self._room, self._samples, self._end_ids, self._counts = room, samples, frozenset(end_ids), counts
        self._first: dict[int, Floats] = {}  # by prompt: the logits of the first token
        self._texts: list[_Text] = []
        self._ready: list[int] = []  # the places of the texts whose next tokens can be chosen
        self._read = 0  # texts in the last call
        self._plain = 0.0  # estimated seconds for one of their tokens without proposals

    def read(self, ids: npt.NDArray[np.int64], positions: npt.NDArray[np.int64] | None = None) -> None:
        parts = []
        for prompt, row in enumerate(ids):
            real = row if positions is None else row[positions[prompt] >= 0]
            if len(real):
                parts.append(Part(prompt * self._samples, real.tolist()))
        logits = self._sequences.read(parts)[:, : self._n_vocab]
        self._first |= {part.sequence: row[None] for part, row in zip(parts, logits, strict=True)}

    def start(self, prompts: list[list[int]], places: Sequence[int]) -> None:
        for sequence, (prompt, place) in enumerate(zip(prompts, places, strict=True)):
            source = place * self._samples
            if source != sequence:
                self._sequences.copy(source, sequence, len(prompt))
            penalties = Penalties(self._sampling, [prompt], self._n_vocab)
            text = _Text(sequence, list(prompt), self._room[place], penalties, self._first[source])
            self._texts.append(text)
            self._ready.append(sequence)
            self._sequences.reserve(sequence, len(prompt) + min(text.room, ROOM))
            self._proposer.start(sequence, prompt)

    def choose(self, draws: Sequence[float], allowed: npt.NDArray[np.bool_] | None = None) -> list[int]:
        chosen = []
        for number, (place, draw) in enumerate(zip(self._ready, draws, strict=True)):
            text = self._texts[place]
            logits = text.logits[text.accepted][None]
            if allowed is not None:
                logits = restricted(logits, allowed[number : number + 1])
            (id,) = sample(text.penalties.apply(logits), self._sampling, [draw])
            text.penalties.update([id])
            if self._read:  # not the first token, which follows the prompt
                self._counts.tokens += 1
                self._counts.plain_seconds += self._plain
            text.ids.append(id)
            text.room -= 1
            self._proposer.add(text.sequence, id)
            chosen.append(id)
        return chosen

    def logprobs(self, count: int) -> tuple[list[float], list[list[tuple[int, float]]]]:
        texts = [self._texts[place] for place in self._ready]
        rows = [log_softmax(text.logits[text.accepted]) for text in texts]
        chosen = [float(row[text.ids[-1]]) for row, text in zip(rows, texts, strict=True)]
        return chosen, [top(row, count) for row in rows]

    def keep(self, places: Sequence[int]) -> None:
        kept = set(places)
        for place, text in enumerate(self._texts):
            if place not in kept:
                self._proposer.end(text.sequence)
                self._sequences.free(text.sequence)
        self._texts = [self._texts[place] for place in places]
        chosen = set(self._ready)
        self._ready = [number for number, place in enumerate(places) if place in chosen]

    def step(self) -> list[int]:
        ahead = []
        for place in self._ready:
            text = self._texts[place]
            if text.accepted < len(text.proposals) and text.ids[-1] == text.proposals[text.accepted]:
                text.accepted += 1
                self._counts.accepted += 1
                ahead.append(place)
        if not ahead:
            self._read_ahead()
            ahead = [*range(len(self._texts))]
        self._ready = ahead
        return ahead

    def _read_ahead(self) -> None:
        """Read the last token of each text and proposals for what follows it."""
        texts = self._texts
        # 1. Learn from the last call, and make proposals.
        begin = time.perf_counter()
        for text in texts:
            self._pace.learn(self._read, text.kinds, text.accepted)
        for text in texts:
            self._sequences.truncate(text.sequence, len(text.ids) - 1)  # what was proposed and not accepted
        outlooks = [self._proposer.outlook(text.sequence, min(self._most, text.room - 1)) for text in texts]
        counts = self._pace.plan(outlooks, self._proposer.priors)
        proposals = {}
        if any(counts):
            proposals = self._proposer.propose(dict(zip((text.sequence for text in texts), counts, strict=True)))
        for text, outlook in zip(texts, outlooks, strict=True):
            text.proposals = self._possible(proposals.get(text.sequence, []))
            text.kinds = outlook[: len(text.proposals)]
            text.accepted = 0
        # 2. Read all.
        middle = time.perf_counter()
        parts = [Part(text.sequence, [text.ids[-1], *text.proposals], len(text.proposals) + 1) for text in texts]
        logits = self._sequences.read(parts)[:, : self._n_vocab]
        end = time.perf_counter()
        first = 0
        for text in texts:
            text.logits = logits[first : first + len(text.proposals) + 1]
            first += len(text.logits)
        # 3. Measure.
        made = [len(text.proposals) for text in texts]
        self._pace.record(len(texts), made, end - middle, middle - begin if any(made) else 0.0)
        plain = self._pace.plain_seconds(len(texts)) if any(made) else end - middle
        self._read, self._plain = len(texts), plain / len(texts)
        self._counts.calls += len(texts)
        self._counts.proposed += sum(made)
        self._counts.seconds += end - begin

    def _possible(self, proposals: list[int]) -> list[int]:
        """Return the proposals before one that cannot be chosen or ends the text: nothing is read after those."""
        for place, id in enumerate(proposals):
            if id in self._end_ids or id >= self._n_vocab:
                return proposals[:place]
        return proposals

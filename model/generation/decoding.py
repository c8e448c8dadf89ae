"""The prefill and decode loops: prompts of ids are continued token by token, several texts at once."""

from __future__ import annotations

import operator
import random
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from bpe.arguments import checked
from bpe.errors import InputError
from bpe.progress import phase
from model.config import ModelConfig
from model.generation.grammar import Bools, Grammar, Matcher
from model.generation.native import NativeModel
from model.generation.native_decoder import NativeDecoder
from model.generation.sampling import Sampling
from model.generation.sequences import new_sequences
from model.generation.speculation import (
    ROOM,
    SingleText,
    Speculation,
    SpeculationCounts,
    SpeculativeDecoder,
    Speculator,
)
from model.images import TiledImage, images_of

if TYPE_CHECKING:
    from model.transformer import Transformer

PREFILL = 2048  # tokens read at a time, of all prompts together; bounds the memory that long prompts need
NATIVE_PREFILL = 512  # as PREFILL, for native models: larger parts are no faster, and progress and Ctrl-C wait for one
_LONG_PROMPT = 512  # tokens; the reading of a longer prompt is shown, since it can take seconds

Finish = Literal["end", "stop", "length"]


Model: TypeAlias = Union["Transformer", NativeModel]
"""The models that generation accepts; both have the same interface."""


class Decoder(Protocol):
    """The texts of one generation in a model: their cache, and the logits that their next tokens are chosen from.

    There is one for each kind of model, so that the loop below is the same for arrays and for tensors on a device.
    """

    def read(self, ids: npt.NDArray[np.int64], positions: npt.NDArray[np.int64] | None = None) -> None:
        """Read ids of each text into the cache, [batch, time]; see `Transformer.forward` for positions."""

    def start(self, prompts: list[list[int]], places: Sequence[int]) -> None:
        """Begin to choose tokens, for several texts of one prompt.

        Args:
            prompts: The ids of the prompt of each text.
            places: The row of the prompt of each text.
        """

    def choose(self, draws: Sequence[float], allowed: Bools | None = None) -> list[int]:
        """Choose the next token of the texts whose places `step` has returned last; at first, of all texts.

        Args:
            draws: A random number in [0, 1) for each of these texts.
            allowed: Whether each token may be chosen, [these texts, n_vocab]; None if all may.
        """
        ...

    def logprobs(self, count: int) -> tuple[list[float], list[list[tuple[int, float]]]]:
        """Return the log-probability of each chosen token, and the `count` likeliest ids with theirs."""
        ...

    def keep(self, places: Sequence[int]) -> None:
        """Keep only these texts."""

    def step(self) -> list[int]:
        """Read the tokens that were chosen last, if not enough is known about those that follow them.

        Returns:
            The places of the texts whose next tokens can be chosen: of all texts, or of those that are ahead.
        """
        ...


def _decoder_of(model: Any, cache: Any, sampling: Sampling, n_vocab: int, prompt_length: int, images: Any) -> Decoder:
    if isinstance(model, NativeModel):
        return NativeDecoder(model, cache, sampling, n_vocab)
    from model.generation.tensor_decoder import TensorDecoder

    return TensorDecoder(model, cache, sampling, n_vocab, prompt_length, images)


class GeneratedToken(NamedTuple):
    """A token that was generated."""

    row: int
    """The text that it continues: prompt number * samples + sample number."""
    id: int
    logprob: float | None
    """Its log-probability in nats, before bias, penalties, grammar and temperature; None if not requested."""
    top: list[tuple[int, float]]
    """The likeliest ids at this position with their log-probabilities, as many as requested."""
    finish: Finish | None
    """Why the text ends with this token: "end" (an end token, or the grammar allows no more), or "length" (no room for
    more); None if it continues."""


class Session:
    """A text that grows over several calls, such as a chat: its KV cache and the ids in the cache.

    Each call reads only new tokens: the longest common prefix of the new prompt and the ids in the cache is kept. A
    session serves one text at a time; once a second generation starts with it, the first raises InputError.
    """

    def __init__(self, model: Model) -> None:
        self.cache: Any = model.new_cache()
        self.ids: list[int] = []
        self.images: list[TiledImage] = []
        """The images in the cache."""
        self.user: object = None
        """The iteration that started last, and the only one that may continue."""
        self.speculator: Speculator | None = None
        """What speculation keeps from call to call."""

    def __repr__(self) -> str:
        return f"<Session: {len(self.ids):,} tokens in the cache>"

    def prepare(self, model: Model, speculates: bool) -> None:
        """Make the cache one that speculative decoding uses, or does not use; a change forgets what is in it."""
        if isinstance(self.cache, SingleText) != speculates:
            self.cache = SingleText(new_sequences(model, 1)) if speculates else model.new_cache()
            self.ids, self.speculator = [], None

    def reuse(self, prompt: Sequence[int], images: Sequence[TiledImage] = (), image_token: int | None = None) -> int:
        """Truncate the cache to its common prefix with a prompt.

        Args:
            prompt: The ids of the new prompt.
            images: The images of the prompt. Nothing is kept if they are others, or not all of them are kept.
            image_token: The id that stands for an image.

        Returns:
            The number of tokens kept. At least the last token of the prompt is left to read, since its logits choose
            the next token.
        """
        same = 0
        for old, new in zip(self.ids, prompt[:-1], strict=False):
            if old != new:
                break
            same += 1
        same = min(same, self.cache.length)  # less than `ids` if reading them again was interrupted
        equal = len(self.images) == len(images) and all(map(operator.is_, self.images, images))
        if not equal or image_token in prompt[same:]:
            same = 0
        self.images = list(images)
        del self.ids[same:]  # first, so that after an interruption the cache holds all of `ids`
        self.cache.truncate(same)
        return same


@dataclass
class GenerationTimes:
    """Token counts and times of a generation, without the time that the caller spends between steps."""

    prefill_tokens: int = 0
    """Prompt tokens read."""
    prefill_seconds: float = 0.0
    """Seconds until the first token of each text was chosen."""
    decode_tokens: int = 0
    """Tokens chosen after that, in all texts."""
    decode_seconds: float = 0.0


class Generation:
    """Continues several prompts at once, each to its own end. Iterating yields the tokens of each step.

    A text does not depend on the other texts: each draws with its own seed, `sampling.seed` plus the sample number.
    """

    @checked
    def __init__(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int = 1,
        max_tokens: int = 256,
        sampling: Sampling | None = None,
        end_ids: Collection[int] = (),
        n_vocab: int | None = None,
        logprobs: int | None = None,
        session: Session | None = None,
        images: Sequence[TiledImage] = (),
        grammar: Grammar | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        """Check the arguments. Nothing is generated before iteration.

        Args:
            model: The model.
            prompts: The ids of each prompt; lengths may differ.
            samples: The number of texts for each prompt. A prompt is read once for all of them.
            max_tokens: The largest number of tokens to generate in each text. The end of the model's context may come
                first.
            sampling: How tokens are chosen. Defaults to `Sampling()`.
            end_ids: Tokens that end a text. They are yielded, with finish="end".
            n_vocab: The number of ids to choose from, if the model has more rows than its tokenizer has tokens.
            logprobs: The number of likeliest tokens whose log-probabilities are yielded, in addition to that of the
                chosen token; None for no log-probabilities.
            session: Keeps the cache for the next call; for one prompt and one sample.
            images: The images of each prompt, one for each of its image tokens.
            grammar: What each text must be, compiled for `n_vocab` and `end_ids`; a text ends where the grammar allows
                no more.
            speculation: How tokens are proposed, to verify several in one call; None for one token in each call. The
                texts are the same.

        Raises:
            InputError: When an argument is out of range, or a prompt does not fit the model.
        """
        config = model.config
        if max_tokens < 0:
            raise InputError(f"max_tokens is {max_tokens}; it must not be negative")
        if samples < 1:
            raise InputError(f"samples is {samples}; it must be at least 1")
        if n_vocab is not None and not 0 < n_vocab <= config.vocab_size:
            raise InputError(f"n_vocab is {n_vocab}; it must be 1 to {config.vocab_size}, the model's vocabulary")
        if logprobs is not None and not 0 <= logprobs <= (n_vocab or config.vocab_size):
            raise InputError(f"logprobs is {logprobs}; it must be between 0 and the number of tokens")
        if session is not None and (len(prompts) != 1 or samples != 1):
            raise InputError("a session continues one text; give one prompt and one sample")
        for prompt in prompts:
            _check_prompt(prompt, config.embedding_rows, config.max_seq_len)
            _check_images(prompt, config, len(images))
        self.model: Any = model  # Any: each kind of model takes only its own kind of cache
        self.prompts: list[list[int]] = [list(prompt) for prompt in prompts]
        self.samples = samples
        self.max_tokens = max_tokens
        self.sampling: Sampling = sampling or Sampling()
        self.end_ids: frozenset[int] = frozenset(end_ids)
        self.n_vocab: int = n_vocab or config.vocab_size
        self.logprobs = logprobs
        self.session = session
        self.images: list[TiledImage] = list(images)
        self.grammar = grammar
        if grammar is not None:
            grammar.check_vocabulary(self.n_vocab, self.end_ids)
        if speculation is not None:
            speculation.check(model, has_images=bool(images))
        self.speculation = speculation
        self.speculated: SpeculationCounts = SpeculationCounts()
        """What speculation did in this generation."""
        outside = [id for id in self.sampling.logit_bias if not 0 <= id < self.n_vocab]
        if outside:
            raise InputError(f"logit_bias has the id {outside[0]}; ids must be 0 to {self.n_vocab - 1}")
        self.times: GenerationTimes = GenerationTimes()
        self._room = [min(max_tokens, config.max_seq_len - len(prompt)) for prompt in self.prompts]
        self._dropped: set[int] = set()

    def __repr__(self) -> str:
        counts = f"{len(self.prompts)} prompts, samples={self.samples}, max_tokens={self.max_tokens}"
        return f"<Generation: {counts}, {self.sampling!r}>"

    def drop(self, row: int) -> None:
        """Stop generating in this row."""
        self._dropped.add(row)

    def __iter__(self) -> Iterator[list[GeneratedToken]]:
        self.times, self._dropped, steps = GenerationTimes(), set(), self._steps()
        start = time.perf_counter()
        for step, tokens in enumerate(steps):
            seconds = time.perf_counter() - start
            if step == 0:
                self.times.prefill_seconds = seconds
            else:
                self.times.decode_seconds += seconds
                self.times.decode_tokens += len(tokens)
            yield tokens
            start = time.perf_counter()

    def _steps(self) -> Iterator[list[GeneratedToken]]:
        if not any(self._room):  # no prompts, or max_tokens is 0
            return
        # 1. Read the prompts (prefill).
        turn = object()
        if self.session is not None:
            self.session.user = turn
        decoder = self._prefill()
        # 2. Copy the cache for several samples of one prompt, instead of reading the prompt again.
        rows = list(range(len(self.prompts) * self.samples))
        prompt_of = [row // self.samples for row in rows]
        decoder.start([self.prompts[prompt] for prompt in prompt_of], prompt_of)
        left = [self._room[prompt] for prompt in prompt_of]
        generators = [self._generator(row) for row in rows]
        matchers = [self.grammar.start() for _ in rows] if self.grammar is not None else []
        ready = [*range(len(rows))]
        while True:
            # 3. Choose the next token of each row, or of those that speculation has brought ahead of the others.
            now = [rows[place] for place in ready]
            texts = [matchers[row] for row in now] if matchers else []
            allowed = np.array([text.allowed() for text in texts]) if texts else None
            ids = decoder.choose([generators[row].random() for row in now], allowed)
            for text, id in zip(texts, ids, strict=False):  # no texts without a grammar
                text.accept(id)
            for row in now:
                left[row] -= 1
            tokens = self._tokens(now, ids, decoder, left, texts)
            # 4. Yield the tokens, and keep the rows that continue.
            yield tokens
            ended = self._dropped.union(token.row for token in tokens if token.finish)
            kept = [place for place, row in enumerate(rows) if row not in ended]
            if not kept:
                return
            if self.session is not None and self.session.user is not turn:
                raise InputError("another generation has used this session since; give each text its own session")
            if len(kept) < len(rows):
                rows = [rows[place] for place in kept]
                decoder.keep(kept)
            # 5. Read one token of each row (decode), unless it was read as a proposal.
            ready = decoder.step()
            if self.session is not None:
                self.session.ids += ids

    def _prefill(self) -> Decoder:
        """Read all prompts."""
        token, read = self.model.config.image_token, 0
        if self.session is not None:
            self.session.prepare(self.model, self.speculation is not None)
            read = self.session.reuse(self.prompts[0], self.images, token)
        longest = max(map(len, self.prompts))
        # Prompts are padded on the left, so that all end at the same slot and each step writes into one slot.
        padding = [longest - len(prompt) for prompt in self.prompts]
        ids = np.array([[0] * count + prompt for count, prompt in zip(padding, self.prompts, strict=True)], np.int64)
        positions = None
        if any(padding):
            positions = (np.arange(longest) - np.array(padding)[:, None]).clip(min=-1)
        images = None
        if self.images and not read:
            images = images_of(self.model.config, ids.tolist(), [self.images] * len(ids), self.model.device)
        decoder = self._decoder(longest, images) if self.speculation is None else self._speculative(self.speculation)
        self.times.prefill_tokens = sum(map(len, self.prompts)) - read
        part = min(PREFILL, NATIVE_PREFILL) if isinstance(self.model, NativeModel) else PREFILL
        count = max(1, part // len(self.prompts))
        shown = phase("reading", longest - read, "tokens") if longest - read > _LONG_PROMPT else nullcontext()
        with shown as reading:
            for start in range(read, longest, count):
                if reading is not None:
                    reading.update(start - read)
                chunk = slice(start, start + count)
                decoder.read(ids[:, chunk], None if positions is None else positions[:, chunk])
                if self.session is not None:
                    self.session.ids += self.prompts[0][chunk]
        return decoder

    def _decoder(self, longest: int, images: Any) -> Decoder:
        if self.session is not None:
            cache = self.session.cache
        else:
            cache = self.model.new_cache(len(self.prompts), longest + min(max(self._room), ROOM))
        return _decoder_of(self.model, cache, self.sampling, self.n_vocab, longest, images)

    def _speculative(self, speculation: Speculation) -> Decoder:
        session = self.session
        if session is None:
            sequences, speculator = new_sequences(self.model, len(self.prompts) * self.samples), None
        else:
            sequences, speculator = session.cache.sequences, session.speculator
        if speculator is None or speculator.speculation is not speculation:
            speculator = Speculator.of(speculation, sequences, self.n_vocab)
        if session is not None:
            session.speculator = speculator
        self.speculated = SpeculationCounts()
        return SpeculativeDecoder(
            sequences,
            speculator,
            self.sampling,
            self.n_vocab,
            self._room,
            self.samples,
            self.end_ids,
            self.speculated,
        )

    def _generator(self, row: int) -> random.Random:
        """Return the source of the random numbers of a row: the same numbers for every model, device and machine."""
        seed = self.sampling.seed
        return random.Random() if seed is None else random.Random((seed + row % self.samples) % 2**64)

    def _tokens(
        self, rows: list[int], ids: list[int], decoder: Decoder, left: list[int], texts: list[Matcher]
    ) -> list[GeneratedToken]:
        logprobs: Sequence[float | None] = [None] * len(rows)
        tops: list[list[tuple[int, float]]] = [[] for _ in rows]
        if self.logprobs is not None:
            logprobs, tops = decoder.logprobs(self.logprobs)
        ended = [text.finished for text in texts] or [False] * len(rows)
        tokens = []
        for row, id, logprob, top, is_end in zip(rows, ids, logprobs, tops, ended, strict=True):
            finish: Finish | None = "end" if is_end or id in self.end_ids else "length" if left[row] == 0 else None
            tokens.append(GeneratedToken(row, id, logprob, top, finish))
        return tokens


def _check_images(ids: Sequence[int], config: ModelConfig, count: int) -> None:
    if config.image_token is None:
        if count:
            raise InputError("images are given, but the model takes none; leave them out")
        return
    found = sum(id == config.image_token for id in ids)
    if found != count:
        raise InputError(
            f"the prompt has {found} image tokens, but {count} images are given; put one token for each image"
        )


def _check_prompt(ids: Sequence[int], vocab_size: int, context: int) -> None:
    if not ids:
        raise InputError("the prompt is empty and no token begins a text; give at least one character")
    if not 0 <= min(ids) <= max(ids) < vocab_size:
        raise InputError(f"the prompt has ids from {min(ids)} to {max(ids)}; ids must be 0 to {vocab_size - 1}")
    if len(ids) >= context:
        raise InputError(
            f"the prompt has {len(ids):,} tokens, but the model's context holds {context:,} for prompt and answer; "
            f"shorten the prompt to {context - 1:,} tokens or fewer"
        )

"""From prompts to texts: the prefill and decode loops, several texts at once, and streaming of whole characters."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from bpe.errors import InputError
from model.cache import KVCache
from model.cpu import one_thread
from model.generation.native import NativeCache, NativeModel
from model.generation.sampling import Penalties, Sampling, sample
from model.transformer import Transformer

PREFILL = 2048  # tokens, of all prompts together, that are read at a time: what bounds the memory of long prompts
ROOM = 1024  # tokens of the answers that memory is taken for at first; a longer answer takes more when it is there

Finish = Literal["end", "stop", "length"]


Model: TypeAlias = Transformer | NativeModel
"""What generation can read with; the two are used alike."""


class GeneratedToken(NamedTuple):
    """A token that was chosen."""

    row: int
    """Which text it continues: the number of the prompt * samples + the number of the sample."""
    id: int
    logprob: float | None
    """Of the model's own distribution, in nats, before bias, penalties and temperature; None if not asked for."""
    top: list[tuple[int, float]]
    """The likeliest ids there and their log-probabilities, as many as were asked for."""
    finish: Finish | None
    """Whether the row ends with it: "end", it is one of the end ids; "length", there is room for no more."""


class Session:
    """A text that goes on over several calls, such as a chat: its KV cache, and the ids that this holds.

    Each call reads only what is new: the longest beginning that the new prompt has in common with what was read last is
    not read again. One text at a time: where a second one begins, the first can go on no more.
    """

    def __init__(self, model: Model) -> None:
        self.cache = model.new_cache()
        self.ids: list[int] = []
        self.user: object = None
        """Whose text it goes on with now: the iteration that began last."""

    def reuse(self, prompt: Sequence[int]) -> int:
        """Cut the cache to what it has in common with the prompt, and say how many tokens that is.

        At least the prompt's last token is left to be read, since its logits are what comes next.
        """
        same = 0
        for old, new in zip(self.ids, prompt[:-1], strict=False):
            if old != new:
                break
            same += 1
        del self.ids[same:]  # first, so that an interruption leaves no ids that the cache does not have
        self.cache.truncate(same)
        return same


@dataclass
class GenerationTimes:
    """What was done and how long it took, the caller's own work between the steps left out."""

    prefill_tokens: int = 0
    """Read of the prompts."""
    prefill_seconds: float = 0.0
    """Until the first token of each text was chosen."""
    decode_tokens: int = 0
    """Chosen after that, in all texts."""
    decode_seconds: float = 0.0


class Generation:
    """Continues prompts, all at once, each to its own end; iterating gives the tokens of each step.

    prompts: ids; they may differ in length.
    samples: how many texts for each prompt, from one reading of it.
    max_tokens: how many tokens to write at most in each text; the end of the model's context may come first.
    end_ids: tokens that end a text; they are given out, with finish="end".
    n_vocab: choose among the first so many ids, where a model has more rows than its tokenizer has tokens.
    logprobs: how many of the likeliest tokens to tell the log-probabilities of, beside the chosen one's; None for none.
    session: keeps what was read for the next call; for one prompt and one sample.

    A row's text does not depend on the others: each draws with a seed of its own, `sampling.seed` plus the number of
    the sample.

    Raises InputError, when made, for arguments out of range and for prompts that do not fit.
    """

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
    ) -> None:
        config = model.config
        if max_tokens < 0:
            raise InputError(f"max_tokens is {max_tokens}; it cannot be negative")
        if samples < 1:
            raise InputError(f"samples is {samples}; it must be at least 1")
        if n_vocab is not None and not 0 < n_vocab <= config.vocab_size:
            raise InputError(f"n_vocab is {n_vocab}; the model has {config.vocab_size} tokens")
        if logprobs is not None and not 0 <= logprobs <= (n_vocab or config.vocab_size):
            raise InputError(f"logprobs is {logprobs}; it must be between 0 and the number of tokens")
        if session is not None and (len(prompts) != 1 or samples != 1):
            raise InputError("a session goes on with one text; give one prompt, and one sample")
        for prompt in prompts:
            _check_prompt(prompt, config.vocab_size, config.max_seq_len)
        self.model: Any = model  # which is given caches of its own only
        self.prompts = [list(prompt) for prompt in prompts]
        self.samples = samples
        self.sampling = sampling or Sampling()
        self.end_ids = frozenset(end_ids)
        self.n_vocab = n_vocab or config.vocab_size
        self.logprobs = logprobs
        self.session = session
        outside = [id for id in self.sampling.logit_bias if not 0 <= id < self.n_vocab]
        if outside:
            raise InputError(f"logit_bias names the id {outside[0]}; the ids go from 0 to {self.n_vocab - 1}")
        self.times = GenerationTimes()
        self._device = model.device
        self._native = isinstance(model, NativeModel)
        self._room = [min(max_tokens, config.max_seq_len - len(prompt)) for prompt in self.prompts]
        self._dropped: set[int] = set()

    def drop(self, row: int) -> None:
        """Write no more in this row."""
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
        if not any(self._room):  # nothing is asked for, or nobody asks
            return
        # 1. Read the prompts (prefill).
        turn = object()
        if self.session is not None:
            self.session.user = turn
        cache, logits = self._prefill()
        # 2. Several texts begin with one prompt: what was read is copied, not read again.
        rows = list(range(len(self.prompts) * self.samples))
        prompt_of = [row // self.samples for row in rows]
        if self.samples > 1:
            places = torch.tensor(prompt_of, device=self._device)
            logits = logits[places]
            cache.select(places)
        left = [self._room[prompt] for prompt in prompt_of]
        generators = [self._generator(row) for row in rows]
        said = [self.prompts[prompt] for prompt in prompt_of]
        penalties = Penalties(self.sampling, said, self.n_vocab, self._device)
        while True:
            # 3. Choose the token that comes next in each row.
            with torch.inference_mode(), one_thread(self._native):
                draws = [torch.rand(1, dtype=torch.float64, generator=generators[row]) for row in rows]
                ids = sample(penalties.apply(logits), self.sampling, torch.cat(draws))
                penalties.say(ids)
                for row in rows:
                    left[row] -= 1
                tokens = self._tokens(rows, ids.tolist(), logits, left)
            # 4. Hand them out, and keep the rows that go on.
            yield tokens
            kept = [place for place, token in enumerate(tokens) if not (token.finish or token.row in self._dropped)]
            if not kept:
                return
            if self.session is not None and self.session.user is not turn:
                raise InputError("another text has gone on with this session; give each text a session of its own")
            with torch.inference_mode():
                if len(kept) < len(rows):
                    rows = [rows[place] for place in kept]
                    places = torch.tensor(kept, device=self._device)
                    ids = ids[places]
                    cache.select(places)
                    penalties.select(places)
                # 5. Read them: one token of each row (decode).
                logits = self.model(ids[:, None], cache, last_only=True)[:, -1, : self.n_vocab]  # [b, vocabulary]
            if self.session is not None:
                self.session.ids += ids.tolist()

    def _prefill(self) -> tuple[KVCache | NativeCache, Tensor]:
        """The cache with all prompts read, and the logits [prompts, vocabulary] of what follows each."""
        read = 0 if self.session is None else self.session.reuse(self.prompts[0])
        longest = max(map(len, self.prompts))
        # Prompts are padded on the left, so that they end together and each step writes into one slot.
        padding = [longest - len(prompt) for prompt in self.prompts]
        padded = [[0] * count + prompt for count, prompt in zip(padding, self.prompts, strict=True)]
        ids, positions = torch.tensor(padded, device=self._device), None
        if any(padding):
            positions = torch.arange(longest) - torch.tensor(padding)[:, None]
            positions = positions.clamp(min=-1).to(self._device)
        if self.session is not None:
            cache = self.session.cache
        else:
            cache = self.model.new_cache(len(self.prompts), longest + min(max(self._room), ROOM))
        self.times.prefill_tokens = sum(map(len, self.prompts)) - read
        count = max(1, PREFILL // len(self.prompts))
        with torch.inference_mode():
            for start in range(read, longest, count):
                chunk = slice(start, start + count)
                at = None if positions is None else positions[:, chunk]
                logits = self.model(ids[:, chunk], cache, positions=at, last_only=True)
                if self.session is not None:
                    self.session.ids += self.prompts[0][chunk]
        return cache, logits[:, -1, : self.n_vocab]

    def _generator(self, row: int) -> torch.Generator:
        generator = torch.Generator()
        if self.sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed((self.sampling.seed + row % self.samples) % 2**64)
        return generator

    def _tokens(self, rows: list[int], ids: list[int], logits: Tensor, left: list[int]) -> list[GeneratedToken]:
        logprobs: list[float] | list[None] = [None] * len(rows)
        tops: list[list[tuple[int, float]]] = [[] for _ in rows]
        if self.logprobs is not None:
            normalised = logits.float().log_softmax(-1)
            logprobs = normalised[torch.arange(len(rows)), ids].tolist()
            values, likeliest = normalised.topk(self.logprobs)
            tops = [list(zip(*pair, strict=True)) for pair in zip(likeliest.tolist(), values.tolist(), strict=True)]
        tokens = []
        for row, id, logprob, top in zip(rows, ids, logprobs, tops, strict=True):
            finish: Finish | None = "end" if id in self.end_ids else "length" if left[row] == 0 else None
            tokens.append(GeneratedToken(row, id, logprob, top, finish))
        return tokens


def _check_prompt(ids: Sequence[int], vocab_size: int, context: int) -> None:
    if not ids:
        raise InputError("the prompt is empty and there is no token that begins a text; give at least one character")
    if not 0 <= min(ids) <= max(ids) < vocab_size:
        raise InputError(f"the prompt has ids from {min(ids)} to {max(ids)}; the model's go from 0 to {vocab_size - 1}")
    if len(ids) >= context:
        raise InputError(
            f"the prompt has {len(ids)} tokens and the context of the model holds {context}, the answer included; "
            f"shorten the prompt to {context - 1} tokens or fewer"
        )

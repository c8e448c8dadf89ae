"""Continuous batching: many texts of one model at once, of which each starts and ends on its own.

One thread reads and chooses. Each of its steps is one call of the model: the next token of every running text, and a
bounded part of the prompts that are being read. Between two steps, texts start, end and are cancelled. A text does not
depend on what else is in a step: its ids are those that it has alone.

Texts start in the order in which they were submitted, each as soon as there is a sequence and memory for all the tokens
that it may come to. Prompts are read in the same order.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bpe.errors import InputError
from model.generation.sampling import Floats
from model.generation.sequences import Part, Sequences, new_sequences
from model.memory import return_freed_memory
from model.serving.choosing import Choice, Chooser, choose_all
from model.serving.prefixes import Ids, Prefixes, Slot
from model.serving.texts import Busy, Chosen, Finish, Statistics, TextRequest

CHUNK = 256  # tokens of prompts in a step; more make running texts wait longer, fewer read prompts more slowly
_IDLE = 10.0  # seconds without texts, after which memory that was freed returns to the system
_LOG = logging.getLogger(__name__)
_RECENT = 32  # ended texts that the rate is estimated from
_STOPPING = "the server is shutting down"


class Handle:
    """A request that was accepted."""

    def __init__(self, scheduler: Scheduler, job: _Job) -> None:
        self._scheduler, self._job = scheduler, job

    @property
    def reused_tokens(self) -> int:
        """Tokens of the prompt that were in memory when its first text started, so that they were not read."""
        return self._job.reused

    def cancel(self, index: int | None = None) -> None:
        """End texts within a step. Nothing of them is delivered after the call that is being made now.

        Args:
            index: The text; None for all texts of the request.
        """
        self._scheduler._cancel(self._job, range(self._job.request.n) if index is None else (index,))


class _Job:
    """A request, and what its texts share."""

    def __init__(self, request: TextRequest, deliver: Callable[[list[Chosen]], None]) -> None:
        self.request, self.deliver = request, deliver
        self.prompt: Ids = np.array(request.ids, np.int64)
        self.cancelled: set[int] = set()  # indices of texts
        self.reused = 0  # tokens that the first text did not read
        self.is_reading = False  # whether one of its texts is reading the prompt
        self.logits: Floats | None = None  # of the token after the prompt, while texts wait that have not started
        self.unstarted = request.n
        self.pending: list[Chosen] = []


@dataclass(eq=False)
class _Text:
    """A text that waits or runs."""

    job: _Job
    index: int
    limit: int  # tokens of prompt and answer
    slot: Slot | None = None
    chooser: Chooser | None = None
    next: int | None = None  # the token that was chosen and is not in memory
    left: int = 0  # tokens that it may still come to

    @property
    def is_cancelled(self) -> bool:
        return self.index in self.job.cancelled


class Scheduler:
    """Generates the texts of many requests at once. Its methods may be called from any thread."""

    def __init__(
        self,
        model: Any,
        *,
        parallel: int = 8,
        context: int | None = None,
        memory: int | None = None,
        waiting: int = 64,
        n_vocab: int | None = None,
        sequences: Sequences | None = None,
    ) -> None:
        """Check the settings. Nothing runs before `start`.

        Args:
            model: The model.
            parallel: The largest number of texts that run at the same time.
            context: The largest number of tokens of a text, prompt and answer. Defaults to the model's context.
            memory: The largest number of bytes of keys and values, of running texts and of ended texts that are kept.
                Defaults to what `parallel` texts of `context` tokens need.
            waiting: The number of waiting texts from which on requests are refused.
            n_vocab: The number of ids to choose from, if the model has more rows than its tokenizer has tokens.
            sequences: The memory of keys and values, for `2 * parallel` texts. Defaults to a new one of the model.

        Raises:
            InputError: When a setting is out of range.
        """
        config = model.config
        if parallel < 1:
            raise InputError(f"parallel is {parallel}; it must be at least 1")
        if waiting < 0:
            raise InputError(f"waiting is {waiting}; it must not be negative")
        if context is not None and not 2 <= context <= config.max_seq_len:
            raise InputError(f"context is {context:,}; it must be 2 to {config.max_seq_len:,}, the model's context")
        if n_vocab is not None and not 0 < n_vocab <= config.vocab_size:
            raise InputError(f"n_vocab is {n_vocab}; it must be 1 to {config.vocab_size}, the model's vocabulary")
        self.model, self.parallel, self.waiting = model, parallel, waiting
        self.context: int = context or config.max_seq_len
        self.n_vocab: int = n_vocab or config.vocab_size
        self._sequences = new_sequences(model, 2 * parallel) if sequences is None else sequences
        needed = self._sequences.bytes_for(self.context)
        self.memory: int = parallel * needed if memory is None else memory
        if self.memory < self._sequences.bytes_for(2):
            raise InputError(
                f"memory is {self.memory:,} bytes, but keys and values of two tokens take "
                f"{self._sequences.bytes_for(2):,}; allow more"
            )
        self._prefixes = Prefixes(self._sequences, self.memory)
        self._changed = threading.Condition()
        self._queue: deque[_Text] = deque()  # guarded by _changed
        self._running: list[_Text] = []  # only the thread changes it, in the order in which texts started
        self._statistics = Statistics()
        self._reporting: list[_Job] = []  # with tokens to deliver
        self._ends: deque[float] = deque(maxlen=_RECENT)  # when texts ended
        self._stops_at: float | None = None
        self._thread: threading.Thread | None = None

    # The side of the callers

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def submit(self, request: TextRequest, deliver: Callable[[list[Chosen]], None]) -> Handle:
        """Accept a request.

        Args:
            request: The texts to generate.
            deliver: Called from the scheduler's thread after each step with the new tokens of the request, of all its
                texts. It must return at once: hand the tokens over to the thread that uses them. If it raises, the
                request is cancelled.

        Raises:
            InputError: When the request does not fit the model, the context or the memory.
            Busy: When too many texts are waiting, or the scheduler is stopping.
        """
        limit = self._check(request)
        job = _Job(request, deliver)
        texts = [_Text(job, index, limit) for index in range(request.n)]
        with self._changed:
            if self._stops_at is not None:
                self._statistics.refused += 1
                raise Busy(_STOPPING, 1, is_stopping=True)
            too_many = len(self._queue) + len(texts) - max(self.parallel - len(self._running), 0) - self.waiting
            if too_many > 0:
                self._statistics.refused += 1
                raise Busy(
                    f"{len(self._queue):,} texts are waiting, and no more than {self.waiting:,} may",
                    self._retry_after(too_many),
                )
            self._queue.extend(texts)
            self._statistics.requests += 1
            self._changed.notify_all()
        return Handle(self, job)

    def stop(self, deadline_seconds: float = 0.0) -> None:
        """Refuse new requests, finish the accepted ones, and end the thread.

        Args:
            deadline_seconds: After these seconds, texts that are not finished end: with finish="length" if they have
                begun to be generated, otherwise with finish="error".
        """
        with self._changed:
            self._stops_at = time.monotonic() + max(deadline_seconds, 0)
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def statistics(self) -> Statistics:
        """Return the counters and gauges."""
        with self._changed:
            return replace(
                self._statistics,
                running=len(self._running),
                waiting=len(self._queue),
                kept=self._prefixes.kept,
                kv_bytes=self._prefixes.bytes,
                kv_limit=self.memory,
            )

    def _check(self, request: TextRequest) -> int:
        """Raise InputError for a request that can never be served; return the tokens that a text may come to."""
        ids, sampling = request.ids, request.sampling
        rows = self.model.config.embedding_rows
        if not len(ids):
            raise InputError("the prompt is empty; give at least one token")
        if not 0 <= min(ids) <= max(ids) < rows:
            raise InputError(f"the prompt has ids from {min(ids)} to {max(ids)}; ids must be 0 to {rows - 1}")
        if len(ids) >= self.context:
            raise InputError(
                f"the prompt has {len(ids):,} tokens, but the context holds {self.context:,} for prompt and answer; "
                f"shorten the prompt to {self.context - 1:,} tokens or fewer"
            )
        if request.max_tokens < 1:
            raise InputError(f"max_tokens is {request.max_tokens}; it must be at least 1")
        if request.n < 1:
            raise InputError(f"n is {request.n}; it must be at least 1")
        if request.n > self.parallel + self.waiting:
            raise InputError(
                f"n is {request.n:,}, but at most {self.parallel:,} texts run and {self.waiting:,} wait at the same "
                "time; lower n"
            )
        if request.logprobs is not None and not 0 <= request.logprobs <= self.n_vocab:
            raise InputError(f"logprobs is {request.logprobs}; it must be between 0 and {self.n_vocab}")
        outside = [id for id in sampling.logit_bias if not 0 <= id < self.n_vocab]
        if outside:
            raise InputError(f"logit_bias has the id {outside[0]}; ids must be 0 to {self.n_vocab - 1}")
        limit = min(len(ids) + request.max_tokens, self.context)
        if not self._prefixes.fits(limit):
            raise InputError(
                f"the prompt's {len(ids):,} tokens and max_tokens {request.max_tokens:,} need "
                f"{self._sequences.bytes_for(limit):,} bytes of keys and values, but the server has {self.memory:,}; "
                "lower max_tokens or shorten the prompt"
            )
        return limit

    def _retry_after(self, texts: int) -> int:
        """Estimate the seconds until so many texts have ended."""
        if len(self._ends) < 2:
            return 1
        seconds = (time.monotonic() - self._ends[0]) / len(self._ends)
        return max(1, min(math.ceil(texts * seconds), 600))

    def _cancel(self, job: _Job, indices: Iterable[int]) -> None:
        with self._changed:
            job.cancelled.update(indices)
            waiting = [text for text in self._queue if not text.is_cancelled]
            self._statistics.cancelled += len(self._queue) - len(waiting)
            self._queue = deque(waiting)
            self._changed.notify_all()

    # The thread

    def _run(self) -> None:
        while True:
            with self._changed:
                seconds: float | None = _IDLE
                while not (self._running or self._queue or self._stops_at is not None):
                    if not self._changed.wait(seconds):
                        return_freed_memory()
                        seconds = None
                over = self._stops_at is not None and time.monotonic() >= self._stops_at
                if over or (self._stops_at is not None and not (self._running or self._queue)):
                    break
            try:
                self._step()
            except Exception as error:  # a mistake of ours must not end the thread
                _LOG.exception("a step failed")
                for text in [*self._running]:
                    self._fail(text, error)
                self._deliver()
        with self._changed:
            unstarted, self._queue = [*self._queue], deque()
        for text in [*self._running]:
            if text.chooser is not None and text.next is not None:
                self._cut(text)
            else:
                self._fail(text, RuntimeError(_STOPPING))
        for text in unstarted:
            self._fail(text, RuntimeError(_STOPPING))
        self._deliver()

    def _step(self) -> None:
        """Start and end texts, and read and choose once."""
        for text in [text for text in self._running if text.is_cancelled]:
            self._leave(text)
            with self._changed:
                self._statistics.cancelled += 1
        rows = self._start_texts()
        texts, parts = self._plan()
        if parts:
            rows += self._read(texts, parts)
        self._choose(rows)
        self._deliver()

    def _start_texts(self) -> list[tuple[_Text, Floats]]:
        """Start waiting texts, in their order, while there are sequences and memory.

        Returns:
            The texts whose whole prompt is in memory, with the logits of their first token.
        """
        ready = []
        while len(self._running) < self.parallel:
            with self._changed:
                text = self._queue[0] if self._queue else None
            if text is None or text.job.is_reading:
                break
            job = text.job
            error = slot = None
            try:
                slot = self._prefixes.take(job.prompt, text.limit, len(job.prompt) - (job.logits is None))
            except Exception as failed:
                _LOG.warning("a text could not be started: %s", failed)
                error = failed
            if slot is None and error is None:
                break
            with self._changed:
                is_first = bool(self._queue) and self._queue[0] is text
                if is_first:
                    self._queue.popleft()
                    self._running += [text] if slot is not None else []
            if slot is None:
                if is_first and error is not None:
                    self._fail(text, error)
                continue
            if not is_first:  # it was cancelled meanwhile
                self._prefixes.release(slot)
                continue
            logits = self._start(text, slot)
            if logits is not None:
                ready.append((text, logits))
        return ready

    def _start(self, text: _Text, slot: Slot) -> Floats | None:
        """Start a text in a slot; return the logits of its first token if the slot holds its whole prompt."""
        job, request = text.job, text.job.request
        text.slot, text.left = slot, text.limit - len(job.prompt)
        self._statistics.prompt_tokens += len(job.prompt)
        self._statistics.reused_tokens += slot.length
        if job.unstarted == request.n:
            job.reused = slot.length
        logits = job.logits if slot.length == len(job.prompt) else None
        if logits is None:
            job.is_reading = True
        else:
            slot.prompt = None
        job.unstarted -= 1
        if not job.unstarted:
            job.logits = None
        try:
            text.chooser = Chooser(
                request.ids, self.n_vocab, request.sampling, text.index, request.logprobs, request.grammar
            )
        except Exception as error:  # of a grammar
            self._fail(text, error)
            return None
        return logits

    def _plan(self) -> tuple[list[_Text], list[Part]]:
        """Return what the next call reads: a token of each text that is generated, and a chunk of prompts."""
        texts, parts, room, grain = [], [], CHUNK, self._sequences.grain
        for text in self._running:
            slot = text.slot
            assert slot is not None
            if text.next is not None:
                part = Part(slot.number, [text.next])
            elif slot.prompt is not None and room:
                end = min(slot.length + room, len(slot.prompt))
                if end < len(slot.prompt):
                    end -= end % grain
                if end <= slot.length and room == CHUNK:  # the grain is coarser than a chunk
                    end = min(slot.length - slot.length % grain + grain, len(slot.prompt))
                if end <= slot.length:
                    continue
                room -= end - slot.length
                part = Part(slot.number, slot.prompt[slot.length : end].tolist(), int(end == len(slot.prompt)))
            else:
                continue
            texts.append(text)
            parts.append(part)
        return texts, parts

    def _read(self, texts: list[_Text], parts: list[Part]) -> list[tuple[_Text, Floats]]:
        """Read parts in one call, and return the logits that were wanted.

        If the call fails, each part is read in a call of its own, and only the texts end whose own calls fail.
        """
        begun = time.perf_counter()
        rows: list[tuple[_Text, Floats]] = []
        try:
            logits = self._call(texts, parts)
        except Exception as error:
            _LOG.warning("a call of the model failed, so its texts are read one by one: %s", error)
            self._prefixes.drop_kept()  # perhaps memory is short
            for text, part in zip(texts, parts, strict=True):
                try:
                    alone = self._call([text], [part])
                except Exception as own:
                    self._fail(text, own, keep=False)
                    continue
                rows += self._record(text, part, alone)
        else:
            done = 0
            for text, part in zip(texts, parts, strict=True):
                rows += self._record(text, part, logits[done : done + part.wanted])
                done += part.wanted
        self._statistics.steps += 1
        self._statistics.step_tokens += sum(len(part.ids) for part in parts)
        self._statistics.model_seconds += time.perf_counter() - begun
        return rows

    def _call(self, texts: list[_Text], parts: list[Part]) -> Floats:
        """Read parts in one call; if it fails, nothing was read."""
        slots = [text.slot for text in texts if text.slot is not None]
        try:
            for slot, part in zip(slots, parts, strict=True):
                self._prefixes.grow(slot, slot.length + len(part.ids))
            logits: Floats = self._sequences.read(parts)
            return logits
        except BaseException:
            for slot in slots:
                if self._sequences.length(slot.number) > slot.length:
                    self._sequences.truncate(slot.number, slot.length)
            raise

    def _record(self, text: _Text, part: Part, logits: Floats) -> list[tuple[_Text, Floats]]:
        """Record that a part was read; return the logits that the next token is chosen from, if it is to be chosen."""
        slot, job = text.slot, text.job
        assert slot is not None
        slot.append(part.ids)
        if slot.prompt is not None:
            self._statistics.read_tokens += len(part.ids)
        if not part.wanted:
            return []
        row = logits[0, : self.n_vocab]
        if slot.prompt is not None:
            slot.prompt, job.is_reading = None, False
            if job.unstarted:
                job.logits = row.copy()
        return [(text, row)]

    def _choose(self, rows: list[tuple[_Text, Floats]]) -> None:
        """Choose the next token of each text from its logits."""
        begun = time.perf_counter()
        rows = [(text, row) for text, row in rows if not text.is_cancelled]
        choices = choose_all([text.chooser for text, _ in rows if text.chooser], [row for _, row in rows])
        for (text, _), choice in zip(rows, choices, strict=True):
            if isinstance(choice, Choice):
                self._add(text, choice)
            else:
                self._fail(text, choice)
        self._statistics.choose_seconds += time.perf_counter() - begun

    def _add(self, text: _Text, choice: Choice) -> None:
        """Append a token to a text, and end the text if it is complete."""
        assert text.chooser is not None
        text.next = choice.id
        text.left -= 1
        finish: Finish | None = None
        if choice.id in text.job.request.end_ids or text.chooser.finished:
            finish = "end"
        elif not text.left:
            finish = "length"
        self._report(text, Chosen(text.index, choice.id, choice.logprob, choice.top, finish))
        self._statistics.generated_tokens += 1
        if finish is not None:
            self._statistics.ended += finish == "end"
            self._statistics.cut += finish == "length"
            self._leave(text)

    def _cut(self, text: _Text) -> None:
        """End a text without a further token."""
        self._report(text, Chosen(text.index, None, finish="length"))
        self._statistics.cut += 1
        self._leave(text)

    def _fail(self, text: _Text, error: Exception, keep: bool = True) -> None:
        """End a text with an error."""
        message = str(error) or type(error).__name__
        by_request = isinstance(error, InputError)
        self._report(text, Chosen(text.index, None, finish="error", error=message, is_callers_fault=by_request))
        self._statistics.failed += 1
        self._leave(text, keep)

    def _leave(self, text: _Text, keep: bool = True) -> None:
        """Give the sequence of a text back. What it has read is kept for others, unless it may be damaged."""
        slot = text.slot
        if slot is None:
            return
        if slot.prompt is not None:
            text.job.is_reading = False
        text.slot = None
        with self._changed:
            self._running.remove(text)
        self._ends.append(time.monotonic())
        if keep:
            self._prefixes.release(slot)
        else:
            self._prefixes.drop(slot)

    def _report(self, text: _Text, chosen: Chosen) -> None:
        """Note what is to be delivered at the end of the step."""
        if not text.job.pending:
            self._reporting.append(text.job)
        text.job.pending.append(chosen)

    def _deliver(self) -> None:
        """Deliver the tokens of this step."""
        begun = time.perf_counter()
        jobs, self._reporting = self._reporting, []
        for job in jobs:
            chosen, job.pending = [each for each in job.pending if each.index not in job.cancelled], []
            if not chosen:
                continue
            try:
                job.deliver(chosen)
            except Exception:
                _LOG.exception("the tokens of a request could not be delivered, so it is cancelled")
                self._cancel(job, range(job.request.n))
        self._statistics.deliver_seconds += time.perf_counter() - begun

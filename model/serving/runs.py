"""Requests that are being generated: tokens come from the scheduler's thread, and their text is taken in asyncio's."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from model.serving.answers import Delta
from model.serving.scheduler import Handle, Scheduler
from model.serving.service import Job
from model.serving.texts import Chosen

_AT_ONCE = 64  # tokens of a request that are turned into text before others have their turn


class Bridge:
    """Hands tokens over from the scheduler's thread to an event loop, with one call for all requests of a step."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: deque[tuple[Run, Job, list[Chosen]]] = deque()
        self._is_called = False

    def open(self) -> None:
        """Hand over to the running event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def deliver_to(self, run: Run, job: Job) -> Callable[[list[Chosen]], None]:
        """Return the function that the scheduler calls with the tokens of a job."""

        def deliver(chosen: list[Chosen]) -> None:
            self._inbox.append((run, job, chosen))
            if not self._is_called and self._loop is not None:
                self._is_called = True
                with suppress(RuntimeError):  # the loop is closed, so nobody reads
                    self._loop.call_soon_threadsafe(self._hand_over)

        return deliver

    def _hand_over(self) -> None:
        self._is_called = False  # first: what is appended from now on is either taken below or calls again
        while self._inbox:
            run, job, chosen = self._inbox.popleft()
            run.put(job, chosen)


class Run:
    """A request that is being generated.

    Args:
        jobs: Its texts.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.began = time.monotonic()
        self.first_token: float | None = None
        """When the first token came, as `time.monotonic`."""
        self._handles: dict[int, Handle] = {}
        self._arrived: deque[tuple[Job, Chosen]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.is_cancelled = False
        """Whether the texts were ended, because nobody wants them any more."""
        self._left = sum(len(job.answers) for job in jobs)

    def start(self, scheduler: Scheduler, bridge: Bridge) -> None:
        """Submit the texts. Any thread may call this.

        Raises:
            InputError: When a text does not fit; none is generated then.
            Busy: When too many texts are waiting; none is generated then.
        """
        try:
            for number, job in enumerate(self.jobs):
                self._handles[number] = scheduler.submit(job.request, bridge.deliver_to(self, job))
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """End all texts within a step."""
        self.is_cancelled = True
        self._wake()
        for handle in self._handles.values():
            handle.cancel()

    def put(self, job: Job, chosen: list[Chosen]) -> None:
        """Take tokens of a job; only in the thread of the event loop."""
        if self.first_token is None:
            self.first_token = time.monotonic()
        self._arrived.extend((job, token) for token in chosen)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def is_idle(self) -> bool:
        """Whether no tokens have arrived that were not taken."""
        return not self._arrived

    @property
    def is_done(self) -> bool:
        """Whether all answers have ended."""
        return not self._left

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts."""
        return sum(len(job.request.ids) for job in self.jobs)

    @property
    def completion_tokens(self) -> int:
        """Tokens that were generated so far."""
        return sum(answer.count for job in self.jobs for answer in job.answers)

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompts that were not read, because they were in memory."""
        return sum(handle.reused_tokens for handle in self._handles.values())

    async def deltas(self, patience: float) -> list[tuple[int, Delta]]:
        """Wait for tokens, and return what is new of the answers, by the index of the answer.

        Args:
            patience: The longest time to wait, in seconds. After it, nothing is returned.
        """
        await self._wait(patience)
        result = []
        for _ in range(min(len(self._arrived), _AT_ONCE)):
            job, token = self._arrived.popleft()
            answer = job.answers[token.index]
            if answer.finish is not None:  # by a stop string or a call, before the scheduler knew
                continue
            delta = answer.feed(token)
            if delta.finish is not None:
                self._left -= 1
                self._end(job, token)
            if not delta.is_empty:
                result.append((job.first + token.index, delta))
        return result

    async def _wait(self, patience: float) -> None:
        """Wait for tokens or the end; if tokens are left from the last time, let others have their turn."""
        if self._arrived:
            await asyncio.sleep(0)
            return
        if self.is_cancelled:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()  # a tenth of the time of asyncio.wait_for, which starts a task
        timer = loop.call_later(patience, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _end(self, job: Job, token: Chosen) -> None:
        """Free what an answer that ended by its text still has in the scheduler."""
        if token.finish is None:
            self._handles[self.jobs.index(job)].cancel(token.index)

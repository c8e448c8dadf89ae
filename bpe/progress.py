"""What long work shows of itself: one line that is redrawn in place, bars in a notebook, or events for programs.

Work reports to the current reporter, so that a function deep in a library needs no argument for it:

    with phase("counting", total=size, unit="bytes") as counting:
        counting.update(done)

Without a reporter, nothing is shown. A command sets one (see `bpe.commands.options.progress_options`), and so does a
function that is called with ``progress=True``. A thread starts without a reporter.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, TextIO, Union

from bpe.columns import clipped_in_the_middle, columns_of, terminal_columns
from bpe.errors import ArgumentError

_TICK_SECONDS = 0.1
_EVENT_SECONDS = 0.5
_NARROWEST_BAR, _WIDEST_BAR = 8, 32
_WIDEST_LABEL = 28  # columns, in a terminal of up to 70


class Phase:
    """A stretch of work, such as counting a corpus, and how far it has come.

    Attributes:
        name: What is done, in a word or a few.
        total: How much there is to do, in units; None if that is not known.
        unit: The unit, such as "documents". Amounts of "bytes" are shown as megabytes.
        done: How much is done.
        label: What to show in place of the name.
        details: What else to show, the most important first.
        seconds_left: An estimate of the remaining time; None to estimate it from the share that is done.
        fields: What else an event holds.
        with_amount: Whether a line holds what is done of what; not if the label or a detail says it.
    """

    def __init__(
        self, reporter: Reporter, name: str, total: float | None, unit: str, done: float, with_amount: bool
    ) -> None:
        self.with_amount = with_amount
        self.name: str = name
        self.total: float | None = total
        self.unit: str = unit
        self.done: float = done
        self.label: str = name
        self.details: tuple[str, ...] = ()
        self.seconds_left: float | None = None
        self.fields: dict[str, Any] = {}
        self._reporter, self._first, self._start, self._next = reporter, done, time.monotonic(), 0.0

    def update(
        self,
        done: float,
        *details: str,
        total: float | None = None,
        label: str | None = None,
        seconds_left: float | None = None,
        **fields: Any,
    ) -> None:
        """Set how much is done. It is shown at most ten times a second.

        Args:
            done: How much is done in all, in units.
            details: What else to show, the most important first.
            total: How much there is to do, if that has become known.
            label: What to show in place of the phase's name.
            seconds_left: An estimate of the remaining time. Default: estimated from the share that is done.
            fields: What else an event holds.
        """
        self.done, self.details, self.seconds_left, self.fields = done, details, seconds_left, fields
        if total is not None:
            self.total = total
        if label is not None:
            self.label = label
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._reporter.tick_seconds
            self._reporter.ticked(self)

    @property
    def seconds(self) -> float:
        """Seconds since the start of the phase."""
        return time.monotonic() - self._start

    @property
    def share(self) -> float | None:
        """The share that is done, from 0 to 1; None if it is not known."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total else None

    @property
    def rate(self) -> float:
        """Units in a second, since the start of the phase."""
        return (self.done - self._first) / max(self.seconds, 1e-3)

    def remaining(self) -> float | None:
        """Return the estimated number of seconds to the end, or None."""
        if self.seconds_left is not None or not self.share:
            return self.seconds_left
        return ((self.total or 0) - self.done) / self.rate if self.rate > 0 else None

    def amount(self) -> str:
        """Return how much is done of how much, in words."""
        if not self.unit or (not self.done and not self.total) or not self.with_amount:
            return ""
        if self.unit == "bytes":
            done = f"{self.done / 1e6:,.1f}"
            return f"{done} of {self.total / 1e6:,.1f} MB" if self.total else f"{done} MB"
        done = f"{self.done:,.0f}"
        return f"{done} of {self.total:,.0f} {self.unit}" if self.total else f"{done} {self.unit}"

    def line(self, columns: int) -> str:
        """Return the phase as a line of at most this many columns. What is least important is left out first."""
        share, left = self.share, self.remaining()
        speed = f"{self.rate / 1e6:,.1f} MB/s" if self.unit == "bytes" and self.done > self._first else ""
        amount, *others = (*self.details, self.amount(), speed) if self.details else (self.amount(), speed)
        parts = ["" if share is None else f"{share:4.0%}".strip(), amount, *others, ""]
        if left is not None and math.isfinite(left):
            parts[-1] = f"{clock(left)} left"
        # A label often ends in the name of a file, whose end says most.
        kept = clipped_in_the_middle(self.label, min(columns, max(_WIDEST_LABEL, columns * 2 // 5)))
        # In order of importance: the share, the first detail, the time left, the bar, the other details.
        fitting: set[int] = set()
        room = columns - columns_of(kept)
        with_bar = False
        for number in (0, 1, len(parts) - 1, None, *range(2, len(parts) - 1)):
            if number is None:
                with_bar = share is not None and room >= 2 + _NARROWEST_BAR
                room -= (2 + _NARROWEST_BAR) * with_bar
                continue
            if number == len(parts) - 1 and columns_of(parts[number]) + 2 > room:
                parts[number] = parts[number].removesuffix(" left")
            if parts[number] and columns_of(parts[number]) + 2 <= room:
                fitting.add(number)
                room -= columns_of(parts[number]) + 2
        shown = [parts[number] for number in sorted(fitting)]
        if with_bar and share is not None:
            shown.insert(0, _drawn_bar(share, min(_WIDEST_BAR, _NARROWEST_BAR + room)))
        return "  ".join([kept, *shown])

    def event(self) -> dict[str, Any]:
        """Return the fields of the phase's event."""
        return {
            "phase": self.name,
            "done": self.done,
            "total": self.total,
            "unit": self.unit or None,
            "seconds": round(self.seconds, 3),
            **self.fields,
        }


class Reporter:
    """The reporter of silent work, and what the others have in common."""

    tick_seconds: float = math.inf
    is_for_people = False
    """Whether texts are shown."""
    is_for_programs = False
    """Whether events are printed to stdout, which then holds nothing else."""
    draws = False
    """Whether phases are drawn."""

    def __init__(self) -> None:
        self._phases: list[Phase] = []

    @contextmanager
    def phase(
        self, name: str, total: float | None = None, unit: str = "", done: float = 0, *, with_amount: bool = True
    ) -> Iterator[Phase]:
        """Show a stretch of work while the block runs; a phase within another one takes its place for that time."""
        phase = Phase(self, name, total, unit, done, with_amount)
        self._phases.append(phase)
        self.opened(phase)
        try:
            yield phase
        finally:
            self._phases.remove(phase)
            self.closed(phase)

    def opened(self, phase: Phase) -> None:
        """Show a new phase."""

    def ticked(self, phase: Phase) -> None:
        """Show how far a phase has come."""

    def closed(self, phase: Phase) -> None:
        """Show no more of a phase."""

    def say(self, text: str) -> None:
        """Print a line for a person that stays."""

    def event(self, kind: str, **fields: Any) -> None:
        """Print an event for a program."""

    def done(self, text: str, *, to_stdout: bool = False, **fields: Any) -> None:
        """Print the result of a command: an event "done" with the fields, or a text.

        Args:
            text: The result in words.
            to_stdout: Whether the text is data, rather than talk.
            fields: The fields of the event.
        """
        if to_stdout:
            print(text, flush=True)
        else:
            self.say(text)

    def close(self) -> None:
        """Show nothing any more."""


class Lines(Reporter):
    """Lines on a stream, and no bars: for a file or a pipe."""

    is_for_people = True

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


class Bars(Lines):
    """A line on a terminal that is redrawn in place, and lines above it that stay.

    While it is drawn, what others print to stderr or stdout (warnings, results) erases it first.
    """

    draws = True
    tick_seconds = _TICK_SECONDS

    def __init__(self, stream: TextIO, columns: int | None = None) -> None:
        """Take the stream.

        Args:
            stream: Where to draw.
            columns: The width of the line. Default: one column less than the terminal has, measured at each redraw.
        """
        super().__init__(stream)
        self._columns = columns
        self._bars: list[tuple[Phase, Any]] = []
        self.around: list[tuple[str, _Around]] = []
        """The streams that are in place of stderr and stdout, with their names in `sys`."""
        self._lock = threading.RLock()

    def opened(self, phase: Phase) -> None:
        with self._lock:
            if not self._bars:
                self._surround()
            self.erase()
            self._bars.append((phase, _bar_class()(phase, self.stream, self._columns)))

    def ticked(self, phase: Phase) -> None:
        with self._lock:
            if (
                self._bars
                and self._bars[-1][0] is phase
                and not any(around.is_within_line for _, around in self.around)
            ):
                self._bars[-1][1].refresh()

    def closed(self, phase: Phase) -> None:
        with self._lock:
            for number, (each, bar) in enumerate(self._bars):
                if each is phase:
                    del self._bars[number]
                    bar.close()
            if self._bars:
                self.ticked(self._bars[-1][0])
            else:
                self._restore()

    def say(self, text: str) -> None:
        with self._lock:
            self.erase()
            super().say(text)
            self.redraw()

    def erase(self) -> None:
        """Erase the line."""
        if self._bars:
            self._bars[-1][1].clear()

    def redraw(self) -> None:
        """Draw the line again."""
        if self._bars:
            self.ticked(self._bars[-1][0])

    def close(self) -> None:
        while self._bars:
            self.closed(self._bars[-1][0])

    def _surround(self) -> None:
        """Put streams that erase the line before they print in place of stderr and stdout."""
        if self.stream not in (sys.stderr, sys.__stderr__):
            return
        for name in ("stderr", "stdout"):
            stream = getattr(sys, name)
            with suppress(AttributeError, ValueError):  # a stream that a program has put there, or a closed one
                if stream.isatty():
                    around = _Around(self, stream, self._lock)
                    self.around.append((name, around))
                    setattr(sys, name, around)

    def _restore(self) -> None:
        for name, around in self.around:
            if getattr(sys, name) is around:
                setattr(sys, name, around.stream)
        self.around.clear()


class Widgets(Lines):
    """Bars of ipywidgets in a notebook."""

    draws = True
    tick_seconds = _TICK_SECONDS

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._bars: list[tuple[Phase, Any]] = []

    def opened(self, phase: Phase) -> None:
        from tqdm.notebook import tqdm

        self._bars.append((phase, tqdm(total=phase.total, desc=phase.label, leave=False, bar_format="{desc}{bar}")))

    def ticked(self, phase: Phase) -> None:
        for each, bar in self._bars:
            if each is phase:
                if phase.total is not None and bar.total != phase.total:
                    bar.reset(total=phase.total)
                # The widget draws the bar; its line without one is the text beside it.
                bar.bar_format = "{desc}{bar}" + _beside(phase).replace("{", "{{").replace("}", "}}")
                bar.n = phase.done
                bar.refresh()

    def closed(self, phase: Phase) -> None:
        for number, (each, bar) in enumerate(self._bars):
            if each is phase:
                del self._bars[number]
                bar.close()

    def close(self) -> None:
        while self._bars:
            self.closed(self._bars[-1][0])


class Events(Reporter):
    """One JSON object in each line of a stream, for programs."""

    tick_seconds = _EVENT_SECONDS
    is_for_programs = True

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lock = threading.Lock()

    def opened(self, phase: Phase) -> None:
        self.event("progress", **phase.event())

    def ticked(self, phase: Phase) -> None:
        self.event("progress", **phase.event())

    def closed(self, phase: Phase) -> None:
        self.event("progress", **phase.event())

    def say(self, text: str) -> None:
        self.event("message", text=text)

    def done(self, text: str, *, to_stdout: bool = False, **fields: Any) -> None:
        self.event("done", **fields)

    def event(self, kind: str, **fields: Any) -> None:
        line = json.dumps({"event": kind, **{name: _plain(value) for name, value in fields.items()}})
        with self._lock:
            print(line, file=self._stream, flush=True)


Progress = Union[TextIO, bool, None]
"""Where a library function shows its progress; see `shown`."""

_SILENT = Reporter()
_current: ContextVar[Reporter] = ContextVar("reporter", default=_SILENT)


def current() -> Reporter:
    """Return the current reporter; one that shows nothing if none is set."""
    return _current.get()


@contextmanager
def phase(
    name: str, total: float | None = None, unit: str = "", done: float = 0, *, with_amount: bool = True
) -> Iterator[Phase]:
    """Show a stretch of work on the current reporter while the block runs; see `Phase`."""
    with current().phase(name, total, unit, done, with_amount=with_amount) as entered:
        yield entered


def say(text: str) -> None:
    """Print a line that stays on the current reporter."""
    current().say(text)


@contextmanager
def reporting(reporter: Reporter) -> Iterator[Reporter]:
    """Make a reporter the current one while the block runs."""
    before = _current.set(reporter)
    try:
        yield reporter
    finally:
        reporter.close()
        _current.reset(before)


@contextmanager
def shown(progress: Progress | Callable[..., object]) -> Iterator[Reporter]:
    """Report the work of the block as the argument `progress` of a library function says.

    Args:
        progress: True: on the current reporter, or in the notebook or on stderr if there is none. False: nowhere.
            None, or a callback, which the function calls itself: on the current reporter. A stream: there.
    """
    if callable(progress):
        progress = None
    if progress is None or (progress is True and current() is not _SILENT):
        yield current()
        return
    if progress is False:
        with reporting(Reporter()) as silent:
            yield silent
        return
    if progress is not True and not hasattr(progress, "write"):
        raise ArgumentError(
            f"progress is {progress!r}; expected true or false, a stream such as sys.stderr, or a callback"
        )
    with reporting(reporter_on(sys.stderr if progress is True else progress)) as reporter:
        yield reporter


def reporter_on(stream: TextIO | None) -> Reporter:
    """Return the reporter for a stream: a line that is redrawn on a terminal, bars in a notebook, else lines only."""
    if stream is None:  # a program without stderr
        return Reporter()
    if stream.isatty():
        return Bars(stream)
    if stream is sys.stderr and _is_notebook():
        return Widgets(stream) if find_spec("ipywidgets") else Bars(stream, columns=80)
    return Lines(stream)


def events() -> Reporter:
    """Return the reporter of events on stdout. Warnings become events as well."""
    return Events(sys.stdout)


@contextmanager
def warnings_as_events(reporter: Reporter) -> Iterator[None]:
    """Report warnings as events, too, while the block runs."""
    before = warnings.showwarning

    def show(message: Warning | str, *others: Any, **named: Any) -> None:
        reporter.event("warning", text=" ".join(str(message).split()))
        before(message, *others, **named)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, with hours if there are any.

    >>> clock(95), clock(3700)
    ('1:35', '1:01:40')
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Around:
    """A stream that erases the line before something else is printed, and draws it again after a line break."""

    def __init__(self, bars: Bars, stream: TextIO, lock: threading.RLock) -> None:
        self.stream, self.is_within_line = stream, False
        self._bars, self._lock_of_bars = bars, lock

    def write(self, text: str) -> int:
        if not text:
            return self.stream.write(text)
        with self._lock_of_bars:
            if not any(around.is_within_line for _, around in self._bars.around):
                self._bars.erase()
            count = self.stream.write(text)
            self.stream.flush()
            self.is_within_line = not text.endswith("\n")
            self._bars.redraw()
        return count

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@lru_cache(maxsize=1)
def _bar_class() -> Any:
    """Return tqdm's bar with the line of a `Phase`. Importing tqdm takes longer than many a command."""
    from tqdm.std import tqdm

    class Bar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]
        monitor_interval = 0  # no thread of tqdm's: a phase redraws itself
        _lock = threading.RLock()  # tqdm's own also locks other processes, for which it allocates a semaphore

        def __init__(self, phase: Phase, stream: TextIO, columns: int | None) -> None:
            self.phase, self._columns = phase, columns
            super().__init__(total=phase.total, file=stream, leave=False, position=0)

        def __str__(self) -> str:
            return self.phase.line(self._columns or max(1, terminal_columns(self.fp) - 1))

        def status_printer(self, file: TextIO) -> Any:
            if self._columns:  # in a notebook, which may not know the escape code
                return super().status_printer(file)

            def draw(text: str) -> None:
                file.write(f"\r{text}\x1b[K")
                file.flush()

            return draw

    return Bar


def _drawn_bar(share: float, columns: int) -> str:
    filled = round(share * columns)
    return "━" * filled + "─" * (columns - filled)


def _beside(phase: Phase) -> str:
    """Return what is shown beside a bar that is drawn elsewhere."""
    left = phase.remaining()
    parts = [*phase.details, phase.amount(), "" if left is None or not math.isfinite(left) else f"{clock(left)} left"]
    return " " + "  ".join(part for part in parts if part)


def _is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: null for a number that is not finite, and the path as a str."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, Sequence) else str(value)

"""What a training run shows: one line on a terminal, a line for each evaluation elsewhere, or events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from bpe.display import visible
from bpe.progress import Phase, Progress, Reporter, clock, shown


def shown_run(progress: Progress, is_main: bool) -> AbstractContextManager[Reporter]:
    """Show a run as its argument `progress` says (None is True), and nothing in another than the main process."""
    return shown((True if progress is None else progress) if is_main else False)


class TrainingReport:
    """The steps, evaluations and samples of a run, shown on a reporter."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._training: Phase | None = None
        self._evaluation: tuple[str, ...] = ()

    @contextmanager
    def training(self, steps: int | None, minutes: float | None) -> Iterator[None]:
        """Show the steps within the block; the budget is either a number of steps or of minutes."""
        total, unit = (steps, "steps") if minutes is None else (60 * minutes, "seconds")
        with self._reporter.phase("training", total, unit, with_amount=False) as self._training:
            yield
        self._training = None

    def step(
        self, step: int, done: float, loss: float, tokens_per_second: float, mfu: float | None, seconds_left: float
    ) -> None:
        """Show a step.

        Args:
            step: Number of steps made.
            done: How much of the budget is used: steps, or seconds.
            loss: Training loss, in nats per token.
            tokens_per_second: Tokens that the step read, per second.
            mfu: Share of the machine's peak FLOPs that the step used, from 0 to 1; None if the peak is not known.
            seconds_left: Estimated time until the end of the run.
        """
        if self._training is not None:
            speed = f"{tokens_per_second:,.0f} tokens/s" + ("" if mfu is None else f", MFU {mfu:.0%}")
            self._training.update(
                done,
                f"loss {loss:.3f}",
                speed,
                *self._evaluation,
                label=f"step {step:,}",
                seconds_left=seconds_left,
                step=step,
                loss=loss,
                tokens_per_second=tokens_per_second,
            )

    def evaluation(self, step: int, loss: float, bits_per_byte: float | None, seconds: float) -> None:
        """Show an evaluation: within the line of the steps on a terminal, on a line of its own elsewhere.

        Args:
            step: Number of steps made.
            loss: Held-out loss, in nats per token.
            bits_per_byte: The same loss in bits per byte; None when it is not that of a text.
            seconds: Time since the beginning of the run.
        """
        shown = f"held-out loss {loss:.3f}"
        if bits_per_byte is not None:
            shown += f" ({bits_per_byte:.3f} bits/byte)"
        self._evaluation = (shown,)
        if self._reporter.is_for_programs:
            self._reporter.event("evaluation", step=step, loss=loss, bits_per_byte=bits_per_byte, seconds=seconds)
        elif not self._reporter.draws:
            self.say(f"{clock(seconds)}  step {step}  {shown}")

    def sample(self, step: int, text: str) -> None:
        """Show a text by the model, on one line. A model that is hardly trained writes control characters as well."""
        if self._reporter.is_for_programs:
            self._reporter.event("sample", step=step, text=text)
        else:
            shown = visible(" ".join(text.split()).encode())
            self.say(f"  step {step:,}{', before training' * (not step)}: {shown}")

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._reporter.say(text)

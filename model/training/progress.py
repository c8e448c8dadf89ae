"""What a training run prints: a progress line on a terminal, a line for each evaluation elsewhere."""

from __future__ import annotations

import shutil
from typing import TextIO


class ProgressLine:
    """A line that redraws itself on a terminal. On other streams, a line for each evaluation and no progress bar."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.live = stream.isatty()
        self._evaluation = ""

    def step(self, share: float, loss: float, tokens_per_second: float, mfu: float, seconds_left: float) -> None:
        """Show a step.

        Args:
            share: Share of the budget that is used, from 0 to 1.
            loss: Training loss, in nats per token.
            tokens_per_second: Tokens that the step read, per second.
            mfu: Share of the machine's peak FLOPs that the step used, from 0 to 1.
            seconds_left: Estimated time until the end of the run.
        """
        if not self.live:
            return
        tail = f" {share:4.0%}  loss {loss:.3f}{self._evaluation}  {tokens_per_second:,.0f} tokens/s, MFU {mfu:.0%}  "
        tail += f"{_clock(seconds_left)} left"
        width = max(0, min(40, shutil.get_terminal_size().columns - len(tail) - 1))
        filled = round(width * share)
        self._draw("━" * filled + "─" * (width - filled) + tail)

    def evaluation(self, step: int, loss: float, bits_per_byte: float | None, seconds: float) -> None:
        """Show an evaluation: within the progress line on a terminal, on a line of its own elsewhere.

        Args:
            step: Number of steps made.
            loss: Held-out loss, in nats per token.
            bits_per_byte: The same loss in bits per byte; None when it is not that of a text.
            seconds: Time since the beginning of the run.
        """
        self._evaluation = f"  held-out {loss:.3f}"
        if bits_per_byte is not None:
            self._evaluation += f" ({bits_per_byte:.3f} bits/byte)"
        if not self.live:
            self.say(f"{_clock(seconds)}  step {step}{self._evaluation}")

    def sample(self, text: str) -> None:
        """Show a text by the model, on one line."""
        self.say("  " + " ".join(text.split()))

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(text, file=self.stream, flush=True)

    def clear(self) -> None:
        """Erase the progress line."""
        if self.live:
            self._draw("")

    def _draw(self, text: str) -> None:
        self.stream.write("\r" + text + "\x1b[K")  # the escape erases the rest of an earlier, longer line
        self.stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

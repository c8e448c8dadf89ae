"""What a training run shows while it goes and leaves behind: a progress line, and a plot of the loss."""

from __future__ import annotations

import shutil
from typing import TextIO


class Progress:
    """One line that redraws itself on a terminal, and a line for each evaluation elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.live = stream.isatty()
        self._evaluation = ""

    def step(self, share: float, loss: float, tokens_per_second: float, mfu: float, seconds_left: float) -> None:
        """Show a step: the share of the budget that is used, the loss in nats, the share of the machine's peak that is
        used, and the time left."""
        if not self.live:
            return
        tail = f" {share:4.0%}  loss {loss:.3f}{self._evaluation}  {tokens_per_second:,.0f} tokens/s, MFU {mfu:.0%}  "
        tail += f"{_clock(seconds_left)} left"
        width = max(0, min(40, shutil.get_terminal_size().columns - len(tail) - 1))
        filled = round(width * share)
        self._draw("━" * filled + "─" * (width - filled) + tail)

    def evaluation(self, step: int, loss: float, bits_per_byte: float | None, seconds: float) -> None:
        """Show the held-out loss: kept in the line on a terminal, on a line of its own elsewhere."""
        self._evaluation = f"  held-out {loss:.3f}"
        if bits_per_byte is not None:
            self._evaluation += f" ({bits_per_byte:.3f} bits/byte)"
        if not self.live:
            self.say(f"{_clock(seconds)}  step {step}{self._evaluation}")

    def sample(self, text: str) -> None:
        """Show what the model wrote."""
        self.say("  " + " ".join(text.split()))

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(text, file=self.stream, flush=True)

    def clear(self) -> None:
        """Take the progress line away."""
        if self.live:
            self._draw("")

    def _draw(self, text: str) -> None:
        self.stream.write("\r" + text + "\x1b[K")  # the escape clears what an earlier, longer line left
        self.stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

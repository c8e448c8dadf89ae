"""What a training run shows while it goes and leaves behind: a progress line, and a plot of the loss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import numpy.typing as npt

from bpe.errors import InputError
from bpe.files import write_bytes


class HowFar(Protocol):
    """Where a run stands: steps made, tokens read, seconds taken."""

    step: int
    tokens: int

    @property
    def elapsed(self) -> float: ...


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


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; what an interrupted write left of a line is passed over."""
    records = []
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "step" in record:
                records.append(record)
    return records


class MetricsLog:
    """metrics.jsonl, flushed at each line; what an interrupted run wrote after its last checkpoint is dropped."""

    def __init__(self, path: Path, step: int | None, tensorboard: Path | None = None) -> None:
        """Go on after a step; None for a run that begins. Numbers also go to a directory for TensorBoard, if given."""
        self._path, self._directory = path, tensorboard
        self._open(-1 if step is None else step)

    def rewind(self, step: int) -> None:
        """Forget what was written of later steps."""
        self.close()
        self._open(step)

    def _open(self, step: int) -> None:
        kept = [record for record in read_metrics(self._path) if record["step"] <= step]
        write_bytes(self._path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._board = None if self._directory is None else _board(self._directory, step + 1)

    def close(self) -> None:
        """Write out what is left."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, kind: str, progress: HowFar, **values: float | str | None) -> None:
        """Add a record."""
        place = {"kind": kind, "step": progress.step, "tokens": progress.tokens, "seconds": round(progress.elapsed, 3)}
        self._file.write(json.dumps(place | values) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, str):
                    self._board.add_text(f"{kind}/{name}", value, progress.step)
                elif value is not None:
                    self._board.add_scalar(f"{kind}/{name}", value, progress.step)


def _board(directory: Path, first_step: int) -> Any:
    """A writer for TensorBoard, which hides what an earlier one wrote from a step on."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "the curves for TensorBoard need tensorboard: pip install 'bpe-llama[tensorboard]', or leave them out"
        ) from None
    return SummaryWriter(str(directory), purge_step=first_step)


def plot_loss(records: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw training loss, held-out loss and bits per byte over the tokens read, as a PNG."""
    from matplotlib.figure import Figure  # half a second, needed once a run

    steps = [record for record in records if record["kind"] == "step"]
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    train_colour, held_out_colour = "#8fa8c8", "#c2410c"
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    unit, unit_name = (1e6, "million ") if records and records[-1]["tokens"] >= 1e6 else (1e3, "thousand ")
    tokens = [record["tokens"] / unit for record in steps]
    losses = [float(record["loss"]) for record in steps]
    axes.plot(tokens, losses, color=train_colour, linewidth=0.6, alpha=0.45)
    axes.plot(tokens, _smooth(losses), color="#1e4e8c", linewidth=1.6, label="training")
    at = [record["tokens"] / unit for record in evaluations]
    held_out = [record["loss"] for record in evaluations]
    axes.plot(at, held_out, "o-", color=held_out_colour, linewidth=1.6, markersize=3.5, label="held out")
    axes.set_xlabel(f"{unit_name}tokens read")
    axes.set_ylabel("loss, nats per token")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(True, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if evaluations:
        last = evaluations[-1]
        shown = f"{last['loss']:.2f} nats"
        if last["bits_per_byte"]:
            # On the held-out text, nats per token and bits per byte differ by a constant factor: one curve, two scales.
            factor = last["bits_per_byte"] / last["loss"]
            bits = axes.secondary_yaxis("right", functions=(lambda y: y * factor, lambda y: y / factor))
            bits.set_ylabel("held out, bits per byte", color=held_out_colour)
            bits.tick_params(colors=held_out_colour)
            shown += f", {last['bits_per_byte']:.2f} bits per byte"
        axes.annotate(
            shown,
            (at[-1], held_out[-1]),
            xytext=(-6, 10),
            textcoords="offset points",
            ha="right",
            fontsize=9,
            color=held_out_colour,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    axes.legend(frameon=False)
    figure.savefig(path, format="png")


def _smooth(values: list[float], share: float = 0.02) -> npt.NDArray[np.float64]:
    """A running mean whose window is a share of the run."""
    half = max(1, int(len(values) * share))
    sums = np.concatenate(([0.0], np.cumsum(values)))
    places = np.arange(len(values))
    start, end = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    smoothed: npt.NDArray[np.float64] = (sums[end] - sums[start]) / (end - start)
    return smoothed

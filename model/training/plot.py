"""The plot of the loss that a finished run leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def plot_loss(records: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw training loss, held-out loss and bits per byte over the number of tokens read, as a PNG.

    Args:
        records: The records of metrics.jsonl (see `read_metrics`).
        path: Path of the PNG file.
        title: Title of the plot.
    """
    from matplotlib.figure import Figure  # takes half a second, and is needed once in a run

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
            # On one text, nats per token and bits per byte differ by a constant factor, so one curve has two scales.
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
    """Return the running mean of values, over a window that is twice `share` of them wide."""
    half = max(1, int(len(values) * share))
    sums = np.concatenate(([0.0], np.cumsum(values)))
    places = np.arange(len(values))
    start, end = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    smoothed: npt.NDArray[np.float64] = (sums[end] - sums[start]) / (end - start)
    return smoothed

"""The plot of the loss that a finished run leaves behind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bpe.drawing import SMALL, Look, PictureSettings, figure_of, save, styled
from model.training.task import About

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEGINNING = 0.05  # share of a run whose losses may lie above the plot
MOST_EPOCHS = 12  # epochs with a number each


def draw_loss(
    records: list[dict[str, Any]], path: Path, name: str, about: About, settings: PictureSettings
) -> list[Path]:
    """Draw `plot_loss` and save it.

    Args:
        records: The records of metrics.jsonl (see `read_metrics`).
        path: Path of the files, without a suffix.
        name: Name of the run.
        about: What was trained on what.
        settings: Formats and colors.

    Returns:
        The paths of the files.
    """
    return save(plot_loss(settings.look, records, name, about), path, settings)


@styled
def plot_loss(look: Look, records: list[dict[str, Any]], name: str, about: About) -> Figure:
    """Plot training loss, held-out loss and bits per byte over the number of tokens read.

    The best evaluation is marked. Vertical lines mark the ends of epochs where the data is read more than once.

    Args:
        look: The colors.
        records: The records of metrics.jsonl (see `read_metrics`).
        name: Name of the run.
        about: What was trained on what.
    """
    steps = [record for record in records if record["kind"] == "step"]
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    last = records[-1]["tokens"] if records else 0
    unit, unit_name = next(
        pair
        for pair in ((1e9, "billion "), (1e6, "million "), (1e3, "thousand "), (1, ""))
        if last >= pair[0] or pair[0] == 1
    )
    passes = records[-1]["step"] / about.steps_per_epoch if records else 0
    read = f"; {passes:.2g} of one epoch" if passes < 0.995 else f"; {passes:.3g} epochs"
    figure = figure_of(7.2, 4.2, f"Loss of {name}: {about.title}", about.subtitle + read)
    axes = figure.add_subplot()
    training, held_out = look.series[0], look.series[1]
    tokens = [record["tokens"] / unit for record in steps]
    losses = [float(record["loss"]) for record in steps]
    smooth = _smooth(losses)
    if len(steps) > 1:
        axes.plot(tokens, losses, color=training, linewidth=0.5, alpha=0.35, label="training, each step")
    axes.plot(tokens, smooth, color=training, label="training, running mean", marker="o" if len(steps) == 1 else "")
    at = [record["tokens"] / unit for record in evaluations]
    measured = [float(record["loss"]) for record in evaluations]
    if evaluations:
        axes.plot(
            at, measured, "o-", color=held_out, markersize=3, label=f"held out; last: {_measured(evaluations[-1])}"
        )
    low, high, first = _limits(tokens, losses, smooth, at, measured)
    axes.set_ylim(low, high)
    axes.set_xlim(0, max(last / unit, 1e-9))
    axes.set_xlabel(f"{unit_name}tokens read")
    axes.set_ylabel("loss, nats per token" if about.is_text else "loss, nats per pair")
    if first is not None:
        place = next((place for place, loss in zip(tokens, smooth, strict=True) if loss <= high), 0)
        note: dict[str, Any] = {"textcoords": "offset points", "fontsize": SMALL, "color": look.muted, "va": "top"}
        axes.annotate(f"from {first:.2f}", (place, high), (8, -2), **note)
    if evaluations:
        _mark_best(look, axes, evaluations, unit)
        _add_bits_per_byte(axes, evaluations, held_out)
    if passes > 1:
        _mark_epochs(look, axes, records, about.steps_per_epoch, unit)
    axes.legend(loc="best", frameon=True, facecolor=look.background, edgecolor="none", framealpha=0.85)
    return figure


def _limits(
    tokens: list[float], losses: list[float], smooth: npt.NDArray[np.float64], at: list[float], measured: list[float]
) -> tuple[float, float, float | None]:
    """Return the limits of the loss, and the first loss where it is above them.

    The loss falls steeply at first. If the beginning would take more than a third of the height, it is cut off.
    """
    points = [*zip(tokens, smooth.tolist(), strict=True), *zip(at, measured, strict=True)]
    points = [(place, loss) for place, loss in points if math.isfinite(loss)]
    if not points:
        return 0, 1, None
    begins = BEGINNING * max(place for place, _ in points)
    later = [loss for place, loss in points if place >= begins]
    later += [loss for place, loss in zip(tokens, losses, strict=True) if place >= begins and math.isfinite(loss)]
    first = max(loss for _, loss in points)
    low, high = min(later), max(later)
    is_cut = first - low > 1.5 * (high - low)
    high = high if is_cut else max(high, first)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1
    return low - 1.5 * margin, high + 2 * margin, (first if is_cut and first > high + 2 * margin else None)


def _mark_best(look: Look, axes: Axes, evaluations: list[dict[str, Any]], unit: float) -> None:
    """Mark the evaluation with the lowest loss. The legend has room for its numbers; beside curves, text gets lost."""
    best = min(evaluations, key=lambda record: record["loss"] if math.isfinite(record["loss"]) else math.inf)
    place, loss = best["tokens"] / unit, float(best["loss"])
    ring: dict[str, Any] = {"color": look.series[1], "markerfacecolor": "none", "markeredgewidth": 1.6}
    label = f"best: {_measured(best)}, step {best['step']:,}"
    axes.plot([place], [loss], "o", markersize=9, label=label, clip_on=False, **ring)
    align = "left" if place < 0.05 * axes.get_xlim()[1] else "right" if place > 0.95 * axes.get_xlim()[1] else "center"
    style: dict[str, Any] = {"fontsize": SMALL, "color": look.ink, "ha": align, "va": "top"}
    axes.annotate(f"{loss:.2f}", (place, loss), (0, -7), textcoords="offset points", **style)


def _measured(record: dict[str, Any]) -> str:
    bits = f", {record['bits_per_byte']:.2f} bits per byte" if record.get("bits_per_byte") else ""
    return f"{record['loss']:.2f} nats{bits}"


def _add_bits_per_byte(axes: Axes, evaluations: list[dict[str, Any]], color: str) -> None:
    """Add a scale of bits per byte: on one text, they are nats per token times a constant."""
    last = evaluations[-1]
    if last.get("bits_per_byte") and last["loss"]:
        factor = last["bits_per_byte"] / last["loss"]
        bits = axes.secondary_yaxis("right", functions=(lambda y: y * factor, lambda y: y / factor))
        bits.set_ylabel("held out, bits per byte", color=color)
        bits.tick_params(colors=color)


def _mark_epochs(look: Look, axes: Axes, records: list[dict[str, Any]], steps_per_epoch: float, unit: float) -> None:
    """Draw a vertical line where an epoch ends, and number the epochs above the axes."""
    steps = [0.0, *(float(record["step"]) for record in records)]
    tokens = [0.0, *(record["tokens"] / unit for record in records)]
    ends = np.arange(1, math.floor(steps[-1] / steps_per_epoch + 1e-9) + 1)
    every = math.ceil(len(ends) / MOST_EPOCHS)
    ends = ends[every - 1 :: every]
    places = np.interp(ends * steps_per_epoch, steps, tokens)
    for place in places:
        axes.axvline(place, color=look.faint, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.9)
    above = axes.secondary_xaxis("top")
    above.set_xticks(places, [f"{end}" for end in ends])
    above.set_xlabel("end of epoch", color=look.muted, fontsize=SMALL)
    above.tick_params(labelsize=SMALL, labelcolor=look.muted, length=2)
    above.spines["top"].set_visible(False)


def _smooth(values: list[float], share: float = 0.02) -> npt.NDArray[np.float64]:
    """Return the running mean of values, over a window that is twice `share` of them wide."""
    half = max(1, int(len(values) * share))
    sums = np.concatenate(([0.0], np.cumsum(values)))
    places = np.arange(len(values))
    start, end = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    smoothed: npt.NDArray[np.float64] = (sums[end] - sums[start]) / (end - start)
    return smoothed

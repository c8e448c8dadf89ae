"""The plots of a report, drawn from the content of report.json with matplotlib, which the extra ``report`` installs.

Each takes the look first, and returns None if the report has no text to plot. `draw_plots` draws and saves all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bpe.analysis.report_tables import MOST_SEPARATE_TEXTS, VocabularyReport
from bpe.drawing import (
    SMALL,
    Look,
    PictureSettings,
    common_directory,
    drawable,
    figure_of,
    label_ends,
    save,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 40  # texts with a bar of their own
NEAR_ZERO = 1.0  # scripts with a smaller share of the tokens everywhere are summed, in percent
LABEL = 36  # characters of a text's name
WIDTH = 7.2  # inches


@styled
def growth(look: Look, report: VocabularyReport) -> Figure | None:
    """Plot bytes per token as the vocabulary grows, one curve per text. None if there is no text or no merge."""
    curves = list(_curves(look, report))
    if not any(curve.use["growth"]["vocabulary"] for curve in curves):
        return None
    figure = figure_of(WIDTH, 4.2, "Bytes per token as the vocabulary grows", _about(report))
    axes = figure.add_subplot()
    for curve in curves:
        part = curve.use["growth"]
        axes.plot(part["vocabulary"], part["bytes_per_token"], color=curve.color, linewidth=curve.width)
    sizes = [size for curve in curves for size in curve.use["growth"]["vocabulary"]]
    ratios = [ratio for curve in curves for ratio in curve.use["growth"]["bytes_per_token"] if ratio is not None]
    last = max(sizes)
    axes.set_xscale("log", base=2)
    axes.set_xlim(256, max(last, 257))
    axes.set_xticks(_doubling_ticks(last), [f"{size:,}" for size in _doubling_ticks(last)])
    axes.minorticks_off()
    # With the 256 bytes alone, each byte is a token: all curves begin at one byte per token.
    ticks = _ticks(1 if min(ratios, default=1) >= 1 else 0, max(ratios, default=1))
    digits = max(len(f"{tick:g}".partition(".")[2]) for tick in ticks)
    axes.set_yticks(ticks, [f"{tick:.{digits}f}" for tick in ticks])
    axes.set_ylim(ticks[0], ticks[-1])
    axes.set_xlabel(
        "tokens in the vocabulary" + (", without special tokens" if report["tokenizer"]["special_tokens"] else "")
    )
    axes.set_ylabel("bytes per token")
    ends = [(curve.use["growth"]["bytes_per_token"][-1], curve) for curve in curves if curve.label]
    label_ends(axes, [(end, f"{curve.label}  {end:.2f}", curve.text_color) for end, curve in ends], 3.5)
    return figure


@styled
def frequencies(look: Look, report: VocabularyReport) -> Figure | None:
    """Plot how often tokens are used, by rank (Zipf's law). None if there is no text."""
    curves = list(_curves(look, report))
    if not curves:
        return None
    figure = figure_of(WIDTH, 4.2, "Use of tokens by rank", _about(report))
    axes = figure.add_subplot()
    for curve in curves:
        use = curve.use["frequencies"]
        shares = [100 * count / max(1, curve.use["tokens"]) for count in use["count"]]
        style: dict[str, Any] = (
            {"color": curve.color, "label": curve.label} if curve.is_strong else {"color": look.faint}
        )
        axes.plot(use["rank"], shares, linewidth=curve.width if curve.is_strong else 0.6, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left=1)
    axes.xaxis.set_major_formatter(lambda rank, _: f"{rank:,.0f}")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:g}")
    axes.minorticks_off()
    axes.set_xlabel("rank of the token by use")
    axes.set_ylabel("share of the text's tokens, %")
    _legend(look, axes, len(report["texts"]))
    return figure


@styled
def lengths(look: Look, report: VocabularyReport) -> Figure:
    """Plot token lengths, in the vocabulary and in use."""
    figure = figure_of(WIDTH, 3.6, "Token lengths", _about(report))
    axes = figure.add_subplot()
    longest = 20
    parts = _parts(look, report)
    width = 0.8 / len(parts)
    for number, (part, name, color) in enumerate(parts):
        counts = {int(size): count for size, count in part["lengths"].items()}
        heights = [counts.get(size, 0) for size in range(1, longest)]
        heights.append(sum(count for size, count in counts.items() if size >= longest))
        at = [size + width * (number - (len(parts) - 1) / 2) for size in range(1, longest + 1)]
        whole = max(1, sum(counts.values()))
        axes.bar(at, [100 * height / whole for height in heights], width, color=color, label=name)
    axes.set_xticks(range(1, longest + 1), [*map(str, range(1, longest)), f"{longest}+"])
    axes.set_xlim(0.4, longest + 0.6)
    axes.grid(False, axis="x")
    axes.set_xlabel("length, bytes")
    axes.set_ylabel("share of tokens, %")
    axes.legend(loc="upper right")
    return figure


@styled
def scripts(look: Look, report: VocabularyReport) -> Figure:
    """Plot the scripts that tokens belong to, in the vocabulary and in use. Rows near zero are summed."""
    parts = _parts(look, report)
    rows = script_rows([part["classes"] for part, _, _ in parts])
    pitch = 0.1 + 0.15 * len(parts)
    figure = figure_of(WIDTH, 0.75 + pitch * len(rows), "Scripts of the tokens", _about(report))
    axes = figure.add_subplot()
    height = 0.15 / pitch
    for number, (_, name, color) in enumerate(parts):
        shares = [row[number] for row in rows.values()]
        at = [row + height * (number - (len(parts) - 1) / 2) for row in range(len(rows))]
        bars = axes.barh(at, shares, height * 0.9, color=color, label=name)
        axes.bar_label(bars, [_share(share) for share in shares], padding=3, fontsize=SMALL - 1)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.1 * max((max(row) for row in rows.values()), default=1))
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel("share of tokens, %")
    axes.legend(loc="lower right")
    return figure


def script_rows(classes: Sequence[dict[str, int]]) -> dict[str, list[float]]:
    """Return shares in percent by script, the largest first, with those near zero summed as "other (n)".

    Args:
        classes: For the vocabulary and each use, counts by script or class of characters.
    """
    sums = [max(1, sum(counts.values())) for counts in classes]
    names = dict.fromkeys(name for counts in classes for name in counts)
    shares = {
        name: [100 * counts.get(name, 0) / whole for counts, whole in zip(classes, sums, strict=True)] for name in names
    }
    order = sorted(shares, key=lambda name: -max(shares[name]))
    small = [name for name in order if max(shares[name]) < NEAR_ZERO]
    if len(small) < 2:
        return {name: shares[name] for name in order}
    rows = {name: shares[name] for name in order if name not in small}
    rows[f"other ({len(small)})"] = [sum(column) for column in zip(*(shares[name] for name in small), strict=True)]
    return rows


@styled
def fertility(look: Look, report: VocabularyReport) -> Figure | None:
    """Plot tokens per word and bytes per token of each text, sorted. None if there is no text."""
    rows = fertility_rows(report)
    if not rows:
        return None
    figure = figure_of(
        WIDTH, 0.7 + 0.2 * len(rows), "Fertility and compression, sorted by bytes per token", _about(report)
    )
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key, label in (
        (left, "tokens_per_word", "tokens per word (lower is better)"),
        (right, "bytes_per_token", "bytes per token (higher is better)"),
    ):
        values = [None if row.use is None else row.use[key] for row in rows]
        bars = axes.barh(range(len(rows)), [value or 0 for value in values], 0.72)
        shown = ["" if row.use is None else _measure(row.use, key) for row in rows]
        for bar, row in zip(bars, rows, strict=True):
            bar.set_color(look.series[row.series])
        axes.bar_label(bars, shown, padding=3, fontsize=SMALL - 1)
        axes.set_xlim(0, 1.18 * max([value or 0 for value in values], default=1) or 1)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set_xlabel(label)
    left.set_yticks(range(len(rows)), [row.label for row in rows])
    left.set_ylim(len(rows) - 0.4, -0.6)
    for tick, row in zip(left.get_yticklabels(), rows, strict=True):
        tick.set_color(look.muted if row.use is None else look.ink)
    return figure


class FertilityRow(NamedTuple):
    """A row of the fertility plot."""

    label: str
    use: Any
    """The use of the vocabulary on a text; None for the row that stands for texts left out."""
    series: int
    """The number of the color."""


def fertility_rows(report: VocabularyReport) -> list[FertilityRow]:
    """Return the rows of the fertility plot: training and the sum, then the texts with the most bytes per token first.

    Of more than `MOST_BARS` texts, those in the middle are left out; a row says how many.
    """
    names = _names(report)
    rows = [FertilityRow(report["training"]["name"], report["training"], 0)] if report["training"] is not None else []
    if len(report["texts"]) > 1:
        rows.append(FertilityRow(_sum_name(report), report["all_texts"], 2))
    texts = [
        FertilityRow(name, use, 1)
        for name, use in sorted(
            zip(names, report["texts"], strict=True), key=lambda row: -(row[1]["bytes_per_token"] or 0)
        )
    ]
    if len(texts) > MOST_BARS:
        half = MOST_BARS // 2
        gap = FertilityRow(f"… {len(texts) - MOST_BARS:,} texts in between", None, 1)
        texts = [*texts[:half], gap, *texts[-half:]]
    return [*rows, *texts]


Plot = Callable[[Look, VocabularyReport], "Figure | None"]

PLOTS: dict[str, Plot] = {
    "growth": growth,
    "lengths": lengths,
    "scripts": scripts,
    "frequencies": frequencies,
    "fertility": fertility,
}


def draw_plots(
    report: VocabularyReport, directory: str | os.PathLike[str], settings: PictureSettings
) -> Iterator[list[Path]]:
    """Draw the plots of a report and save them in a directory.

    Yields:
        For each plot, its files: one in each format.
    """
    for name, plot in PLOTS.items():
        figure = plot(settings.look, report)
        if figure is not None:
            yield save(figure, Path(directory) / name, settings)


class _Curve(NamedTuple):
    """A curve: a use of the vocabulary, and how to draw it."""

    use: Any
    label: str
    """Empty for one of many curves in the background."""
    color: str
    text_color: str
    width: float
    is_strong: bool


def _curves(look: Look, report: VocabularyReport) -> Iterator[_Curve]:
    """Yield the uses to draw as curves. Many texts are thin lines behind their sum, of which the extremes are named."""
    texts, names = report["texts"], _names(report)
    if len(texts) <= MOST_SEPARATE_TEXTS:
        # Training has the first color; texts alone begin with it, too.
        colors = [color for color in look.series if report["training"] is None or color != look.series[0]]
        colors += [look.muted]
        for use, name, color in zip(texts, names, colors, strict=False):
            yield _Curve(use, name, color, color, 1.6, True)
    else:
        order = sorted(range(len(texts)), key=lambda text: texts[text]["bytes_per_token"] or 0)
        extremes = {*order[:2], *order[-2:]}
        for number, (use, name) in enumerate(zip(texts, names, strict=True)):
            label, color = (name, look.muted) if number in extremes else ("", look.faint)
            yield _Curve(use, label, color, look.muted, 1.0 if label else 0.6, False)
        sum_color = look.series[1]
        yield _Curve(report["all_texts"], _sum_name(report), sum_color, sum_color, 2.0, True)
    if report["training"] is not None:
        yield _Curve(report["training"], report["training"]["name"], look.series[0], look.series[0], 2.0, True)


def _parts(look: Look, report: VocabularyReport) -> list[tuple[Any, str, str]]:
    """Return the vocabulary and the sums of its uses, each with a name and a color."""
    parts = [(report["vocabulary"], "in the vocabulary", look.faint)]
    if report["training"] is not None:
        parts.append((report["training"], f"in use: {report['training']['name']}", look.series[0]))
    if report["all_texts"] is not None:
        parts.append((report["all_texts"], f"in use: {_sum_name(report)}", look.series[1]))
    return parts


def _sum_name(report: VocabularyReport) -> str:
    """Return the name of all texts together: that of the only text, or "all texts" or "held out" and their number."""
    names = _names(report)
    return names[0] if len(names) == 1 else f"{report['all_texts']['name']} ({len(names):,})"


def _names(report: VocabularyReport) -> list[str]:
    """Return names of the texts that fit a label, without the directories that all have in common."""
    names = [str(use["name"]) for use in report["texts"]]
    prefix = common_directory(names)
    return [_fitting(name[len(prefix) :] or name) for name in names]


def _fitting(name: str) -> str:
    """Return a name that fits a label: the end says more than the beginning."""
    name = drawable(name)
    return name if len(name) <= LABEL else "…" + name[1 - LABEL :]


def _about(report: VocabularyReport) -> str:
    """Return the subtitle, which names the tokenizer and the text."""
    about = report["tokenizer"]
    parts = [f"tokenizer {about['name']}, {about['vocabulary']:,} tokens"]
    if report["training"] is not None:
        parts.append(f"training text of {_size(report['training']['bytes'])}")
    names = [str(use["name"]) for use in report["texts"]]
    if names:
        held_out = "held out: " if report["training"] is not None else ""
        prefix = common_directory(names)
        where = f" in {prefix}" if prefix else ""
        named = f"text {names[0]}" if len(names) == 1 else f"{len(names):,} texts{where}"
        parts.append(f"{held_out}{named}, {_size(report['all_texts']['bytes'])}")
    return "; ".join(parts)


def _size(count: int) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count} bytes"


def _share(share: float) -> str:
    return "0" if share == 0 else "< 0.1" if share < 0.05 else f"{share:.1f}"


def _measure(use: Any, key: str) -> str:
    if use[key]:
        return f"{use[key]:.2f}"
    return "no words" if use["words"] == 0 else "not counted"


def _doubling_ticks(last: int) -> list[int]:
    """Return 256 and its doublings up to a size, and the size itself; every second, fourth, ... if there are many."""
    powers = [256 << n for n in range(64) if (256 << n) < last]
    step = -(-len(powers) // 10)
    ticks = [size for size in powers[::step] if size < 0.75 * last or size == 256]
    return [*ticks, last] if last > 256 else [256]


def _ticks(first: float, last: float) -> list[float]:
    """Return at most nine ticks from `first` to `last` or a little beyond it."""
    step = next(step for step in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 1e9) if last - first <= 8 * step)
    count = max(1, -int(-(last - first) // step))
    return [first + number * step for number in range(count + 1)]


def _legend(look: Look, axes: Axes, texts: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if texts > MOST_SEPARATE_TEXTS:
        from matplotlib.lines import Line2D

        handles.insert(0, Line2D([], [], color=look.faint, linewidth=0.8))
        labels.insert(0, f"each of {texts:,} texts")
    axes.legend(handles, labels, loc="best")

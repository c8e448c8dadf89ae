"""The plots of a report, drawn from the content of report.json with matplotlib, which the extra ``report`` installs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from bpe.analysis.report_tables import MOST_SEPARATE_TEXTS, VocabularyReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 40

TRAINING = "#1e4e8c"
TEXTS = ("#c2410c", "#15803d", "#7e22ce", "#b8860b", "#0e7490", "#9f1239")
VOCABULARY = "#8fa8c8"


def growth(report: VocabularyReport) -> Figure | None:
    """Plot bytes per token as the vocabulary grows, one curve per text. None if there is no text."""
    if not (report["texts"] or report["training"]):
        return None
    figure, axes = _axes("Bytes per token as the vocabulary grows")
    for use, style in _curves(report):
        axes.plot(use["growth"]["vocabulary"], use["growth"]["bytes_per_token"], **style)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda size, _: f"{size:,.0f}")
    axes.set_xlim(left=256)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("vocabulary, tokens")
    axes.set_ylabel("bytes per token")
    _legend(axes)
    return figure


def lengths(report: VocabularyReport) -> Figure:
    """Plot token lengths, in the vocabulary and in use."""
    figure, axes = _axes("Token lengths")
    longest = 20
    parts = _parts(report)
    width = 0.8 / len(parts)
    for number, (part, name, colour) in enumerate(parts):
        counts = {int(size): count for size, count in part["lengths"].items()}
        heights = [counts.get(size, 0) for size in range(1, longest)]
        heights.append(sum(count for size, count in counts.items() if size >= longest))
        at = [size + width * (number - (len(parts) - 1) / 2) for size in range(1, longest + 1)]
        whole = max(1, sum(counts.values()))
        axes.bar(at, [100 * height / whole for height in heights], width, color=colour, label=drawable(name))
    axes.set_xticks([1, *range(2, longest, 2), longest], ["1", *map(str, range(2, longest, 2)), f"{longest}+"])
    axes.grid(False, axis="x")
    axes.set_xlabel("bytes")
    axes.set_ylabel("share of tokens, %")
    _legend(axes)
    return figure


def scripts(report: VocabularyReport) -> Figure:
    """Plot the scripts that tokens belong to, in the vocabulary and in use."""
    parts = _parts(report)
    sums = [max(1, sum(part["classes"].values())) for part, _, _ in parts]
    shares = {
        name: [100 * part["classes"].get(name, 0) / whole for (part, _, _), whole in zip(parts, sums, strict=True)]
        for part, _, _ in parts
        for name in part["classes"]
    }
    seen = [name for name in shares if max(shares[name]) >= 0.05]
    names = sorted(seen, key=lambda name: max(shares[name]), reverse=True)[:16]
    figure, axes = _axes("Scripts", 1.2 + 0.3 * len(names))
    height = 0.8 / len(parts)
    for number, (_, name, colour) in enumerate(parts):
        at = [row + height * (number - (len(parts) - 1) / 2) for row in range(len(names))]
        axes.barh(at, [shares[name][number] for name in names], height, color=colour, label=drawable(name))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.set_xlabel("share of tokens, %")
    _legend(axes, "lower right")
    return figure


def frequencies(report: VocabularyReport) -> Figure | None:
    """Plot how often tokens are used, by rank (Zipf's law). None if there is no text."""
    if not (report["texts"] or report["training"]):
        return None
    figure, axes = _axes("Use of tokens")
    for use, style in _curves(report):
        ranks, counts = use["frequencies"]["rank"], use["frequencies"]["count"]
        axes.plot(ranks, [100 * count / max(1, use["tokens"]) for count in counts], **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda rank, _: f"{rank:,.0f}")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:g}")
    axes.set_xlabel("rank of the token by use")
    axes.set_ylabel("share of the text's tokens, %")
    _legend(axes)
    return figure


def fertility(report: VocabularyReport) -> Figure | None:
    """Plot tokens per word and bytes per token of each text. None if there is no text."""
    uses = [use for use in (report["training"], *report["texts"]) if use is not None]
    if not uses:
        return None
    from matplotlib.figure import Figure

    title = "Fertility and compression"
    if len(uses) > MOST_BARS:
        title += f": the {MOST_BARS} texts of {len(uses):,} with the fewest bytes per token"
        uses = sorted(uses, key=lambda use: use["bytes_per_token"])[:MOST_BARS]
    figure = Figure(figsize=(8, 1.4 + 0.28 * len(uses)), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = range(len(uses))
    for axes, key, label in (
        (left, "tokens_per_word", "tokens per word"),
        (right, "bytes_per_token", "bytes per token"),
    ):
        _style(axes)
        colours = [TRAINING if use is report["training"] else TEXTS[0] for use in uses]
        bars = axes.barh(rows, [use[key] or 0 for use in uses], 0.7, color=colours)
        shown = [f"{use[key]:.2f}" if use[key] else "no words" if use["words"] == 0 else "not counted" for use in uses]
        axes.bar_label(bars, shown, padding=3, fontsize=8)
        axes.margins(x=0.15)
        axes.grid(False, axis="y")
        axes.set_xlabel(label)
    left.set_yticks(rows, [drawable(use["name"]) for use in uses])
    left.set_ylim(len(uses) - 0.4, -0.6)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


PLOTS: dict[str, Callable[[VocabularyReport], Figure | None]] = {
    "growth": growth,
    "lengths": lengths,
    "scripts": scripts,
    "frequencies": frequencies,
    "fertility": fertility,
}


def _axes(title: str, height: float = 5) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    _style(axes)
    axes.set_title(title, loc="left", fontsize=11)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.grid(True, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(axes: Axes, place: Literal["best", "lower right"] = "best") -> None:
    axes.legend(frameon=False, loc=place)


def _parts(report: VocabularyReport) -> list[tuple[Any, str, str]]:
    """Return the vocabulary and the sums of its uses, each with a name and a colour."""
    parts = [(report["vocabulary"], "vocabulary", VOCABULARY)]
    if report["training"] is not None:
        parts.append((report["training"], "in use: " + report["training"]["name"], TRAINING))
    if report["all_texts"] is not None:
        parts.append((report["all_texts"], "in use: " + report["all_texts"]["name"], TEXTS[0]))
    return parts


def _curves(report: VocabularyReport) -> list[tuple[Any, dict[str, Any]]]:
    """Return the uses to draw as curves, each with its style. Many texts are thin lines behind their sum."""
    curves = []
    texts = report["texts"]
    if len(texts) > MOST_SEPARATE_TEXTS:
        curves += [(use, {"color": "#d1d5db", "linewidth": 0.8}) for use in texts]
        curves[0][1]["label"] = f"each of {len(texts):,} texts"
        texts = [report["all_texts"]]
    if report["training"] is not None:
        style = {"color": TRAINING, "linewidth": 1.6, "label": drawable(report["training"]["name"])}
        curves.append((report["training"], style))
    for use, colour in zip(texts, TEXTS, strict=False):
        curves.append((use, {"color": colour, "linewidth": 1.6, "label": drawable(use["name"])}))
    return curves


def drawable(name: str, width: int = 40) -> str:
    """Return a name that can be drawn: no formula, no character that the font lacks, no name that a legend skips."""
    from matplotlib.font_manager import findfont, get_font

    glyphs = get_font(findfont("DejaVu Sans")).get_charmap()
    drawn = "".join(character if ord(character) in glyphs else "?" for character in name)
    drawn = drawn if len(drawn) <= width else "..." + drawn[3 - width :]
    return drawn.replace("$", r"\$") if not drawn.startswith("_") else " " + drawn.replace("$", r"\$")

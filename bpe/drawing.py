"""The look of every picture, and the files that pictures are saved to. Pictures need matplotlib.

A picture is drawn by a function with the decorator `styled`, whose first argument is a `Look`, and saved by `save`.
Equal data gives equal bytes: no file holds a date, and no setting of the user's matplotlib has an effect.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from bpe.errors import InputError
from bpe.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

FORMATS = ("png", "svg", "pdf")
DPI = 300
INSTALL = "pip install 'bpe-llama[report]'"
TITLE, TEXT, SMALL = 12, 9.5, 8.5
"""The sizes of titles, of labels, and of everything else, in points."""
_LINE = 1.35 / 72  # height of a line of text in inches, per point of its size

# Fonts for characters that DejaVu Sans lacks, in this order, where they are installed. Those with coloured bitmaps
# instead of outlines are missing on purpose: matplotlib cannot draw them.
FALLBACK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Hiragino Sans"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei"),
    *("Droid Sans Fallback", "Arial Unicode MS", "Noto Sans", "Noto Sans Thai", "Noto Sans Devanagari"),
    *("Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Ethiopic", "FreeSans", "Noto Emoji", "Symbola"),
    *("Segoe UI Emoji", "Segoe UI Symbol", "Apple Symbols", "Unifont"),
)


@dataclass(frozen=True)
class Look:
    """The colors of a picture.

    The series differ in lightness as well as in hue, so that color-blind readers, and printers without colors, keep
    them apart. Each has a contrast of 3 or more to the background.

    Attributes:
        background: Background of the figure.
        ink: Titles, labels and values.
        muted: Subtitles, ticks, and notes.
        grid: Grid lines.
        faint: Data in the background, such as one curve of many.
        series: Data, in the order of use.
        ramp: A scale from 0 to 1, whose lightness changes in one direction.
    """

    background: str
    ink: str
    muted: str
    grid: str
    faint: str
    series: tuple[str, ...]
    ramp: tuple[str, ...]

    def colormap(self) -> Colormap:
        """Return the ramp for matplotlib. Masked values have the color of the background."""
        from matplotlib.colors import LinearSegmentedColormap

        return LinearSegmentedColormap.from_list("bpe", self.ramp).with_extremes(bad=self.background)


LIGHT = Look(
    background="#ffffff",
    ink="#1b1f24",
    muted="#57606a",
    grid="#e4e7eb",
    faint="#a9b4c0",
    series=("#0072b2", "#d55e00", "#1a9a6c", "#6a1b6e", "#cf5c9a", "#12303f"),
    ramp=("#eef3f8", "#9ecae1", "#3b8bc2", "#0b559f", "#08244d"),
)
DARK = Look(
    background="#11161d",
    ink="#e6e9ed",
    muted="#9aa4b0",
    grid="#29313b",
    faint="#5c6876",
    series=("#56b4e9", "#f28e2b", "#12907a", "#f5e6a8", "#d06ab8", "#8f7bf0"),
    ramp=("#1c242e", "#14466f", "#2b7fbd", "#86c3ee", "#f2f9ff"),
)


@dataclass(frozen=True)
class PictureSettings:
    """How pictures are saved.

    Attributes:
        formats: Names from `FORMATS`; each picture is saved in all of them.
        dark: Draw light lines on a dark background.
    """

    formats: tuple[str, ...] = ("png",)
    dark: bool = False

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise InputError(f"{name!r} is not a format of pictures; use {', '.join(FORMATS)}")
        if not self.formats:
            raise InputError(f"no format of pictures is given; use {', '.join(FORMATS)}")

    @property
    def look(self) -> Look:
        """The colors."""
        return DARK if self.dark else LIGHT


def is_available() -> bool:
    """Return whether matplotlib is installed, without importing it."""
    return importlib.util.find_spec("matplotlib") is not None


def require(what: str) -> None:
    """Check that pictures can be drawn. Call it before long work.

    Args:
        what: What would be drawn; the message begins with it.

    Raises:
        InputError: When matplotlib is not installed.
    """
    if not is_available():
        raise InputError(f"{what}: pictures are drawn with matplotlib, which is not installed: {INSTALL}")


def styled(draw: Callable[Concatenate[Look, P], R]) -> Callable[Concatenate[Look, P], R]:
    """Decorate a function that draws a figure, so that it draws in the look that is its first argument."""

    @functools.wraps(draw)
    def drawn(look: Look, /, *args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib.style

        with matplotlib.style.context(["default", _settings(look)]):
            return draw(look, *args, **kwargs)

    return drawn


def save(figure: Figure, path: str | os.PathLike[str], settings: PictureSettings) -> list[Path]:
    """Save a figure in all formats.

    Args:
        figure: A figure that a function with the decorator `styled` drew in the look of the settings.
        path: Path of the files, without a suffix.
        settings: The formats.

    Returns:
        The paths of the files.

    Raises:
        OSError: When a file cannot be written.
    """
    import matplotlib.style

    metadata: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    files = []
    with matplotlib.style.context(["default", _settings(settings.look)]):
        for name in settings.formats:
            file = Path(f"{os.fspath(path)}.{name}")
            with replacing(file) as temporary:
                figure.savefig(temporary, format=name, dpi=DPI, metadata=metadata[name])
            files.append(file)
    return files


def _settings(look: Look) -> dict[str, Any]:
    return {
        "font.family": [*_fonts(), "sans-serif"],
        "font.size": TEXT,
        "axes.labelsize": TEXT,
        "axes.titlesize": TEXT,
        "axes.titlelocation": "left",
        "axes.facecolor": look.background,
        "axes.edgecolor": look.muted,
        "axes.labelcolor": look.ink,
        "axes.titlecolor": look.ink,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.unicode_minus": False,
        "grid.color": look.grid,
        "grid.linewidth": 0.7,
        "text.color": look.ink,
        "text.parse_math": False,
        "xtick.color": look.muted,
        "ytick.color": look.muted,
        "xtick.labelcolor": look.ink,
        "ytick.labelcolor": look.ink,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "figure.facecolor": look.background,
        "figure.dpi": 100,
        "savefig.facecolor": look.background,
        "svg.fonttype": "none",
        "svg.hashsalt": "bpe-llama",
        "pdf.fonttype": 42,
    }


@functools.cache
def _fonts() -> tuple[str, ...]:
    """Return the names of the fonts: DejaVu Sans, which comes with matplotlib, and fallbacks that are installed."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed))


@functools.cache
def _glyphs() -> frozenset[int]:
    """Return the code points that these fonts have."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(point for name in _fonts() for point in get_font(findfont(name)).get_charmap())


def drawable(text: str) -> str:
    r"""Return a text with characters that no font has as escapes, such as \u65e5."""
    glyphs = _glyphs()
    return "".join(
        character if ord(character) in glyphs and character.isprintable() else _escaped(character) for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def figure_of(width: float, height: float, title: str, subtitle: str = "", most_lines: int = 2) -> Figure:
    """Return an empty figure with a title and a subtitle at the top left.

    Args:
        width: Width in inches.
        height: Height in inches, without the titles.
        title: What the picture shows.
        subtitle: The model, the tokenizer and the text, in smaller letters; broken into lines.
        most_lines: Number of lines after which the title and the subtitle are cut.
    """
    from matplotlib.figure import Figure

    titles = _lines(title, width, TITLE * 1.05, most_lines)
    subtitles = _lines(subtitle, width, SMALL, most_lines)
    top = 0.08 + len(titles) * TITLE * _LINE
    header = top + len(subtitles) * SMALL * _LINE + 0.06
    figure = Figure(figsize=(width, height + header), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.06 / width, 0, 1 - 0.14 / width, height / (height + header)))
    at: dict[str, Any] = {"x": 0.1 / width, "ha": "left", "va": "top", "linespacing": 1.2}
    figure.text(y=1 - 0.08 / (height + header), s="\n".join(titles), fontsize=TITLE, fontweight="bold", **at)
    if subtitles:
        settings: dict[str, Any] = {"fontsize": SMALL, "color": _muted(), **at}
        figure.text(y=1 - top / (height + header), s="\n".join(subtitles), **settings)
    return figure


def _muted() -> str:
    import matplotlib

    color: str = matplotlib.rcParams["xtick.color"]
    return color


def _lines(text: str, width: float, size: float, most: int) -> list[str]:
    """Break a text into lines that fit a width in inches; the end of a text with too many is cut.

    The average width of a letter of DejaVu Sans is 0.55 times its size; lines are tested by their real width.
    """
    text = drawable(" ".join(text.split()))
    if not text:
        return []
    most_inches = width - 0.25
    columns = int(most_inches * 72 / (0.5 * size))
    while True:
        lines = textwrap.wrap(text, columns, max_lines=most, placeholder=" …") or [""]
        if columns <= 8 or max(text_width(line, size) for line in lines) <= most_inches:
            return lines
        columns -= max(1, columns // 20)


def text_width(text: str, size: float) -> float:
    """Return the width of a drawable text in inches.

    Args:
        text: The text, in one line.
        size: The size of the letters in points.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    width, _, _ = TextToPath().get_text_width_height_descent(text, FontProperties(family=_fonts(), size=size), False)
    return float(width) / 72


def common_directory(names: Sequence[str]) -> str:
    """Return the directories that all names begin with, up to and including a slash; empty if there are none.

    >>> common_directory(["corpora/code/a.py", "corpora/prose.txt"])
    'corpora/'
    """
    if not names:
        return ""
    prefix = os.path.commonprefix(list(names))
    ends = [match.end() for match in re.finditer(r"[/\\]", prefix)]
    return prefix[: ends[-1]] if ends else ""


def spread(places: Sequence[float], gap: float, least: float, most: float) -> list[float]:
    """Move places apart, as little as possible, so that labels at them do not overlap.

    Args:
        places: The wanted places, in any order.
        gap: The smallest distance between two places.
        least: The smallest place.
        most: The largest place. If the places do not fit in between, they reach beyond it.

    Returns:
        The new places, in the order of the wanted ones.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    groups: list[list[float]] = []  # [first place, number of places], from low to high
    for index in order:
        groups.append([places[index], 1])
        while len(groups) > 1 and groups[-1][0] < groups[-2][0] + groups[-2][1] * gap:
            (low, count), (high, more) = groups[-2:]
            middle = (count * (low + (count - 1) * gap / 2) + more * (high + (more - 1) * gap / 2)) / (count + more)
            groups[-2:] = [[middle - (count + more - 1) * gap / 2, count + more]]
    moved = [first + number * gap for first, count in groups for number in range(int(count))]
    for at in range(len(moved) - 1, -1, -1):
        moved[at] = min(moved[at], most if at == len(moved) - 1 else moved[at + 1] - gap)
    for at in range(len(moved)):
        moved[at] = max(moved[at], least if at == 0 else moved[at - 1] + gap)
    placed = [0.0] * len(places)
    for index, place in zip(order, moved, strict=True):
        placed[index] = place
    return placed


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], height: float) -> None:
    """Write labels to the right of axes, at the height of the ends of lines, without overlaps.

    Args:
        axes: The axes; their limits must be final.
        ends: For each line, its last y on a linear scale, its label and its color.
        height: The height of the axes in inches, about.
    """
    low, high = axes.get_ylim()
    gap = SMALL * _LINE / height * (high - low)
    places = spread([y for y, _, _ in ends], gap, low, high)
    for (_, label, color), place in zip(ends, places, strict=True):
        axes.text(
            1.015, place, drawable(label), transform=axes.get_yaxis_transform(), color=color, fontsize=SMALL,
            va="center", ha="left", clip_on=False,
        )  # fmt: skip

"""Pictures of attention maps: one head with all token labels, a grid of heads or of layers, or both."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bpe.drawing import SMALL, TEXT, Look, drawable, figure_of, styled, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Shares = npt.NDArray[np.float32]

PITCH = 0.17  # height of a token's row in inches
LARGEST = 22.0  # side of the largest map in inches: at 300 dots per inch, 170 MB in memory
SMALLEST_LETTERS = 4.5  # points
MOST_NUMBERED = 12  # tokens of a map whose cells show their numbers
MOST_LABELLED = 28  # tokens of a grid with labels
TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)


@styled
def attention_map(look: Look, shares: Tensor, names: Sequence[str], title: str, subtitle: str) -> Figure:
    """Draw the attention of one head, with a label for each token.

    Args:
        look: The colors.
        shares: The attention of each token (rows) to each token (columns), [time, time].
        names: The labels of the tokens.
        title: The title of the picture.
        subtitle: The prompt.
    """
    count = len(names)
    side = min(max(3.0, PITCH * count), LARGEST)
    letters = min(SMALL, 0.75 * 72 * side / count)
    every = max(1, math.ceil(SMALLEST_LETTERS / letters))
    letters = max(letters, SMALLEST_LETTERS)
    labels = [token_label(name) for name in names[::every]]
    margin = max((text_width(label, letters) for label in labels), default=0) + 0.45
    figure = figure_of(max(side + margin + 0.9, 5), side + margin, title, subtitle)
    axes = figure.add_subplot()
    image = _draw(look, axes, _masked(shares))
    if count <= MOST_NUMBERED:
        _write_numbers(axes, image, shares)
    axes.set_xticks(range(0, count, every), labels, rotation=90)
    axes.set_yticks(range(0, count, every), labels, va="center_baseline")
    axes.tick_params(labelsize=letters)
    numbered = f" (a label for every {every} tokens)" if every > 1 else ""
    axes.set_xlabel(f"token that is attended to{numbered}")
    axes.set_ylabel("token that attends")
    _scale(look, figure, image, [axes], side)
    return figure


@styled
def attention_grid(
    look: Look, shares: Tensor, headings: Sequence[Sequence[str]], names: Sequence[str], title: str, subtitle: str
) -> Figure:
    """Draw the attention of several heads, in rows.

    Args:
        look: The colors.
        shares: The attention of each head: [heads, time, time].
        headings: What stands above the maps, row by row. Rows may have different lengths, the last the shortest.
        names: The labels of the tokens.
        title: The title of the picture.
        subtitle: The prompt.
    """
    rows, columns, count = len(headings), len(headings[0]), len(names)
    is_labelled = count <= MOST_LABELLED
    side = min(max(1.4, 0.115 * count if is_labelled else 0), LARGEST / columns)
    letters = min(SMALL - 1.5, 0.75 * 72 * side / count)
    labels = [token_label(name) for name in names]
    margin = max(text_width(label, letters) for label in labels) if is_labelled else 0.0
    width = max(columns * (side + 0.12) + margin + 1.3, 5)
    figure = figure_of(width, rows * (side + 0.28) + margin + 0.4, title, subtitle)
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    grid = figure.subplots(rows, columns, squeeze=False)
    maps, drawn = iter(shares), []
    for row, (line, texts) in enumerate(zip(grid, headings, strict=True)):
        for column, axes in enumerate(line):
            if column >= len(texts):
                axes.set_visible(False)
                continue
            image = _draw(look, axes, _masked(next(maps)))
            axes.set_title(texts[column], fontsize=min(SMALL, 12 * side), loc="center", pad=2.5, color=look.muted)
            axes.set_xticks([])
            axes.set_yticks([])
            if is_labelled and column == 0:
                axes.set_yticks(range(count), labels, fontsize=letters)
            if is_labelled and (row == rows - 1 or column >= len(headings[row + 1])):
                axes.set_xticks(range(count), labels, fontsize=letters, rotation=90)
            drawn.append(axes)
    figure.supxlabel("token that is attended to", fontsize=TEXT)
    figure.supylabel("token that attends", fontsize=TEXT)
    _scale(look, figure, image, drawn, rows * side)
    return figure


@styled
def attention_mosaic(
    look: Look, shares: Tensor, layers: Sequence[int], heads: Sequence[int], title: str, subtitle: str
) -> Figure:
    """Draw the attention of many layers (rows) and heads (columns), without labels of tokens.

    Args:
        look: The colors.
        shares: The attention of each head: [layers, heads, time, time].
        layers: The numbers of the layers.
        heads: The numbers of the heads.
        title: The title of the picture.
        subtitle: The prompt.
    """
    rows, columns, count = shares.shape[:3]
    gap = max(1, count // 12)
    cell = count + gap
    shape = rows * cell - gap, columns * cell - gap
    tiles = np.ma.masked_array(np.zeros(shape, np.float32), np.ones(shape, bool))
    for row in range(rows):
        for column in range(columns):
            tiles[row * cell :, column * cell :][:count, :count] = _masked(shares[row, column])
    side = min(0.75, LARGEST / max(rows, columns))
    figure = figure_of(max(columns * side + 1.7, 5), rows * side + 0.6, title, subtitle)
    axes = figure.add_subplot()
    image = _draw(look, axes, tiles)
    letters = min(SMALL, 0.6 * 72 * side)
    middle = (count - 1) / 2
    axes.set_xticks([column * cell + middle for column in range(columns)], map(str, heads), fontsize=letters)
    axes.set_yticks([row * cell + middle for row in range(rows)], map(str, layers), fontsize=letters)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.set_xlabel("head; in each map, a column for each token that is attended to")
    axes.set_ylabel("layer; in each map, a row for each token that attends")
    _scale(look, figure, image, [axes], rows * side)
    return figure


def in_rows(texts: Sequence[str]) -> list[list[str]]:
    """Arrange headings for `attention_grid`: in rows, a little wider than high, and full if possible."""
    count = len(texts)
    most = math.ceil(math.sqrt(1.8 * count))
    columns = min(range(math.ceil(math.sqrt(count)), most + 1), key=lambda columns: (-count % columns, columns))
    return [list(texts[begin : begin + columns]) for begin in range(0, count, columns)]


def token_label(name: str) -> str:
    """Return the label of a token for a picture. A character that occurs ten times in a row is written once: ·{16}."""
    shortened = re.sub(r"(.)\1{9,}", lambda run: f"{run[1]}{{{len(run[0])}}}", name, flags=re.DOTALL)
    return drawable(shortened)


def _masked(shares: Tensor) -> np.ma.MaskedArray[Any, np.dtype[np.float32]]:
    """Return the shares without those of later tokens, which no token sees."""
    numbers = shares.float().cpu().numpy()
    return np.ma.masked_array(numbers, np.triu(np.ones(numbers.shape, bool), 1))


def _draw(look: Look, axes: Axes, shares: np.ma.MaskedArray[Any, np.dtype[np.float32]]) -> AxesImage:
    from matplotlib.colors import PowerNorm

    # A square-root scale, since on a linear scale shares split among many tokens would all look alike.
    image = axes.imshow(shares, cmap=look.colormap(), norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    axes.grid(False)
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _write_numbers(axes: Axes, image: AxesImage, shares: Tensor) -> None:
    """Write the shares of 1% or more into the cells, in percent."""
    for row, line in enumerate(shares.float().cpu().tolist()):
        for column, share in enumerate(line[: row + 1]):
            if share < 0.005:
                continue
            red, green, blue, _ = image.cmap(image.norm(share))
            ink = "#000000" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "#ffffff"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=SMALL - 2)


def _scale(look: Look, figure: Figure, image: AxesImage, axes: Sequence[Axes], height: float) -> None:
    """Add the scale of the colors."""
    length = min(height, 4.0)
    bar: Any = figure.colorbar(image, ax=list(axes), shrink=length / height, aspect=length / 0.14, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_ticks(TICKS, labels=[f"{100 * tick:g}%" for tick in TICKS])
    bar.set_label("share of the row's attention (square-root scale)", fontsize=SMALL, color=look.ink)
    bar.ax.tick_params(labelsize=SMALL - 1, length=2)
    bar.ax.minorticks_off()

"""Pictures of the steps of a forward pass: lines of text for a terminal, and a record for JSON."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from model.explain.steps import ForwardStep

Label = Callable[[int], str]
"""Returns the text to show for a token id."""
COLUMNS = 78  # the width of a terminal with 80 columns, minus an indentation of two
CELLS = 32  # cells in a row; divides most dimensions
LABEL = 12  # the width of a label in columns
ROWS = 24  # rows of the attention map; earlier tokens are left out
WAVE = "▁▂▃▄▅▆▇█"
SHADES = ((0.6, "█"), (0.3, "▓"), (0.1, "▒"), (0.02, "░"), (0.0, "·"))
BLUES_TO_REDS = (27, 33, 75, 117, 217, 209, 203, 196)
DARK_TO_BRIGHT = {"█": 226, "▓": 214, "▒": 168, "░": 62, "·": 240}


def picture(step: ForwardStep, ids: Sequence[int], label: Label, *, top: int = 10, colour: bool = False) -> list[str]:
    """Return the lines that show the numbers of a step, each at most COLUMNS wide.

    Args:
        step: The step.
        ids: The prompt.
        label: Returns the text to show for an id.
        top: The number of likeliest next tokens to show.
        colour: Whether to colour the lines with ANSI escape sequences.
    """
    painted = _painted if colour else _plain
    if step.picture == "ids":
        return _ids(ids, label)
    if step.picture == "shares":
        return _shares(step.tensor, ids, label, painted)
    if step.picture == "next":
        return _next(step.tensor[0], label, top)
    if step.picture == "layers":
        return _layers(step, label, painted)
    names = [label(id) for id in ids[-len(step.tensor) :]]
    shown = range(len(names)) if len(names) <= 3 else (0, 1, len(names) - 1)
    lines = [
        f"{_short(names[row])}  {_wave(step.tensor[row], painted)} {_numbers(step.tensor[row])}".rstrip()
        for row in shown
    ]
    return lines if len(names) <= 3 else [*lines[:2], "...", lines[2]]


def record(step: ForwardStep, label: Label, *, top: int = 10) -> dict[str, Any]:
    """Return a step as a JSON object: its description, its extremes and mean, and the numbers of its picture.

    Args:
        step: The step.
        label: Returns the text to show for an id.
        top: The number of likeliest next tokens to include.
    """
    numbers = step.tensor.float()
    finite = numbers[torch.isfinite(numbers)]
    found: dict[str, Any] = {
        "title": step.title,
        "text": step.text,
        "axes": step.axes.split(" x "),
        "shape": list(step.tensor.shape),
        "dtype": step.dtype,
    }
    if step.picture == "ids":
        ids = step.tensor.tolist()
        return found | {"tokens": [{"id": id, "token": label(id)} for id in ids]}
    found |= {"min": finite.min().item(), "max": finite.max().item(), "mean": finite.mean().item()}
    if step.picture == "shares":
        found["shares"] = numbers.tolist()
    if step.guesses is not None:
        sizes = _root_mean_squares(step.tensor)
        found["layers"] = [
            {"root_mean_square": size, **_likeliest(guess, label, 1)[0]}
            for size, guess in zip(sizes, step.guesses, strict=True)
        ]
    if step.picture == "next":
        found["next"] = _likeliest(step.tensor[0], label, top)
    return found


def _likeliest(probabilities: Tensor, label: Label, count: int) -> list[dict[str, Any]]:
    values, ids = probabilities.topk(min(count, len(probabilities)))
    pairs = zip(values.tolist(), ids.tolist(), strict=True)
    return [{"id": id, "token": label(id), "probability": value} for value, id in pairs]


def _root_mean_squares(rows: Tensor) -> list[float]:
    sizes: list[float] = rows.float().square().mean(-1).sqrt().tolist()
    return sizes


def _plain(character: str, colour: int) -> str:
    return character


def _painted(character: str, colour: int) -> str:
    return f"\x1b[38;5;{colour}m{character}\x1b[0m"


def _short(text: str, width: int = LABEL) -> str:
    """Shorten or pad a text to `width` columns."""
    if display_width(text) > width:
        while display_width(text) >= width:
            text = text[:-1]
        text += "…"
    return text + " " * (width - display_width(text))


def display_width(text: str) -> int:
    """Return the width of a text in a terminal, in columns: combining marks take none, wide characters two."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.category(character) in ("Mn", "Me") for character in text)


def _binned(row: Tensor) -> list[Tensor]:
    """Split a row into at most CELLS pieces of about equal length."""
    return list(row.float().cpu().tensor_split(min(CELLS, len(row))))


def _wave(row: Tensor, painted: Callable[[str, int], str]) -> str:
    """Return a character for each piece of a row, by its number farthest from 0; blank for -inf."""
    farthest = [
        piece[piece.abs().argmax()].item()
        for piece in (piece[torch.isfinite(piece)] for piece in _binned(row))
        if len(piece)
    ]
    most = max(map(abs, farthest), default=0) or 1
    wave = []
    for number in farthest:
        level = min(int((number / most + 1) / 2 * len(WAVE)), len(WAVE) - 1)
        wave.append(painted(WAVE[level], BLUES_TO_REDS[level]))
    return "".join(wave) + " " * (CELLS - len(wave))


def _numbers(row: Tensor) -> str:
    """Return the first two numbers and the last, each in nine columns."""
    shown = [_number(number) for number in (row if len(row) <= 3 else row[[0, 1, -1]]).tolist()]
    return "".join(shown if len(row) <= 3 else [*shown[:2], " ..", shown[2]])


def _number(number: float) -> str:
    return f" {number:8.3g}" if number == 0 or 0.001 <= abs(number) < 1000 or math.isinf(number) else f" {number:8.1e}"


def _ids(ids: Sequence[int], label: Label) -> list[str]:
    cut = [f"{label(id)} {id}" for id in ids]
    lines = [""]
    for text in cut if len(cut) <= 4 * ROWS else ["...", *cut[-4 * ROWS :]]:
        if lines[-1] and display_width(lines[-1]) + 3 + display_width(text) > COLUMNS:
            lines.append("")
        lines[-1] += ("   " if lines[-1] else "") + text
    return lines


def _shares(shares: Tensor, ids: Sequence[int], label: Label, painted: Callable[[str, int], str]) -> list[str]:
    count = len(ids)
    lines = [f"(the last {ROWS} of {count} rows)"] if count > ROWS else []
    if count > CELLS:
        lines.append(f"(each column sums about {count / CELLS:.0f} tokens)")
    for row in range(max(0, count - ROWS), count):
        seen = torch.zeros(count, dtype=torch.bool)
        seen[: row + 1] = True
        cells = ""
        for share, visible in zip(_binned(shares[row]), _binned(seen), strict=True):
            shade = next(shade for least, shade in SHADES if share.sum().item() >= least) if visible.any() else " "
            cells += painted(2 * shade, DARK_TO_BRIGHT[shade]) if shade != " " else ""
        lines.append(f"{_short(label(ids[row]))}  {cells}")
    return [*lines, f"{'':<{LABEL}}  · below 2%, ░ from 2%, ▒ 10%, ▓ 30%, █ 60%"]


def _layers(step: ForwardStep, label: Label, painted: Callable[[str, int], str]) -> list[str]:
    assert step.guesses is not None
    lines = []
    for row, size in enumerate(_root_mean_squares(step.tensor)):
        (guess,) = _likeliest(step.guesses[row], label, 1)
        name = f"layer {row - 1}" if row else "embeddings"
        wave = _wave(step.tensor[row], painted)
        lines.append(
            f"{name:<{LABEL}}  {wave}  {size:8.3g} {guess['probability']:6.1%}  {_short(guess['token']).rstrip()}"
        )
    return lines


def _next(probabilities: Tensor, label: Label, top: int) -> list[str]:
    found = _likeliest(probabilities, label, top)
    most = found[0]["probability"] if found else 1
    return [
        f"{_short(each['token'])}  {'█' * max(1, round(CELLS * each['probability'] / most)):<{CELLS}}"
        f"  {each['probability']:8.2%}  {each['id']}"
        for each in found
    ]

"""The plot of the loss: its curves, marks, limits and titles."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest

from bpe.drawing import DARK, LIGHT, PictureSettings
from model.training.plot import draw_loss, plot_loss
from model.training.task import About

ABOUT = About("pretraining of 2.5 million parameters", "tokenizer of 4,096 tokens; text corpora, 9,000 tokens", 10)


def step(number: int, loss: float) -> dict[str, Any]:
    return {"kind": "step", "step": number, "tokens": 100 * number, "loss": loss}


def evaluation(number: int, loss: float, bits: float | None = None) -> dict[str, Any]:
    return {"kind": "evaluation", "step": number, "tokens": 100 * number, "loss": loss, "bits_per_byte": bits}


def run_of(steps: int, *evaluations: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(step(number, 2 + 5 / number) for number in range(1, steps + 1)), *evaluations]


def test_the_best_evaluation_is_marked_and_the_last_is_named() -> None:
    records = run_of(30, evaluation(0, 7, 3.5), evaluation(20, 2.25, 1.125), evaluation(30, 2.5, 1.25))
    (axes, *_) = plot_loss(LIGHT, records, "runs/tales", ABOUT).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        "training, each step",
        "training, running mean",
        "held out; last: 2.50 nats, 1.25 bits per byte",
        "best: 2.25 nats, 1.12 bits per byte, step 20",
    ]
    ring = next(line for line in axes.lines if line.get_label().startswith("best"))
    assert [*ring.get_xdata(), *ring.get_ydata()] == [2.0, 2.25]  # thousand tokens, nats
    assert "2.25" in [text.get_text() for text in axes.texts]


def test_titles_name_the_run_the_model_and_the_data_and_how_often_it_was_read() -> None:
    titles = [text.get_text() for text in plot_loss(LIGHT, run_of(30), "runs/tales", ABOUT).texts]
    assert titles == [
        "Loss of runs/tales: pretraining of 2.5 million parameters",
        "tokenizer of 4,096 tokens; text corpora, 9,000 tokens; 3 epochs",
    ]
    part = plot_loss(LIGHT, run_of(4), "runs/tales", ABOUT).texts[1].get_text()
    assert part.endswith("; 0.4 of one epoch")


def test_the_ends_of_epochs_are_lines_with_numbers_if_the_data_is_read_again() -> None:
    def epochs(steps: int) -> list[str]:
        axes = plot_loss(LIGHT, run_of(steps), "run", ABOUT).axes[0]
        above = [each for each in axes.child_axes if each.get_xlabel() == "end of epoch"]
        dashed = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
        assert dashed == [float(tick) for each in above for tick in each.get_xticks()]
        return [label.get_text() for each in above for label in each.get_xticklabels()]

    assert epochs(8) == []
    assert epochs(35) == ["1", "2", "3"]
    assert epochs(300) == ["3", "6", "9", "12", "15", "18", "21", "24", "27", "30"]


def test_a_steep_beginning_is_cut_off_and_its_loss_is_written() -> None:
    records = [step(number, 9 if number < 3 else 2 + 1 / number) for number in range(1, 200)]
    axes = plot_loss(LIGHT, records, "run", ABOUT).axes[0]
    assert axes.get_ylim()[1] < 5
    assert any(text.get_text().startswith("from ") for text in axes.texts)
    level = [step(number, 3 - number / 400) for number in range(1, 200)]
    axes = plot_loss(LIGHT, level, "run", ABOUT).axes[0]
    assert axes.get_ylim()[0] < 2.5 and axes.get_ylim()[1] > 2.99
    assert not axes.texts


@pytest.mark.parametrize(
    "records",
    [
        [],
        [step(1, 3)],
        [evaluation(0, 3)],
        [step(1, 3), evaluation(1, 3)],
        [step(1, math.nan), step(2, 1), evaluation(2, 2)],
        [step(n, 1) for n in range(1, 4)],
    ],
)
def test_short_and_odd_runs_are_drawn_without_a_warning(records: list[dict[str, Any]], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (file,) = draw_loss(records, tmp_path / "loss", "run", ABOUT, PictureSettings(dark=True))
    assert file == tmp_path / "loss.png"
    assert file.read_bytes().startswith(b"\x89PNG")


def test_dark_changes_colors_only() -> None:
    light, dark = (plot_loss(look, run_of(30, evaluation(20, 2.2, 1)), "run", ABOUT) for look in (LIGHT, DARK))
    assert light.get_facecolor() != dark.get_facecolor()
    for ours, theirs in zip(light.axes[0].lines, dark.axes[0].lines, strict=True):
        assert list(ours.get_ydata()) == list(theirs.get_ydata())
        assert ours.get_color() != theirs.get_color()

"""What a training run shows: a line on a terminal, lines elsewhere, and events."""

from __future__ import annotations

import io
import json

import pytest

from bpe.progress import Bars, Events, Lines, Reporter, reporting
from model.training.progress import TrainingReport
from support.terminal import Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run_on(reporter: Reporter) -> None:
    with reporting(reporter):
        report = TrainingReport(reporter)
        report.sample(0, "random\n words")
        with report.training(2000, None):
            report.step(500, 500, 2.5, 12345.0, 0.375, 95.0)
            report.evaluation(500, 3.0, 1.25, 30.0)
            report.step(1000, 1000, 2.25, 12000.0, None, 3700.0)
            report.sample(1000, "some words")
        report.say("finished")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_shows_one_line_that_fits_and_vanishes(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bars, "tick_seconds", 0)
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    run_on(Bars(stream))
    screen = Screen(stream.getvalue(), columns)
    first, second = (
        next(line for line in screen.drawn if line.startswith(step)) for step in ("step 500", "step 1,000")
    )
    assert "25%  loss 2.500" in first and first.endswith("1:35 left")
    assert "50%  loss 2.250" in second and second.endswith("1:01:40 left" if columns > 40 else "1:01:40")
    if columns > 40:
        assert "12,345 tokens/s, MFU 38%" in first
        assert "12,000 tokens/s  " in second
    if columns > 80:
        assert "held-out loss 3.000 (1.250 bits/byte)" in second
    assert screen.lines == ["  step 0, before training: random words", "  step 1,000: some words", "finished"]
    assert (screen.wrapped, screen.last) == ([], "")


def test_other_streams_get_a_line_for_each_evaluation_and_none_for_steps() -> None:
    stream = io.StringIO()
    run_on(Lines(stream))
    assert stream.getvalue().splitlines() == [
        "  step 0, before training: random words",
        "0:30  step 500  held-out loss 3.000 (1.250 bits/byte)",
        "  step 1,000: some words",
        "finished",
    ]


def test_events_hold_the_numbers() -> None:
    stream = io.StringIO()
    run_on(Events(stream))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    steps = [event for event in events if event["event"] == "progress" and "loss" in event]
    for event in steps:
        del event["seconds"]
    assert steps[-1] == {
        "event": "progress",
        "phase": "training",
        "done": 1000,
        "total": 2000,
        "unit": "steps",
        "step": 1000,
        "loss": 2.25,
        "tokens_per_second": 12000.0,
    }
    others = [event for event in events if event["event"] != "progress"]
    assert others == [
        {"event": "sample", "step": 0, "text": "random\n words"},
        {"event": "evaluation", "step": 500, "loss": 3.0, "bits_per_byte": 1.25, "seconds": 30.0},
        {"event": "sample", "step": 1000, "text": "some words"},
        {"event": "message", "text": "finished"},
    ]


def test_control_characters_in_a_sample_are_shown_and_not_obeyed() -> None:
    stream = io.StringIO()
    TrainingReport(Lines(stream)).sample(3, "a\x1b[31m b\x0e\x9b \ufffd é")
    assert stream.getvalue() == "  step 3: a<U+001B>[31m b<U+000E><U+009B> \ufffd é\n"

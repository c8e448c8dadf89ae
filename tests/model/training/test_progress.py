"""The progress line."""

from __future__ import annotations

import io

from model.training.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_line_that_redraws_itself_and_vanishes() -> None:
    stream = Terminal()
    progress = ProgressLine(stream)
    progress.step(0.25, 2.5, 12345.0, 0.375, 95.0)
    assert "25%  loss 2.500  12,345 tokens/s, MFU 38%  1:35 left" in stream.getvalue()
    progress.evaluation(10, 3.0, 1.25, 30.0)
    progress.step(0.5, 2.25, 12000.0, 0.4, 3700.0)
    assert "held-out 3.000 (1.250 bits/byte)  12,000 tokens/s, MFU 40%  1:01:40 left" in stream.getvalue()
    progress.say("done")
    assert "\n" not in stream.getvalue().removesuffix("\r\x1b[Kdone\n")


def test_other_streams_get_a_line_for_each_evaluation_and_none_for_steps() -> None:
    stream = io.StringIO()
    progress = ProgressLine(stream)
    progress.step(0.25, 2.5, 12345.0, 0.375, 95.0)
    progress.evaluation(10, 3.0, 1.25, 30.0)
    progress.clear()
    assert stream.getvalue() == "0:30  step 10  held-out 3.000 (1.250 bits/byte)\n"

"""The line that shows progress on a terminal, bars in a notebook, and events."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from bpe import progress, train_from_counts, train_from_iterator
from bpe.columns import columns_of
from bpe.progress import Bars, Events, Lines, Reporter, phase, reporter_on, reporting, say, shown
from bpe.text import counted
from support.terminal import Screen, in_terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def every_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show each tick, however soon it follows the one before."""
    monkeypatch.setattr(Bars, "tick_seconds", 0)
    monkeypatch.setattr(Events, "tick_seconds", 0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def test_work_without_a_reporter_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with phase("counting", 10, "documents") as counting:
        counting.update(5)
    say("nobody hears this")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_one_line_that_redraws_itself_and_vanishes(terminal: Terminal) -> None:
    with reporting(reporter_on(terminal)), phase("counting", 40e6, "bytes") as counting:
        counting.update(10e6, "1,234 documents", seconds_left=95)
    screen = Screen(terminal.getvalue(), 80)
    line = max(screen.drawn, key=len)
    assert line.startswith("counting  ━━") and "──  25%  1,234 documents  10.0 of 40.0 MB" in line
    assert line.endswith("1:35 left")
    assert (screen.lines, screen.last) == ([], "")


@pytest.mark.parametrize("columns", [1, 5, 12, 20, 39, 79, 199])
@pytest.mark.parametrize("name", ["encoding", "漢字を数える", "cafe\u0301 " * 9, "a" * 300])
def test_a_line_is_never_wider_than_the_terminal(columns: int, name: str) -> None:
    for total in (None, 1e9):
        with Reporter().phase(name, total, "bytes") as each:
            each.update(12_345_678, "loss 2.345", "12,345 tokens/s", "漢字 held out", seconds_left=3700)
            assert columns_of(each.line(columns)) <= columns


def test_the_most_important_parts_of_a_line_are_kept() -> None:
    with Reporter().phase("training", 1.0) as training:
        training.update(0.25, "loss 2.500", "12,345 tokens/s", "held-out 3.000", label="step 1,234", seconds_left=95.0)
        assert training.line(39) == "step 1,234  25%  loss 2.500  1:35 left"
        assert training.line(79) == "step 1,234  ━━━━━━────────────────  25%  loss 2.500  12,345 tokens/s  1:35 left"
        assert training.line(10) == "step 1,234"


def test_the_width_is_measured_at_each_tick(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with reporting(Bars(terminal)), phase("counting the pretokens of the corpus", 100, "documents") as counting:
        counting.update(10, "with a long detail behind it")
        monkeypatch.setenv("COLUMNS", "20")
        counting.update(11, "with a long detail behind it")
    drawn = Screen(terminal.getvalue(), 1000).drawn
    assert any(line.startswith("counting the pr…s of the corpus  10%  with") for line in drawn)
    assert 60 < columns_of(max(drawn, key=columns_of)) < 80
    assert "counting …he corpus" in drawn


def test_a_phase_within_a_phase_takes_its_line(terminal: Terminal) -> None:
    with reporting(Bars(terminal)), phase("training", 10, "steps") as training:
        training.update(5)
        with phase("evaluating"):
            pass
        training.update(6)
    drawn = [line.split(" ")[0] for line in Screen(terminal.getvalue(), 80).drawn if line]
    assert drawn == ["training", "training", "evaluating", "training", "training"]
    assert Screen(terminal.getvalue(), 80).wrapped == []


def test_the_line_is_erased_when_the_work_fails(terminal: Terminal) -> None:
    with pytest.raises(KeyboardInterrupt), reporting(Bars(terminal)), phase("training"), phase("evaluating"):
        raise KeyboardInterrupt
    assert Screen(terminal.getvalue(), 80).last == ""


def test_messages_stay_above_the_line(terminal: Terminal) -> None:
    with reporting(Bars(terminal)), phase("training"):
        say("resuming after step 5")
        say("back to step 5")
    screen = Screen(terminal.getvalue(), 80)
    assert screen.lines == ["resuming after step 5", "back to step 5"]
    assert screen.drawn.count("training") == 3


def test_what_others_print_does_not_tear_the_line(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    with reporting(reporter_on(terminal)), phase("training", 10, "steps") as training:
        print("warning: a field has no effect", file=sys.stderr)
        print("half a line", end="")
        training.update(5)
        print(", and its end")
        training.update(6)
    assert sys.stderr is sys.stdout is terminal
    screen = Screen(terminal.getvalue(), 80)
    assert screen.lines == ["warning: a field has no effect", "half a line, and its end"]
    assert screen.last == ""


def test_other_streams_get_messages_only() -> None:
    stream = io.StringIO()
    with reporting(reporter_on(stream)), phase("counting", 10, "documents") as counting:
        counting.update(5)
        say("half of it")
    assert stream.getvalue() == "half of it\n"


def test_events_are_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with reporting(Events(stream)) as events, phase("counting", 10, "documents") as counting:
        counting.update(5, "in words", loss=float("nan"))
        events.event("done", path=Path("my.json"))
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    for record in records:
        if record["event"] == "progress":
            assert record.pop("seconds") >= 0
    progress = {"event": "progress", "phase": "counting", "total": 10, "unit": "documents"}
    assert records == [
        progress | {"done": 0},
        progress | {"done": 5, "loss": None},
        {"event": "done", "path": "my.json"},
        progress | {"done": 5, "loss": None},
    ]


def test_progress_of_a_library_function(monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown(None) as reporter:
        assert type(reporter) is Reporter
    with shown(True) as reporter:
        assert type(reporter) is Bars
    with shown(io.StringIO()) as reporter:
        assert type(reporter) is Lines
    with reporting(Events(io.StringIO())) as events:
        with shown(None) as reporter:
            assert reporter is events
        with shown(True) as reporter:
            assert reporter is events
        with shown(False) as reporter:
            assert type(reporter) is Reporter
        assert progress.current() is events


def test_a_thread_starts_without_a_reporter() -> None:
    found: list[Reporter] = []
    with reporting(Lines(io.StringIO())):
        thread = threading.Thread(target=lambda: found.append(progress.current()))
        thread.start()
        thread.join()
    assert type(found[0]) is Reporter


def test_importing_bpe_does_not_import_tqdm_or_wcwidth() -> None:
    code = "import sys, bpe, bpe.progress, bpe.cli; print({'tqdm', 'wcwidth'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


_NOTEBOOK = """
import sys, types, warnings
warnings.simplefilter("error")
shell = types.SimpleNamespace(kernel=object())
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell, __version__="9")
{widgets}
import bpe.progress as progress
with progress.reporting(progress.reporter_on(sys.stderr)), progress.phase("counting", 10, "documents") as counting:
    counting._next = 0
    counting.update(5)
    progress.say("half of it")
"""


def test_a_notebook_without_widgets_gets_a_line_that_redraws_itself() -> None:
    hidden = "import importlib.util; importlib.util.find_spec = lambda name: None"
    ran = subprocess.run([sys.executable, "-c", _NOTEBOOK.format(widgets=hidden)], capture_output=True, check=True)
    screen = Screen(ran.stderr.decode(), 80)
    assert any("counting" in line and "50%" in line for line in screen.drawn)
    assert (screen.lines, screen.last) == (["half of it"], "")


class Widget:
    """What `tqdm.notebook.tqdm` gives, without a notebook."""

    drawn: list[tuple[float, float, str]] = []

    def __init__(self, total: float, desc: str, leave: bool, bar_format: str) -> None:
        self.total, self.n, self.bar_format = total, 0.0, bar_format

    def reset(self, total: float) -> None:
        self.total = total

    def refresh(self) -> None:
        self.drawn.append((self.n, self.total, self.bar_format))

    def close(self) -> None:
        self.drawn.append((-1, self.total, ""))


def test_a_notebook_with_widgets_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Widget.drawn = []
    notebook = types.SimpleNamespace(tqdm=Widget)
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "tqdm.notebook", notebook)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(progress, "find_spec", lambda name: name)
    with shown(True) as reporter, phase("counting", None, "documents") as counting:
        assert type(reporter) is progress.Widgets
        counting.update(5, "{braces}", total=10)
        say("half of it")
    assert Widget.drawn[0][:2] == (5, 10)
    assert "{{braces}}  5 of 10 documents" in Widget.drawn[0][2]
    assert Widget.drawn[1:] == [(-1, 10, "")]
    assert capsys.readouterr().err == "half of it\n"


def test_a_process_in_a_terminal_never_wraps_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import sys, bpe.progress as p\n"
        "p.Bars.tick_seconds = 0\n"
        "with p.shown(True), p.phase('counting 漢字', 100, 'documents') as each:\n"
        "    for done in range(100):\n"
        "        each.update(done, 'loss 2.345', '12,345 tokens/s', 'held-out 3.000 (1.250 bits/byte)')\n"
        "        if done == 50: print('a result')\n"
    )
    for columns in (30, 80):
        status, screen = in_terminal([sys.executable, "-c", code], columns)
        assert (status, screen.lines, screen.last) == (0, ["a result"], "")
        assert screen.wrapped == []
        assert len(set(screen.drawn)) > 5


def test_training_in_a_program_shows_a_line(monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    train_from_iterator(["ab bc", "bcd cde"], 258, "gpt2", (), progress=True)
    screen = Screen(terminal.getvalue(), 80)
    assert any(line.startswith("counting") for line in screen.drawn)
    assert any(line.startswith("merging") and "100%  2 of 2 merges" in line for line in screen.drawn)
    assert (screen.lines, screen.last, screen.wrapped) == ([], "", [])
    before = terminal.getvalue()
    train_from_iterator(["ab bc", "bcd cde"], 258, "gpt2", ())
    train_from_iterator(["ab bc", "bcd cde"], 258, "gpt2", (), progress=False)
    assert terminal.getvalue() == before
    stream = Terminal()
    train_from_counts({"ab": 1, " bc": 2}, 257, "gpt2", (), progress=stream)
    assert "reading the counts" in stream.getvalue() and terminal.getvalue() == before


def test_one_of_a_kind_is_singular() -> None:
    assert [counted(number, "document") for number in (0, 1, 2048)] == ["0 documents", "1 document", "2,048 documents"]

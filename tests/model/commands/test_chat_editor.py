"""The line editor of `bpe chat`: keys, pasted lines, history, and completion."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from model.commands.chat_editor import (
    ChatCompleter,
    LineEditor,
    PlainLines,
    PrivateHistory,
    is_open_block,
    without_quotes,
)

COMMANDS = {"/save": ("FILE", "write"), "/set": ("NAME VALUE", "change"), "/help": ("COMMAND", ""), "/quit": ("", "")}
SETTINGS = {"temperature": "0 is greedy", "top_p": "", "top_k": ""}

ENTER, ALT_ENTER, CTRL_J, CTRL_C, CTRL_D, CTRL_R, UP, TAB = "\r", "\x1b\r", "\n", "\x03", "\x04", "\x12", "\x1b[A", "\t"
PASTE, PASTED = "\x1b[200~", "\x1b[201~"


@contextmanager
def editor_of(history: Path | None = None) -> Iterator[tuple[LineEditor, PipeInput]]:
    """Yield an editor and what types into it."""
    with create_pipe_input() as keyboard, create_app_session(keyboard, DummyOutput()):
        yield LineEditor(COMMANDS, SETTINGS, history, keyboard, DummyOutput()), keyboard


def typed(keys: str, default: str = "") -> str:
    with editor_of() as (editor, keyboard):
        keyboard.send_text(keys)
        return editor.ask(default)


def test_enter_sends_the_line_as_it_was_typed() -> None:
    assert typed(f" Hello there {ENTER}") == " Hello there "


@pytest.mark.parametrize("key", [ALT_ENTER, CTRL_J])
def test_a_key_begins_a_new_line(key: str) -> None:
    assert typed(f"one{key}two{ENTER}") == "one\ntwo"


def test_lines_that_are_pasted_are_one_message_and_wait_for_enter() -> None:
    assert typed(f"See:{PASTE}one\ntwo\r\nthree\n{PASTED}and more{ENTER}") == "See:one\ntwo\nthree\nand more"


def test_between_three_quotes_enter_begins_a_new_line() -> None:
    assert typed(f'"""one{ENTER}two"""{ENTER}') == '"""one\ntwo"""'
    assert typed(f'"""{ENTER}one{ENTER}"""{ENTER}') == '"""\none\n"""'


@pytest.mark.parametrize(
    ("text", "is_open", "message"),
    [
        ('"""', True, '"""'),
        ('""""""', False, ""),
        ('"""a', True, '"""a'),
        ('  """a\n b """', False, "a\n b "),
        ('"""\na\n"""', False, "a"),
        (' say """ twice """', False, 'say """ twice """'),
        (" a ", False, "a"),
    ],
)
def test_three_quotes_around_a_message_are_no_part_of_it(text: str, is_open: bool, message: str) -> None:
    assert is_open_block(text) == is_open
    assert without_quotes(text) == message


def test_a_default_can_be_edited() -> None:
    assert typed(f"!{ENTER}", default="one\ntwo") == "one\ntwo!"


def test_ctrl_c_discards_the_line_and_ctrl_d_ends() -> None:
    with editor_of() as (editor, keyboard):
        keyboard.send_text(f"half a line{CTRL_C}")
        with pytest.raises(KeyboardInterrupt, match="half a line"):
            editor.ask()
        keyboard.send_text(f"next{ENTER}")
        assert editor.ask() == "next"
        keyboard.send_text(CTRL_D)
        with pytest.raises(EOFError):
            editor.ask()


def test_earlier_sessions_are_in_the_history_and_can_be_searched(tmp_path: Path) -> None:
    file = tmp_path / "state" / "chat_history"
    with editor_of(file) as (editor, keyboard):
        for line in ("first", f"second{CTRL_J}with two lines", "third"):
            keyboard.send_text(f"{line}{ENTER}")
            editor.ask()
    with editor_of(file) as (editor, keyboard):
        keyboard.send_text(f"{UP}{UP}{UP}{ENTER}")  # twice within the message of two lines
        assert editor.ask() == "second\nwith two lines"
        keyboard.send_text(f"{CTRL_R}FIR{ENTER}{ENTER}")  # the first ends the search
        assert editor.ask() == "first"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_only_the_user_may_read_the_history(tmp_path: Path) -> None:
    file = tmp_path / "state" / "chat_history"
    PrivateHistory(file).append_string("secret")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert "secret" in file.read_text()


def test_a_history_that_cannot_be_read_or_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for file in (tmp_path / "file" / "history", tmp_path):
        with editor_of(file) as (editor, keyboard):
            keyboard.send_text(f"one{ENTER}")
            assert editor.ask() == "one"
            keyboard.send_text(f"{UP}{ENTER}")
            assert editor.ask() == "one"


def test_a_history_of_any_bytes_is_read(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_bytes(b"\xff\n+\xff\xfe\n+ok\n\n+last")
    assert list(PrivateHistory(file).load_history_strings())


def completions(text: str) -> list[str]:
    completer = ChatCompleter(COMMANDS, SETTINGS)
    return [completion.text for completion in completer.get_completions(Document(text), CompleteEvent())]


def test_commands_settings_and_values_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completions("/") == ["/save ", "/set ", "/help ", "/quit"]
    assert completions("/se") == ["/set "]
    assert completions("/set to") == ["top_p ", "top_k "]
    assert completions("/set top_p n") == ["none"]
    assert completions("/help s") == ["save", "set"]
    assert (
        completions("Hello /se") == completions("/quit n") == completions("/unknown n") == completions("/s\n/s") == []
    )
    (tmp_path / "dialog.json").touch()
    monkeypatch.chdir(tmp_path)
    assert completions("/save dia") == ["log.json"]
    assert completions(f"/save {tmp_path}{os.sep}d") == ["ialog.json"]


@pytest.mark.parametrize(
    ("line", "completed", "rest", "sent"),
    [("/qu", "/quit", ENTER, "/quit"), ("/sav", "/save ", f"{ENTER}file{ENTER}", "/save file")],
)
def test_tab_completes_and_enter_sends_what_is_complete(line: str, completed: str, rest: str, sent: str) -> None:
    with editor_of() as (editor, keyboard):
        buffer = editor._session.default_buffer  # completions come later than the next key
        buffer.on_completions_changed += lambda _: keyboard.send_text(TAB) if buffer.text == line else None
        buffer.on_text_changed += lambda _: keyboard.send_text(rest) if buffer.text == completed else None
        keyboard.send_text(line)
        assert editor.ask() == sent


def test_without_a_terminal_lines_are_read_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n"))
    assert PlainLines().ask() == "one\n"
    assert capsys.readouterr() == ("", "> ")
    with pytest.raises(EOFError):
        PlainLines().ask()

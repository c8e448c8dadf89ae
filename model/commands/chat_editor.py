"""The line editor of `bpe chat`: history, completion, messages of several lines, and the keyboard during an answer."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app, get_app_or_none
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus, is_searching
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output, create_output

from model.commands.chat_files import make_private_directory

PROMPT = "> "
BLOCK = '"""'  # begins and ends a message of several lines
FILE, SETTING, COMMAND = "FILE", "NAME VALUE", "COMMAND"
"""The kinds of arguments that are completed."""


class PrivateHistory(FileHistory):
    """Lines of earlier sessions, in a file that only the user may read. A file that cannot be written is no error."""

    def load_history_strings(self) -> Iterable[str]:
        with suppress(OSError):
            return list(super().load_history_strings())
        return []

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            make_private_directory(Path(os.fsdecode(self.filename)).parent)
            os.close(os.open(self.filename, os.O_CREAT | os.O_WRONLY, 0o600))
            super().store_string(string)


class ChatCompleter(Completer):
    """Completes commands, names of settings and their values, and paths."""

    def __init__(self, commands: Mapping[str, tuple[str, str]], settings: Mapping[str, str]) -> None:
        """Create a completer.

        Args:
            commands: For each command, such as "/save", the kind of its argument ("" for none) and its help.
            settings: For each setting, its help.
        """
        self._commands = commands
        self._settings = settings
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        text = document.text_before_cursor
        command, space, argument = text.partition(" ")
        if not command.startswith("/") or "\n" in text:
            return
        if not space:
            yield from self._matching(command, self._commands_with_space())
            return
        kind = self._commands.get(command, ("", ""))[0]
        if kind == FILE:
            yield from self._paths.get_completions(Document(argument), complete_event)
        elif kind == COMMAND:
            yield from self._matching(argument, {name[1:]: help for name, (_, help) in self._commands.items()})
        elif kind == SETTING and " " not in argument:
            yield from self._matching(argument, {f"{name} ": help for name, help in self._settings.items()})
        elif kind == SETTING:
            value = argument.partition(" ")[2]
            yield from self._matching(value, {"default": "as at the start", "none": "without it"})

    def _commands_with_space(self) -> dict[str, str]:
        return {name + (" " if kind else ""): help for name, (kind, help) in self._commands.items()}

    @staticmethod
    def _matching(text: str, known: Mapping[str, str]) -> Iterator[Completion]:
        for name, help in known.items():
            if name.startswith(text):
                yield Completion(name, -len(text), display=name.strip(), display_meta=help)


class LineEditor:
    """Reads messages from a terminal, with the keys of readline.

    Enter sends a message; Alt-Enter or Ctrl-J begins a new line, and so does Enter between three quotes. Several lines
    that are pasted are one message. Ctrl-R searches the history, Tab completes commands, and Ctrl-X Ctrl-E opens
    $EDITOR.
    """

    def __init__(
        self,
        commands: Mapping[str, tuple[str, str]],
        settings: Mapping[str, str],
        history: Path | None = None,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        """Create an editor.

        Args:
            commands: As for `ChatCompleter`.
            settings: As for `ChatCompleter`.
            history: The file of the history; None to forget it at the end.
            input: The keyboard. Default: stdin.
            output: The terminal. Default: stdout, or stderr if stdout is not a terminal.
        """
        if output is None and not sys.stdout.isatty():  # with stdout, the session notices a terminal that obeys nothing
            output = create_output(always_prefer_tty=True)
        kept: History = InMemoryHistory() if history is None else PrivateHistory(history)
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=" " * len(PROMPT),
            placeholder=_placeholder,
            history=kept,
            completer=ChatCompleter(commands, settings),
            complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
            search_ignore_case=True,
            enable_open_in_editor=True,
            tempfile_suffix=".md",
            enable_suspend=True,
            key_bindings=_key_bindings(commands),
            input=input,
            output=output,
        )

    def ask(self, default: str = "") -> str:
        """Return the next message, or the next command, as it was typed.

        Args:
            default: A text to begin with, which can be edited.

        Raises:
            EOFError: After Ctrl-D.
            KeyboardInterrupt: After Ctrl-C; with the discarded text as its argument.
        """
        try:
            return self._session.prompt(default=default)
        finally:  # the session ends the mode, but what is pasted during an answer is one message, too
            self._session.output.enable_bracketed_paste()
            self._session.output.flush()


def _placeholder() -> StyleAndTextTuples:
    """Return what an empty line shows: nothing in a search, or when the line is done and stays on the screen."""
    if get_app().is_done or is_searching():
        return []
    return [("fg:ansibrightblack", "Send a message (/help for help)")]


def _key_bindings(commands: Mapping[str, tuple[str, str]]) -> KeyBindings:
    keys = KeyBindings()
    in_message = has_focus(DEFAULT_BUFFER)  # rather than in a search

    @keys.add("enter", filter=in_message)
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion and buffer.text not in commands:
            buffer.complete_state = None  # Enter takes the completion; the argument follows
        elif is_open_block(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=in_message)
    @keys.add("c-j", filter=in_message)
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c", filter=in_message)
    @keys.add("<sigint>")
    def discard(event: KeyPressEvent) -> None:
        event.app.exit(exception=KeyboardInterrupt(event.current_buffer.text), style="class:aborting")

    return keys


def is_open_block(text: str) -> bool:
    """Return whether a text begins with three quotes that are not closed."""
    text = text.strip()
    return text.startswith(BLOCK) and not (len(text) >= 2 * len(BLOCK) and text.endswith(BLOCK))


def without_quotes(text: str) -> str:
    """Return a message without the three quotes around it, if there are any."""
    text = text.strip()
    if text.startswith(BLOCK) and not is_open_block(text):
        return text[len(BLOCK) : -len(BLOCK)].strip("\n")
    return text


class PlainLines:
    """Reads lines from a keyboard without a terminal to edit them on, and prompts on stderr."""

    def ask(self, default: str = "") -> str:
        """As `LineEditor.ask`; a default opens $EDITOR."""
        import click

        if default:
            return click.edit(default) or ""
        click.echo(PROMPT, err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line


@contextmanager
def _on_return(action: Callable[[], None]) -> Iterator[None]:
    """Call a function when the process returns to the foreground after Ctrl-Z, as shells show what is typed again.

    While a line is edited, the editor does that by itself. In the background, no process may change the terminal.
    """

    def returned(number: int, frame: object) -> None:
        with suppress(Exception):  # which would be raised anywhere in an answer
            if get_app_or_none() is None and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp():
                action()

    before = signal.signal(signal.SIGCONT, returned)
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, before)


@contextmanager
def quiet_keyboard() -> Iterator[None]:
    """Keep what is typed between prompts for the next prompt, instead of showing it within an answer.

    Ctrl-C still interrupts. The editor sets its own modes on top of this one, and so does $EDITOR. Where there is no
    terminal of this kind, nothing changes.
    """
    before: Any = None
    output = create_output(always_prefer_tty=True)
    stack = ExitStack()
    with suppress(ImportError, OSError, ValueError):
        import termios

        before = termios.tcgetattr(sys.stdin.fileno())
        now = [*before]
        now[0] &= ~termios.ICRNL  # Enter stays Enter, not Ctrl-J
        now[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, now)
        stack.enter_context(_on_return(lambda: termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, now)))
    try:
        output.enable_bracketed_paste()
        output.flush()
        with stack:
            yield
    finally:
        output.disable_bracketed_paste()
        output.flush()
        if before is not None:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, before)

"""A chat at a terminal: what its commands do, and what it says besides the answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

import click

from bpe.chat import Message
from bpe.commands.failures import in_one_line
from bpe.commands.terminal import counted, print_pieces
from bpe.errors import InputError
from bpe.files import write_json
from model.commands.chat_editor import BLOCK, COMMAND, FILE, SETTING, without_quotes
from model.commands.chat_files import Saving, read_dialog
from model.commands.chat_screen import end_of_context, forgetting, in_brief, say, say_rows
from model.commands.chat_settings import SETTINGS, Settings, setting_name
from model.commands.speculating import speculation_line
from model.generation.conversation import Conversation

_SHOWN_TURNS = 2  # of a dialog that is continued


class Editor(Protocol):
    """Where messages come from; see `LineEditor`."""

    def ask(self, default: str = "") -> str: ...


@dataclass
class Talk:
    """A chat at a terminal."""

    conversation: Conversation
    editor: Editor
    saving: Saving
    facts: list[tuple[str, str]]
    """Labels and values about the model, for /show."""
    settings: Settings = field(init=False)
    files: list[tuple[str, str]] = field(default_factory=list)
    """The names and the contents of files that go into the next message."""
    ends: bool = False
    """Whether a command ends the chat."""
    has_said_forgotten: bool = False

    def __post_init__(self) -> None:
        self.settings = Settings(self.conversation)

    def run(self) -> None:
        """Talk until the end. An error is printed, and the chat continues."""
        while not self.ends:
            try:
                self.receive(self.editor.ask())
            except EOFError:
                click.echo(err=True)
                return
            except KeyboardInterrupt as interrupt:
                discarded = "".join(map(str, interrupt.args)).strip()
                say("" if discarded else "Ctrl-D or /bye ends the chat.")
            except (InputError, OSError) as error:
                say(f"bpe: {in_one_line(error)}")

    def receive(self, text: str) -> None:
        """Obey a command, or send a message."""
        command = command_of(text)
        if command is not None:
            name, argument = command
            self.obey(name, argument)
        elif message := without_quotes(text):
            self.send(message)

    def obey(self, name: str, argument: str) -> None:
        """Execute a command.

        Raises:
            InputError: When there is no such command, or its argument is missing or too much.
        """
        command = find_command(name)
        if argument and not command.argument:
            raise InputError(f"{name} takes no argument; to send this as a message, put a space in front")
        if command.argument and not argument and command.needs_argument:
            raise InputError(f"{name}: the argument is missing; write {name} {command.argument}")
        command.run(self, without_quotes(argument))

    def send(self, text: str) -> None:
        """Send a message, with the files that were read for it, and print the answer."""
        try:
            pieces = self.conversation.answer(with_files(text, self.files))
        except InputError as error:
            if not self.files:
                raise
            names = ", ".join(name for name, _ in self.files)
            self.files.clear()  # else no later message could be sent either
            raise InputError(f"{error}; it no longer includes {names}, which /read reads again") from error
        if self.answer(pieces):
            self.files.clear()

    def answer(self, pieces: Generator[str, None, None]) -> bool:
        """Print an answer and save the dialog. Ctrl-C stops the answer, and what was said stays in the dialog.

        Returns:
            Whether the answer is part of the dialog; not if it was stopped before its first word.
        """
        before = list(self.conversation.messages)
        try:
            print_pieces(pieces)
            click.echo(err=True)
        except KeyboardInterrupt:
            kept = self.conversation.messages != before
            say("\n(stopped)" if kept else "\n(stopped before the first word; the message is not part of the dialog)")
        self.say_limits()
        if self.conversation.messages == before:
            return False
        self.saving.save(self.conversation.messages)
        return True

    def say_limits(self) -> None:
        """Say what speculation gained in the last answer, and where the answer met a limit."""
        conversation = self.conversation
        if conversation.speculation is not None:
            say(speculation_line(conversation.speculation.by, conversation.speculated))
        if conversation.is_full:
            say(f"{end_of_context(conversation)}; /reset begins a new dialog")
        elif conversation.finish == "length":
            limit = conversation.settings["max_tokens"]
            say(f"bpe: the answer ends after {limit:,} tokens; /set max_tokens N changes it")
        if conversation.forgotten and not self.has_said_forgotten:
            say(forgetting(conversation))
        self.has_said_forgotten = conversation.forgotten > 0


def with_files(text: str, files: list[tuple[str, str]]) -> str:
    """Return a message followed by the contents of files."""
    return "\n\n".join([text, *(content for _, content in files)])


def read_text(path: str) -> str:
    """Read a file as text for a message.

    Raises:
        OSError: When it cannot be read.
        InputError: When it is not UTF-8.
    """
    try:
        return Path(path).expanduser().read_bytes().decode("utf-8-sig").replace("\r\n", "\n").rstrip("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not valid UTF-8, so this is no text") from error


def command_of(text: str) -> tuple[str, str] | None:
    """Return the command and its argument that a line stands for; None if it is a message.

    A command is a slash and a lower-case word at the very beginning, such as "/set", or a known command in upper case.
    So "/etc/hosts" and "/ what" begin a message, and a space in front makes a message of any text. The lines "exit" and
    "quit" stand for /exit.
    """
    if text.strip() in ("exit", "quit"):
        return "/exit", ""
    match = re.match(r"/\S*", text)
    if match is None:
        return None
    name, argument = match[0], text[match.end() :].strip()
    if name == "/":
        return ("/help", "") if not argument else None
    if name.lower() in _BY_NAME or re.fullmatch("/[a-z]+", name):
        return name.lower(), argument
    return None


@dataclass(frozen=True)
class Command:
    """A command of the chat."""

    names: tuple[str, ...]
    """The name and its synonyms."""
    argument: str
    """The kind of its argument; empty if it takes none."""
    help: str
    run: Callable[[Talk, str], None]
    needs_argument: bool = False


def find_command(name: str, otherwise: str = "To send this as a message, put a space in front") -> Command:
    """Return the command of this name.

    Args:
        name: The name, with or without its slash.
        otherwise: What else to say where there is no such command.

    Raises:
        InputError: When there is none; the message names the likeliest.
    """
    name = name if name.startswith("/") else f"/{name}"
    if name in _BY_NAME:
        return _BY_NAME[name]
    likely = get_close_matches(name, _BY_NAME, 1, 0.6)
    meant = f"did you mean {likely[0]}?" if likely else "/help lists the commands."
    raise InputError(f"{name}: there is no such command; {meant} {otherwise}".rstrip(" ."))


def _help(talk: Talk, argument: str) -> None:
    if argument:
        command = find_command(argument, "")
        rows = [(f"{', '.join(command.names)} {command.argument}".strip(), command.help)]
        say_rows([*rows, *((name, setting.help) for name, setting in SETTINGS.items())] if command.argument == SETTING
                 else rows)  # fmt: skip
        return
    say_rows([(f"{', '.join(command.names)} {command.argument}".strip(), command.help) for command in COMMANDS])
    say("")
    say_rows(_KEYS)


_KEYS = [
    ("Enter", "send; lines that are pasted are one message"),
    ("Alt-Enter, Ctrl-J", f"a new line; also Enter between {BLOCK} and {BLOCK}"),
    ("Up, Ctrl-R", "earlier messages; search them"),
    ("Ctrl-X Ctrl-E", "write the message in $EDITOR"),
    ("Ctrl-C", "stop an answer; discard the line"),
    ("Ctrl-L", "clear the screen"),
    ("Ctrl-D", "end the chat"),
]


def _quit(talk: Talk, argument: str) -> None:
    talk.ends = True


def _regenerate(talk: Talk, argument: str) -> None:
    pieces = talk.conversation.regenerate()
    if talk.settings.value("temperature") == 0:
        say("The temperature is 0, so the answer is the same again; /set temperature 0.6 changes it.")
    talk.answer(pieces)


def _edit(talk: Talk, argument: str) -> None:
    conversation = talk.conversation
    if conversation.question is None:
        raise InputError("/edit: there is no message to edit; send one first")
    try:
        text = without_quotes(talk.editor.ask(conversation.question))
    except (EOFError, KeyboardInterrupt):
        text = ""
    if not text:
        say("The message is unchanged.")
        return
    before, forgotten = conversation.messages, conversation.forgotten
    conversation.undo()
    try:
        pieces = conversation.answer(text)
    except InputError:
        conversation.messages, conversation.forgotten = before, forgotten
        raise
    talk.answer(pieces)


def _undo(talk: Talk, argument: str) -> None:
    text = talk.conversation.undo()
    talk.saving.save(talk.conversation.messages)
    say(f"Taken back: {in_brief(text)}")


def _set(talk: Talk, argument: str) -> None:
    if not argument:
        say_rows(_setting_rows(talk))
        return
    name, _, value = re.sub(r"^parameter\s+", "", argument).partition(" ")
    if not value and "=" in name:
        name, _, value = name.partition("=")
    value = without_quotes(value)
    say(
        talk.settings.set(name, value)
        if value
        else f"{setting_name(name)} is {talk.settings.shown(setting_name(name))}"
    )


def _setting_rows(talk: Talk) -> list[tuple[str, str]]:
    return [(name, talk.settings.shown(name)) for name in SETTINGS]


def _show(talk: Talk, argument: str) -> None:
    conversation = talk.conversation
    messages = [message for message in conversation.messages if message["role"] != "system"]
    try:
        used = f"{min(conversation.used, conversation.context):,}"  # an answer that was cut lacks its end token
    except InputError:  # a template that refuses a dialog of this form
        used = "?"
    forgotten = f"; the oldest {conversation.forgotten:,} are forgotten" if conversation.forgotten else ""
    saved = "no" if talk.saving.dialogs is None else str(talk.saving.path or "after the next answer")
    say_rows(
        [
            *talk.facts,
            ("context", f"{used} of {conversation.context:,} tokens used"),
            ("dialog", f"{counted(len(messages), 'message')}{forgotten}"),
            *([("next message", f"with {', '.join(name for name, _ in talk.files)}")] if talk.files else []),
            ("saved", saved),
            *([("last answer", _speed(conversation))] if conversation.times.prefill_seconds else []),
            *_setting_rows(talk),
        ]
    )


def _speed(conversation: Conversation) -> str:
    times = conversation.times
    rate = times.decode_tokens / max(times.decode_seconds, 1e-9)
    return (
        f"first token after {times.prefill_seconds:.2f} s ({counted(times.prefill_tokens, 'new token')} read), then"
        f" {rate:,.1f} tokens per second"
    )


def _system(talk: Talk, argument: str) -> None:
    if argument:
        say(talk.settings.set("system", argument))
    elif talk.conversation.system is None:
        say("There is no system message; /system TEXT sets it.")
    else:
        say(f"system is {talk.conversation.system}\n(/system none removes it)")


def _reset(talk: Talk, argument: str) -> None:
    talk.conversation.reset()
    talk.files.clear()
    talk.has_said_forgotten = False
    before, talk.saving.path = talk.saving.path, None
    kept = f" The last one is in {before}." if before is not None and before.exists() else ""
    stays = " The system message stays." if talk.conversation.system is not None else ""
    say(f"A new dialog.{stays}{kept}")


def _save(talk: Talk, argument: str) -> None:
    path = Path(argument).expanduser()
    write_json(path, talk.conversation.messages)
    say(f"{path}: {counted(len(talk.conversation.messages), 'message')} saved")


def _load(talk: Talk, argument: str) -> None:
    path = Path(argument).expanduser()
    messages = read_dialog(path)
    try:
        talk.conversation.restore(messages)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    talk.saving.path, talk.has_said_forgotten = None, False
    say(f"{path}: {counted(len(messages), 'message')} loaded")


def _read(talk: Talk, argument: str) -> None:
    content = read_text(argument)
    talk.files.append((argument, content))
    say(f"{argument}: {counted(len(content), 'character')} will follow the next message")


def show_last_turns(messages: list[Message], prompt: str) -> None:
    """Print the end of a dialog that is continued, as it looked on the screen."""
    questions = [place for place, message in enumerate(messages) if message["role"] == "user"]
    start = questions[-_SHOWN_TURNS] if len(questions) >= _SHOWN_TURNS else 0
    for message in messages[start:]:
        text = _text_of(message).strip("\n")
        if message["role"] == "user":
            say(prompt + text.replace("\n", "\n" + " " * len(prompt)))
        elif message["role"] == "assistant":
            say(f"{text}\n")


def _text_of(message: Message) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


COMMANDS = [
    Command(("/help", "/?"), COMMAND, "list the commands and keys, or explain one", _help),
    Command(("/set",), SETTING, "change a setting; alone: list them; VALUE may be none or default", _set),
    Command(("/show",), "", "show model, context, dialog and settings", _show),
    Command(("/system",), "TEXT", "set the system message; alone: show it", _system),
    Command(("/regen", "/retry"), "", "answer the last message again, with another seed", _regenerate),
    Command(("/edit",), "", "edit the last message and send it again", _edit),
    Command(("/undo",), "", "take back the last message and its answer", _undo),
    Command(("/reset", "/clear"), "", "begin a new dialog; the system message stays", _reset),
    Command(("/read",), FILE, "put a text file after the next message", _read, needs_argument=True),
    Command(("/save",), FILE, "write the dialog as JSON", _save, needs_argument=True),
    Command(("/load",), FILE, "continue a dialog that /save wrote", _load, needs_argument=True),
    Command(("/quit", "/exit", "/bye"), "", "end the chat", _quit),
]
_BY_NAME = {name: command for command in COMMANDS for name in command.names}

COMPLETIONS = {name: (command.argument, command.help) for name, command in _BY_NAME.items()}
"""The commands as `ChatCompleter` takes them."""

"""`bpe chat`: talk with a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.failures import in_one_line
from bpe.commands.options import Command, examples, group
from bpe.commands.terminal import print_pieces
from model.commands.options import (
    backend_option,
    device_option,
    dtype_option,
    eos_token_option,
    load_model,
    place_of,
    sampling_options,
    sampling_settings,
    threads_option,
)

if TYPE_CHECKING:
    from model.generation.conversation import Conversation

_CHAT_COMMANDS = "/system TEXT, /reset, /save FILE, /load FILE, /exit"


TEMPERATURE, TOP_P = 0.6, 0.9


@click.command(cls=Command)
@click.argument("name", metavar="MODEL")
@group(
    "Answers",
    click.option("--system", metavar="TEXT", help="System message before the first question.  [default: none]"),
    click.option("--max-tokens", type=int, default=1024, metavar="N", help="Largest number of tokens in an answer."),
    click.option("--prefill", metavar="TEXT", help="Text that each answer begins with.  [default: none]"),
    eos_token_option,
)
@group(
    "Chat template",
    click.option(
        "--template",
        metavar="NAME",
        help="Name of the model's chat template, if it has several.  [default: the one named default]",
    ),
    click.option(
        "--template-arg",
        "template_args",
        multiple=True,
        metavar="NAME=VALUE",
        help="Variable for the chat template: JSON, else text; repeatable.",
    ),
)
@sampling_options(TEMPERATURE, TOP_P)
@group("Computation", dtype_option, device_option, backend_option, threads_option)
@examples(
    "bpe chat smollm2",
    "bpe chat runs/assistant --system 'Answer in one sentence.' --temperature 0",
    "bpe chat runs/assistant --template-arg enable_thinking=false --prefill 'Sure: '",
    "echo 'How many legs has a spider?' | bpe chat smollm2",
)
def chat(
    name: str,
    system: str | None,
    prefill: str | None,
    template: str | None,
    template_args: Sequence[str],
    dtype: str | None,
    device: str,
    backend: str,
    threads: int | None,
    eos_tokens: Sequence[str],
    **settings: Any,
) -> None:
    """Chat with a model that was trained on dialogs.

    In a terminal, Ctrl-C stops an answer and Ctrl-D ends the chat. Lines that begin with / are commands: /system TEXT
    sets the system message, /reset starts a new dialog, /save FILE and /load FILE save and load the dialog as JSON, and
    /exit ends the chat.

    In a pipe, each line of stdin is a question. The answers go to stdout, separated by empty lines.
    """
    variables = dict(map(_variable, template_args))

    from bpe.locate import locate

    path = locate(name, "model")  # before torch is imported, so that a wrong name fails at once
    from bpe.chat import chat_format
    from model.checkpoint import open_checkpoint
    from model.generation.conversation import Conversation

    checkpoint = open_checkpoint(path)
    settings = sampling_settings(checkpoint, settings, TEMPERATURE, TOP_P)
    model, tokenizer = load_model(path, dtype, device, backend, threads, eos_tokens=eos_tokens)
    # The chat template is next to the tokenizer, which for an adapter may be that of its base.
    format = chat_format(checkpoint.tokenizer, tokenizer, template, variables)
    conversation = Conversation(model, tokenizer, format, prefill=prefill or "", **settings)
    conversation.system = system
    if sys.stdin.isatty():
        click.echo(place_of(model), err=True)
        _talk(conversation)
        return
    questions = filter(None, (line.decode(errors="replace").strip() for line in sys.stdin.buffer))
    for number, question in enumerate(questions):
        click.echo("\n" if number else "", nl=False)
        print_pieces(conversation.answer(question))


def _variable(text: str) -> tuple[str, Any]:
    """Return the name and the value of a variable for the chat template."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise click.UsageError(f"--template-arg {text}: write NAME=VALUE, such as enable_thinking=false")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _talk(conversation: Conversation) -> None:
    """Chat at a terminal. An error is printed, and the chat continues."""
    from bpe import InputError

    with suppress(ImportError):  # if available, input() gets a history and line editing
        import readline  # noqa: F401
    click.echo(f"Ctrl-C stops an answer, Ctrl-D ends the chat; commands: {_CHAT_COMMANDS}", err=True)
    while True:
        try:
            line = _ask("> ").strip()
            if line.split(" ")[0] == "/exit":
                return
            if line.startswith("/"):
                _obey(conversation, *line.partition(" ")[::2])
            elif line:
                print_pieces(conversation.answer(line))
                if conversation.is_full:
                    click.echo("bpe: the model's context is full; start a new dialog with /reset", err=True)
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo(err=True)
        except (InputError, OSError) as error:
            click.echo(f"bpe: {in_one_line(error)}", err=True)


def _ask(prompt: str) -> str:
    """Return a line from the terminal, and print the prompt to stderr when stdout is not a terminal."""
    if sys.stdout.isatty():
        return input(prompt)
    click.echo(prompt, err=True, nl=False)  # input() would write it to stdout
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _obey(conversation: Conversation, command: str, argument: str) -> None:
    """Execute a command within a chat."""
    from bpe import InputError
    from bpe.files import write_json

    argument = argument.strip()
    if command == "/reset":
        conversation.reset()
    elif command == "/system":
        conversation.system = argument
    elif command == "/save" and argument:
        write_json(argument, conversation.messages)
    elif command == "/load" and argument:
        try:
            conversation.restore(json.loads(Path(argument).read_bytes()))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{argument}: {error}") from error
        click.echo(f"{len(conversation.messages)} messages", err=True)
    else:
        raise InputError(f"{command}: not a command; the commands are {_CHAT_COMMANDS}")

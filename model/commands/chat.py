"""`bpe chat`: talk with a model."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.failures import in_one_line
from bpe.commands.options import examples
from bpe.commands.terminal import print_answer
from model.commands.options import backend_option, device_option, dtype_option, load_model, threads_option

if TYPE_CHECKING:
    from model.generation.conversation import Conversation


@click.command()
@click.argument("name", metavar="MODEL")
@click.option("--system", metavar="TEXT", help="What the model is told before the first question.")
@click.option("--max-tokens", type=int, default=1024, metavar="N", help="Write at most so many tokens an answer.")
@click.option("--temperature", type=float, default=0.6, metavar="X", help="0 always takes the likeliest token.")
@click.option("--top-k", type=int, metavar="N", help="Choose among the N likeliest only.  [default: no limit]")
@click.option("--top-p", type=float, default=0.9, metavar="X", help="Choose among the likeliest that sum to this.")
@click.option(
    "--seed", type=int, metavar="N", help="The same seed gives the same chat.  [default: a new one each time]"
)
@dtype_option
@device_option
@backend_option
@threads_option
@examples(
    "bpe chat smollm2",
    "bpe chat runs/assistant --system 'Answer in one sentence.' --temperature 0",
    "echo 'How many legs has a spider?' | bpe chat smollm2",
)
def chat(
    name: str,
    system: str | None,
    dtype: str | None,
    device: str,
    backend: str,
    threads: int | None,
    **settings: Any,
) -> None:
    """Talk with a model that was trained to chat.

    In a terminal, Ctrl-C stops the answer and keeps the chat, and Ctrl-D ends it. There are commands: /system TEXT
    tells the model what to be, /reset forgets what was said, /save FILE and /load FILE keep it as JSON, /exit ends.

    In a pipe, each line of stdin is a question, and stdout has the answers, with an empty line between them.
    """
    from bpe.chat import chat_format
    from bpe.locate import locate
    from model.checkpoint import open_checkpoint
    from model.generation.conversation import Conversation

    path = locate(name)
    model, tokenizer = load_model(path, dtype, device, backend, threads)
    # The template stands beside the tokenizer, which an adapter may leave to its base.
    template = open_checkpoint(path).tokenizer
    conversation = Conversation(model, tokenizer, chat_format(template, tokenizer), **settings)
    conversation.system = system
    if sys.stdin.isatty():
        _talk(conversation)
        return
    questions = filter(None, (line.decode(errors="replace").strip() for line in sys.stdin.buffer))
    for number, question in enumerate(questions):
        click.echo("\n" if number else "", nl=False)
        print_answer(conversation.answer(question))


def _talk(conversation: Conversation) -> None:
    """A chat at a terminal. What goes wrong is said, and the chat goes on."""
    from bpe import InputError

    with suppress(ImportError):  # where it is there, input() has a history and can be edited
        import readline  # noqa: F401
    click.echo("Ctrl-C stops an answer, Ctrl-D ends; /system TEXT, /reset, /save FILE, /load FILE, /exit", err=True)
    while True:
        try:
            line = _ask("> ").strip()
            if line.split(" ")[0] == "/exit":
                return
            if line.startswith("/"):
                _obey(conversation, *line.partition(" ")[::2])
            elif line:
                print_answer(conversation.answer(line))
                if conversation.is_full:
                    click.echo("bpe: the context of the model is full; /reset begins a new dialog", err=True)
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo(err=True)
        except (InputError, OSError) as error:
            click.echo(f"bpe: {in_one_line(error)}", err=True)


def _ask(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    click.echo(prompt, err=True, nl=False)  # input() would write it to stdout
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _obey(conversation: Conversation, command: str, argument: str) -> None:
    """A command within a chat."""
    import json

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
        raise InputError(f"{command}: not a command; there are /system TEXT, /reset, /save FILE, /load FILE, /exit")

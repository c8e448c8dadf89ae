"""What a chat says about itself, on stderr: lines and rows that fit the terminal."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any

import click

from bpe.columns import terminal_columns
from bpe.commands.wrapping import Wrapper, harmless
from model.generation.conversation import Conversation

_NARROW = 60  # columns, below which rows are not two columns


def say(text: str) -> None:
    """Print a text about the chat to stderr, wrapped at the terminal's width."""
    wrapper = Wrapper(lambda: terminal_columns(sys.stderr))
    click.echo(wrapper.feed(text) + wrapper.flush(), err=True)


def say_rows(rows: list[tuple[str, str]]) -> None:
    """Print labels and values in two columns; on a narrow terminal, each value below its label."""
    columns = terminal_columns(sys.stderr)
    labels = max(len(label) for label, _ in rows) + 2
    narrow = columns < _NARROW
    for label, value in rows:
        if narrow and len(label) + 2 + len(value) <= columns and value.isprintable():
            click.echo(f"{label}  {value}", err=True)
            continue
        indent = " " * (4 if narrow else labels)
        lines = [
            line
            for part in (harmless(value).splitlines() or [""])
            for line in textwrap.wrap(
                part, max(columns - len(indent), 20), break_long_words=False, break_on_hyphens=False
            )
            or [""]
        ]
        first = f"{label}\n{indent}" if narrow else label.ljust(labels)
        click.echo((first + f"\n{indent}".join(lines)).rstrip(), err=True)


def in_brief(text: Any) -> str:
    """Return a text, or the parts of a message, in one short line."""
    line = " ".join(harmless(text if isinstance(text, str) else json.dumps(text)).split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def forgetting(conversation: Conversation) -> str:
    """Return the line that says that the model no longer reads the oldest messages."""
    return (
        f"bpe: the dialog has outgrown the model's context of {conversation.context:,} tokens, so the model no longer"
        " reads the oldest messages"
    )


def end_of_context(conversation: Conversation) -> str:
    """Return the line that says that an answer ended because nothing was left to forget."""
    return f"bpe: the answer ends here because the model's context of {conversation.context:,} tokens is full"

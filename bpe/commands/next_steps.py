"""The commands that a long command names at its end, as lines that can be pasted into a shell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Union

from bpe.progress import current, say
from bpe.quoting import quoted

Word = Union[str, Path]
"""A word of a command line; a path is written so that no command takes it for an option."""


def command_line(words: Sequence[Word]) -> str:
    """Return a command line that a shell splits into these words.

    >>> command_line(["bpe", "show", "-t", Path("my file.json"), "-c", "Hello"])
    "bpe show -t 'my file.json' -c Hello"
    """
    plain = (
        os.path.join(".", word) if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words
    )
    return " ".join(map(quoted, plain))


def name_next(*commands: Sequence[Word]) -> None:
    """Print the commands that a person may want next, below each other. Nothing is printed outside of a terminal.

    Args:
        commands: The words of each command, after "bpe".
    """
    if current().draws:
        for number, words in enumerate(commands):
            say(f"{'      ' if number else 'next: '}{command_line(['bpe', *words])}")


def after_training(
    tokenizer: str, corpus: Sequence[str], field: str, exclude: Sequence[str], shards: str
) -> list[list[Word]]:
    """Return what follows `bpe train`: look at the tokens of a text, and encode the corpus.

    Args:
        tokenizer: The file that was written.
        corpus: The corpus; empty for counts. What came from stdin cannot be encoded again.
        field: The value of --field.
        exclude: The values of --exclude.
        shards: The directory for the shards.
    """
    steps: list[list[Word]] = [["show", "-t", Path(tokenizer), "-c", "Hello, world!"]]
    if corpus and "-" not in corpus:
        steps.append(["shards", *map(Path, corpus), "-t", Path(tokenizer), "-o", Path(shards)])
        if field != "text":
            steps[-1] += ["--field", field]
        for pattern in exclude:
            steps[-1] += ["--exclude", pattern]
    return steps


def after_pretraining(run: str) -> list[list[Word]]:
    """Return what follows `bpe pretrain`: let the model write, and teach it to chat."""
    return [generate(Path(run)), ["finetune", Path(run), "dialogs.jsonl", "-o", Path(f"{run.rstrip(os.sep)}-chat")]]


def generate(model: Word) -> list[Word]:
    """Return the command that lets a model, by path or by name, continue a text."""
    return ["generate", model, "-p", "Once upon a time"]


def chat(model: Word) -> list[Word]:
    """Return the command that chats with a model, by path or by name."""
    return ["chat", model]

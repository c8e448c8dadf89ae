"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def examples(*lines: str) -> Callable[[Any], Any]:
    """Adds a block of examples to a command's help, set as written."""

    def add(function: Any) -> Any:
        block = "\n".join(f"  {line}" for line in lines)
        function.__doc__ = f"{function.__doc__.rstrip()}\n\n    \b\n    Examples:\n    " + block.replace("\n", "\n    ")
        return function

    return add


tokenizer_option = click.option(
    "-t",
    "--tokenizer",
    "name",
    metavar="NAME|FILE",
    envvar="BPE_TOKENIZER",
    show_envvar=True,
    default="llama3",
    help="A tokenizer file, a model directory, or a known name.",
)

pattern_option = click.option(
    "--pattern",
    metavar="NAME|REGEX",
    help="Split pattern, for a file of ranks that carries none.  [default: the file's]",
)

exclude_option = click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Leave out files and directories of this name; repeat."
)

separator_option = click.option(
    "--separator", metavar="STRING", help="Where this stands in a file, a new document begins."
)

field_option = click.option(
    "--field", default="text", metavar="NAME", help="Key of the text in .jsonl, column in .parquet."
)

text_option = click.option("-c", "--text", metavar="TEXT", help="Take this text instead of files.")

files_argument = click.argument("files", nargs=-1, metavar="[FILE]...")

special_option = click.option(
    "--allow-special", is_flag=True, help="Let special tokens in the text become their ids; otherwise they are text."
)

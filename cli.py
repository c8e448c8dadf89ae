"""The command `bpe`: a group whose commands are loaded when they are called.

What a command does is in `bpe` and `model`; how it is called is in `bpe/commands` and `model/commands`, a file each.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from bpe.commands.failures import run

COMMANDS = {
    "Train and inspect a vocabulary": {
        "train": "bpe.commands.train",
        "info": "model.commands.info",
        "show": "bpe.commands.show",
        "compare": "bpe.commands.compare",
        "verify": "bpe.commands.verify",
    },
    "Encode": {
        "encode": "bpe.commands.encode",
        "decode": "bpe.commands.decode",
        "count": "bpe.commands.count",
    },
    "Prepare data": {
        "shards": "bpe.commands.shards",
    },
    "Train a model": {
        "pretrain": "model.commands.pretrain",
        "finetune": "model.commands.finetune",
    },
    "Use a model": {
        "generate": "model.commands.generate",
        "chat": "model.commands.chat",
        "eval": "model.commands.eval",
        "explain": "model.commands.explain",
        "convert": "model.commands.convert",
    },
}
"""Heading in the help -> command -> the module that defines it, under the command's name."""

_MODULES = {name: module for commands in COMMANDS.values() for name, module in commands.items()}


class LazyGroup(click.Group):
    """A group that imports the module of a command when the command is needed.

    The help lists the commands under the headings of `COMMANDS`, in that order. An error is one line on stderr, and the
    exit status is 2 for wrong usage and 1 for any other failure.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        command: click.Command = getattr(importlib.import_module(_MODULES[cmd_name]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _MODULES))
        for heading, names in COMMANDS.items():
            with formatter.section(heading):
                commands = {name: self.get_command(ctx, name) for name in names}
                formatter.write_dl(
                    [
                        (name.ljust(width), command.get_short_help_str(limit=100))
                        for name, command in commands.items()
                        if command is not None
                    ]
                )

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        run(lambda: super(LazyGroup, self).main(*args, **kwargs))


def _set_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        os.environ["BPE_DEBUG"] = "1"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="bpe-llama", message="%(version)s")
@click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show the traceback of an error.")
def cli() -> None:
    """From raw text to a talking Llama: train a vocabulary, encode and decode with it, train a model, let it write.

    stdout carries data only, so that commands can be piped; progress and remarks go to stderr.

    Shell completion: eval "$(_BPE_COMPLETE=bash_source bpe)", and zsh_source or fish_source likewise.
    """


def main() -> None:
    """The entry point of the command `bpe`."""
    cli(prog_name="bpe")


if __name__ == "__main__":
    main()

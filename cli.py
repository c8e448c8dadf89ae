"""The command `bpe`: a table of commands, each of which is imported when it is needed.

Each command is a file in `bpe/commands` or `model/commands`. In an installed package, this file is `bpe.cli`.
"""

from __future__ import annotations

import gc
import importlib
import os
import warnings
from typing import Any

import click

from bpe.commands.failures import run
from bpe.commands.names import unknown_command
from bpe.commands.streams import open_closed_streams

COMMANDS = {
    "Train and inspect a vocabulary": {
        "train": "bpe.commands.train",
        "info": "model.commands.info",
        "show": "bpe.commands.show",
        "compare": "bpe.commands.compare",
        "verify": "bpe.commands.verify",
        "playground": "bpe.commands.playground",
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
    "Get models": {
        "pull": "bpe.commands.pull",
        "models": "bpe.commands.models",
    },
    "Use a model": {
        "generate": "model.commands.generate",
        "chat": "model.commands.chat",
        "serve": "model.commands.serve",
        "eval": "model.commands.eval",
        "explain": "model.commands.explain",
        "convert": "model.commands.convert",
    },
    "Set up": {
        "completion": "bpe.commands.completion",
    },
}
"""Heading in the help -> name of the command -> module with a `click.Command` of that name."""

_MODULES = {name: module for commands in COMMANDS.values() for name, module in commands.items()}


class LazyGroup(click.Group):
    """The group of all commands, which imports the module of a command when the command is called.

    The help lists the commands in the order of `COMMANDS`, under its headings.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        command: click.Command = getattr(importlib.import_module(_MODULES[cmd_name]), cmd_name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["help"]:  # as in other programs: bpe help train
            args = [*args[1:2], "--help"]
        if args == ["version"]:
            args = ["--version"]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _MODULES and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(unknown_command(args[0], self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _MODULES))
        for heading, names in COMMANDS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (name.ljust(width), command.get_short_help_str(limit=formatter.width))
                        for name, command in commands
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
@click.version_option(None, "-V", "--version", package_name="bpe-llama", message="%(version)s")
@click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Print the traceback of an error.")
def cli() -> None:
    """From raw text to a talking Llama: train a tokenizer, train a model, and generate text with it.

    Data goes to stdout, so commands can be combined in pipes; progress and messages go to stderr. The exit status is 0
    for success, 2 for wrong usage, and 1 for any other failure.

    \b
    For completion of commands, options and values in the shell, run:
      eval "$(bpe completion bash)"
    """


def _warning_line(message: Warning | str, *_: object, **__: object) -> str:
    """Format a warning for a person: one line without a place in the code."""
    return f"warning: {' '.join(str(message).split())}\n"


def main() -> None:
    """Run the command `bpe`."""
    open_closed_streams()
    warnings.formatwarning = _warning_line
    # Starting makes 100,000 objects and hardly any garbage. To search it for cycles, now and as the interpreter ends,
    # takes a sixth of the time of a short command.
    gc.set_threshold(10_000, *gc.get_threshold()[1:])
    try:
        cli(prog_name="bpe")
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()

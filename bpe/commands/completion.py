"""`bpe completion`: print the script that makes a shell complete commands, options and values."""

from __future__ import annotations

import click

from bpe.commands.options import Command, examples


@click.command(cls=Command)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish", "powershell"]))
@examples(
    """eval "$(bpe completion bash)"     # in ~/.bashrc""",
    """eval "$(bpe completion zsh)"      # in ~/.zshrc""",
    "bpe completion fish > ~/.config/fish/completions/bpe.fish",
)
@click.pass_context
def completion(context: click.Context, /, shell: str) -> None:
    """Print the script for completion in a shell.

    SHELL is bash (4.4 or newer), zsh, fish or powershell. The shell then completes commands, options, and values: names
    of tokenizers and models on this machine, presets, patterns, devices, chat templates, and files.
    """
    from click.shell_completion import get_completion_class

    from bpe.errors import InputError

    completer = get_completion_class(shell)
    if completer is None:
        raise InputError(f"completion in {shell} needs a newer click: pip install --upgrade click")
    root = context.find_root()
    click.echo(completer(root.command, {}, "bpe", "_BPE_COMPLETE").source())

"""`bpe models`: list the tokenizers and models on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.options import Command, examples
from bpe.commands.terminal import amount

if TYPE_CHECKING:
    from bpe.inventory import Entry


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects with paths and sizes in bytes.")
@examples("bpe models", "bpe models --json")
def models(as_json: bool) -> None:
    """List the tokenizers and models on this machine.

    Lists the known names with where their files are or how to get them, the cache of the Hugging Face hub, and the
    tokenizers, models and runs in the working directory and in its folders. Other commands take each name as it is
    printed.
    """
    from pathlib import Path

    from bpe.inventory import folder_entries, hub_entries, known_entries

    groups = {
        "Known names": [*known_entries()],
        "Hub": [*hub_entries()],
        "This folder": [*folder_entries(Path())],
    }
    if as_json:
        click.echo(json.dumps([_record(entry) for entries in groups.values() for entry in entries], indent=2))
        return
    for heading, entries in groups.items():
        if entries:
            click.echo(f"{heading}:")
            for entry in entries:
                click.echo(_line(entry))


def _line(entry: Entry) -> str:
    size = "-" if entry.path is None else f"{amount(entry.size)}B"
    note = f"  ({entry.note})" if entry.note else ""
    return f"  {entry.format or 'not here':<11}  {size:>7}  {entry.name}{note}"


def _record(entry: Entry) -> dict[str, Any]:
    path = None if entry.path is None else str(entry.path.absolute())
    return {
        "source": entry.source,
        "name": entry.name,
        "format": entry.format or None,
        "path": path,
        "bytes": None if path is None else entry.size,
        "note": entry.note or None,
    }

"""`bpe models`: list the tokenizers and models on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bpe.columns import clipped_in_the_middle, columns_of, wrapped
from bpe.commands.options import Command, examples
from bpe.commands.terminal import amount, stdout_columns

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
    columns = stdout_columns()
    for heading, entries in groups.items():
        if entries:
            click.echo(f"{heading}:")
            for entry in entries:
                for line in _lines(entry, columns):
                    click.echo(line)


def _lines(entry: Entry, columns: int | None) -> list[str]:
    """Return an entry as one line; in a narrow terminal, its note is on the lines below."""
    size = "-" if entry.path is None else f"{amount(entry.size)}B"
    begin = f"  {entry.format or 'not here':<11}  {size:>7}  "
    line = f"{begin}{entry.name}" + (f"  ({entry.note})" if entry.note else "")
    if columns is None or columns_of(line) <= columns:
        return [line]
    room = max(8, columns - len(begin))
    indent = " " * len(begin)
    notes = wrapped(f"({entry.note})", room) if entry.note else []
    return [begin + clipped_in_the_middle(entry.name, room), *(indent + note for note in notes)]


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

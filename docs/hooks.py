"""What mkdocs inserts into pages at build time: the help of every command, and CONTRIBUTING.md."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
WIDTH = 84  # characters in a line of help: what fits into the column of the site


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the placeholders of a page; mkdocs calls this for every page."""
    if "<!-- insert: commands -->" in markdown:
        markdown = markdown.replace("<!-- insert: commands -->", command_reference())
    if "<!-- insert: contributing -->" in markdown:
        markdown = markdown.replace("<!-- insert: contributing -->", contributing())
    return markdown


def command_reference() -> str:
    """Return a section for each heading of `bpe --help`, and in it one for each command, with its help text."""
    entry = importlib.import_module("bpe.cli")
    sections = ["## bpe\n", _help(entry.cli, "bpe")]
    for heading, commands in entry.COMMANDS.items():
        sections.append(f"## {heading}\n")
        for name in commands:
            command = entry.cli.get_command(click.Context(entry.cli), name)
            sections += [f"### bpe {name}\n", _help(command, f"bpe {name}", entry.cli)]
    return "\n".join(sections)


def _help(command: click.Command, path: str, group: click.Group | None = None) -> str:
    """Return the help text of a command, as a block of text."""
    settings = dict(group.context_settings) if group else dict(command.context_settings)
    settings.update(terminal_width=WIDTH, max_content_width=WIDTH)
    context = click.Context(command, info_name=path, **settings)
    return f"```text\n{command.get_help(context).rstrip()}\n```\n"


def contributing() -> str:
    """Return CONTRIBUTING.md without its title, with its links to docs/ made relative to the site."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    text = re.sub(r"\A# .*\n", "", text)
    return re.sub(r"\]\(docs/", "](", text)

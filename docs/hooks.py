"""What mkdocs inserts into pages at build time: the help of every command, CONTRIBUTING.md, and notebooks."""

from __future__ import annotations

import importlib
import json
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
    return re.sub(r"<!-- insert: (\S+)\.ipynb -->", lambda match: notebook(match[1]), markdown)


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


def notebook(name: str) -> str:
    """Return a notebook of docs/examples as Markdown: its text, its code, and below each piece of code its output."""
    cells = json.loads((ROOT / "docs" / "examples" / f"{name}.ipynb").read_text("utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\]\(([\w-]+)\.ipynb\)", r"](\1.md)", source))
        else:
            parts += [f"```python\n{source}\n```", *map(_output, cell["outputs"])]
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    """Return an output of a cell as HTML if it has any, otherwise as a block of text."""
    data = output.get("data", {})
    if "text/html" in data:
        return f'<div markdown="0">{"".join(data["text/html"])}</div>'
    text = "".join(data.get("text/plain") or output.get("text", ""))
    return f"```text\n{text.rstrip()}\n```"

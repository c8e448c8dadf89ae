"""The chat templates beside a tokenizer, by name: in a directory of Hugging Face's form, and in the metadata of a GGUF.

The template for all dialogs has the name "default". Others have names such as "tool_use" and "rag".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpe.errors import InputError
from bpe.files import write_bytes

TEMPLATE, MORE, PROCESSOR = "chat_template.jinja", "additional_chat_templates", "chat_template.json"
_KEY = "tokenizer.chat_template"


def templates_in(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the chat templates of a directory by name.

    As in transformers, files with templates take precedence over tokenizer_config.json. chat_template.json, which
    belongs to the processor of images, is used if nothing else has a template.

    Args:
        directory: The directory.
        config: The content of its tokenizer_config.json.

    Raises:
        InputError: When a template is not text; the message names the file.
    """
    files = [(file.stem, file) for file in sorted((directory / MORE).glob("*.jinja"))]
    if (directory / TEMPLATE).is_file():
        files.append(("default", directory / TEMPLATE))
        found = {}
    else:
        found = _named(config.get("chat_template"), directory / "tokenizer_config.json")
    for name, file in files:
        try:
            found[name] = file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: {error}") from error
    return found or _of_processor(directory / PROCESSOR)


def _of_processor(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: not a JSON object")
    return _named(content.get("chat_template"), file)


def _named(template: Any, file: Path) -> dict[str, str]:
    """Return the templates of a JSON file by name: none, one, or a list of {"name", "template"}."""
    entries = [{"name": "default", "template": template}] if isinstance(template, str) else template or []
    try:
        templates = {entry["name"]: entry["template"] for entry in entries}
    except (TypeError, KeyError):
        templates = {"": None}
    if not all(isinstance(text, str) for text in (*templates, *templates.values())):
        raise InputError(f'{file}: "chat_template" must be text or a list of {{"name": ..., "template": ...}}')
    return templates


def write_templates(directory: Path, templates: Mapping[str, str]) -> None:
    """Write chat templates to a directory, each to a file of its own, as transformers does.

    Raises:
        InputError: When the name of a template cannot be the name of a file.
    """
    for name, template in templates.items():
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise InputError(f"the chat template {name!r} has a name that cannot be the name of a file")
        file = directory / TEMPLATE if name == "default" else directory / MORE / f"{name}.jinja"
        file.parent.mkdir(exist_ok=True)
        write_bytes(file, template.encode())


def templates_in_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the chat templates in the metadata of a GGUF file by name.

    Raises:
        InputError: When one is not text; the message names its key.
    """
    found = {name: value for name, value in metadata.items() if name == _KEY or name.startswith(f"{_KEY}.")}
    for name, value in found.items():
        if not isinstance(value, str):
            raise InputError(f"{name} is {value!r}; expected the text of a template")
    return {name.removeprefix(_KEY).removeprefix(".") or "default": value for name, value in found.items()}


def templates_metadata(templates: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata of a GGUF file that holds chat templates, as the `gguf` package writes it."""
    others = {re.sub("[^a-zA-Z0-9]", "_", name): text for name, text in templates.items() if name != "default"}
    metadata: dict[str, Any] = {f"{_KEY}.{name}": text for name, text in others.items()}
    if others:
        metadata["tokenizer.chat_templates"] = list(others)
    if "default" in templates:
        metadata[_KEY] = templates["default"]
    return metadata

"""Find the chat format of a checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpe.chat.llama3 import Llama3Chat, missing_llama3_tokens
from bpe.chat.messages import ChatFormat
from bpe.chat.template import TemplateChat
from bpe.errors import InputError
from bpe.formats.gguf_container import Container
from bpe.tokenizer import Tokenizer


def chat_format(path: str | os.PathLike[str], tokenizer: Tokenizer) -> ChatFormat:
    """Return the chat format of a checkpoint: that of its template, or Llama 3's if it has none.

    Args:
        path: A directory with Hugging Face's or Meta's files, one of these files, or a GGUF file.
        tokenizer: The tokenizer of the checkpoint.

    Raises:
        InputError: When there is neither a template nor the special tokens of Llama 3's format, or the template cannot
            be used.
    """
    path = Path(path)
    if path.suffix == ".gguf" and path.is_file():
        source, templates, tokens = path, *_from_gguf(path, tokenizer)
    else:
        source = path if path.is_dir() else path.parent
        templates, tokens = _from_directory(source)
    if templates:
        try:
            return TemplateChat(tokenizer, templates, *tokens)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
    if not missing_llama3_tokens(tokenizer):
        return Llama3Chat(tokenizer)
    raise InputError(
        f"{path}: no chat template (chat_template.jinja, or an entry in tokenizer_config.json), and the tokenizer lacks"
        " Llama 3's special tokens; use a model that was trained to chat, or add its template"
    )


_Found = tuple[dict[str, str], tuple["str | None", "str | None"]]


def _from_directory(directory: Path) -> _Found:
    """Return the templates by name, and the texts of the tokens that begin and end a text."""
    config_file = directory / "tokenizer_config.json"
    config: Any = {}
    try:
        if config_file.is_file():
            config = json.loads(config_file.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
        tokens = _token_text(config, "bos_token"), _token_text(config, "eos_token")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{config_file}: {error}") from error
    return templates_in(directory, config), tokens


def templates_in(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the chat templates of a directory by name.

    Args:
        directory: The directory.
        config: The content of its tokenizer_config.json.

    Raises:
        InputError: When a template is not text; the message names the file.
    """
    template_file = directory / "chat_template.jinja"
    if not template_file.is_file():
        try:
            return _named(config.get("chat_template"))
        except InputError as error:
            raise InputError(f"{directory / 'tokenizer_config.json'}: {error}") from error
    more = sorted((directory / "additional_chat_templates").glob("*.jinja"))
    templates = {}
    for name, file in [*((file.stem, file) for file in more), ("default", template_file)]:
        try:
            templates[name] = file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: {error}") from error
    return templates


def _named(template: Any) -> dict[str, str]:
    """Return the templates of tokenizer_config.json by name: none, one, or a list of {"name", "template"}."""
    entries = [{"name": "default", "template": template}] if isinstance(template, str) else template or []
    try:
        templates = {entry["name"]: entry["template"] for entry in entries}
    except (TypeError, KeyError):
        templates = {"": None}
    if not all(isinstance(text, str) for text in (*templates, *templates.values())):
        raise InputError('"chat_template" must be text or a list of {"name": ..., "template": ...}')
    return templates


def _token_text(config: Mapping[str, Any], key: str) -> str | None:
    token = config.get(key)
    text = token.get("content") if isinstance(token, dict) else token
    if text is not None and not isinstance(text, str):
        raise InputError(f'"{key}" must be the text of a token, or an object with "content"')
    return text


def _from_gguf(path: Path, tokenizer: Tokenizer) -> _Found:
    metadata, key = Container.open(path).metadata, "tokenizer.chat_template"
    templates = {
        name.removeprefix(key).removeprefix(".") or "default": value
        for name, value in metadata.items()
        if (name == key or name.startswith(f"{key}.")) and isinstance(value, str)
    }
    ids = [metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("bos", "eos")]
    bos, eos = (next((text for text, own in tokenizer.special_tokens.items() if own == id), None) for id in ids)
    return templates, (bos, eos)

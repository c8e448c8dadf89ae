"""The chat format that a checkpoint has."""

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
from bpe.tokenizer import Tokenizer


def chat_format(path: str | os.PathLike[str], tokenizer: Tokenizer) -> ChatFormat:
    """The format that a checkpoint is to be talked to in: its own template's, else Llama 3's.

    Args:
        path: a directory of Hugging Face's or Meta's files, one of them, or a GGUF file.
        tokenizer: the checkpoint's.

    Raises:
        InputError: there is neither a template nor the special tokens of Llama 3's format; or the template is no good.
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
        f"{path}: no chat template (a chat_template.jinja, or one in tokenizer_config.json), and the tokenizer has not"
        " Llama 3's special tokens; take a model that was trained to chat, or add its template"
    )


_Found = tuple[dict[str, str], tuple["str | None", "str | None"]]


def _from_directory(directory: Path) -> _Found:
    """The templates by name, and the texts of the tokens that begin and end a text."""
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
    """The chat templates of a directory by name, given its tokenizer_config.json; none if there are none.

    Raises:
        InputError: one is no text; the file is named.
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
    """A template of tokenizer_config.json: none, one, or a list of {"name", "template"}."""
    entries = [{"name": "default", "template": template}] if isinstance(template, str) else template or []
    try:
        templates = {entry["name"]: entry["template"] for entry in entries}
    except (TypeError, KeyError):
        templates = {"": None}
    if not all(isinstance(text, str) for text in (*templates, *templates.values())):
        raise InputError('"chat_template" is neither a text nor a list of {"name": ..., "template": ...}')
    return templates


def _token_text(config: Mapping[str, Any], key: str) -> str | None:
    token = config.get(key)
    text = token.get("content") if isinstance(token, dict) else token
    if text is not None and not isinstance(text, str):
        raise InputError(f'"{key}" is not a token')
    return text


def _from_gguf(path: Path, tokenizer: Tokenizer) -> _Found:
    from bpe.formats.gguf_container import Container

    metadata, key = Container.open(path).metadata, "tokenizer.chat_template"
    templates = {
        name.removeprefix(key).removeprefix(".") or "default": value
        for name, value in metadata.items()
        if (name == key or name.startswith(f"{key}.")) and isinstance(value, str)
    }
    ids = [metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("bos", "eos")]
    bos, eos = (next((text for text, own in tokenizer.special_tokens.items() if own == id), None) for id in ids)
    return templates, (bos, eos)

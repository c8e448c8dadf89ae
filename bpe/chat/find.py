"""Find the chat format of a checkpoint."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpe.chat.llama3 import Llama3Chat, missing_llama3_tokens
from bpe.chat.messages import ChatFormat
from bpe.chat.template import TOKEN_NAMES, TemplateChat
from bpe.chat.template_files import templates_in, templates_in_metadata
from bpe.errors import InputError
from bpe.formats.gguf_container import Container
from bpe.tokenizer import Tokenizer


class NoChatFormatError(InputError):
    """Raised for a checkpoint without a chat format."""


def chat_format(
    path: str | os.PathLike[str],
    tokenizer: Tokenizer,
    template: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> ChatFormat:
    """Return the chat format of a checkpoint: that of its template, or Llama 3's if it has none.

    Args:
        path: A directory with Hugging Face's or Meta's files, one of these files, or a GGUF file.
        tokenizer: The tokenizer of the checkpoint.
        template: The name of the template, if the checkpoint has several. Default: as `TemplateChat` chooses.
        variables: Variables for the template, such as ``{"enable_thinking": False}``.

    Raises:
        NoChatFormatError: When there is neither a template nor the special tokens of Llama 3's format.
        InputError: When the template cannot be used or does not read a variable.
    """
    path = Path(path)
    is_gguf = path.suffix == ".gguf" and path.is_file()
    source = path if is_gguf or path.is_dir() else path.parent
    templates, tokens = _from_gguf(path, tokenizer) if is_gguf else _from_directory(source, tokenizer)
    if templates:
        try:
            return _template_chat(tokenizer, templates, tokens, template, variables or {}, str(source))
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
    if not missing_llama3_tokens(tokenizer):
        if template is not None or variables:
            raise InputError(
                f"{path}: no chat template, so Llama 3's format is used, which has no named templates and no variables"
            )
        return Llama3Chat(tokenizer)
    raise NoChatFormatError(
        f"{path}: no chat template (chat_template.jinja, or an entry in tokenizer_config.json), and the tokenizer lacks"
        " Llama 3's special tokens; use a model that was trained to chat, or add its template"
    )


def _template_chat(
    tokenizer: Tokenizer,
    templates: Mapping[str, str],
    tokens: Mapping[str, str],
    name: str | None,
    variables: Mapping[str, Any],
    origin: str,
) -> TemplateChat:
    with warnings.catch_warnings():  # about variables, which are errors here
        warnings.simplefilter("ignore", UserWarning)
        chat = TemplateChat(tokenizer, templates, variables=variables, name=name, tokens=tokens, origin=origin)
    for variable in variables:
        if not chat.reads(variable):
            known = ", ".join(chat.variable_names) or "no variables"
            raise InputError(f"the chat template does not read the variable {variable!r}; it reads {known}")
    return chat


_Found = tuple[dict[str, str], dict[str, str]]  # the templates by name, and the texts of special tokens by theirs


def _from_directory(directory: Path, tokenizer: Tokenizer) -> _Found:
    config: dict[str, Any] = {}
    found: dict[str, dict[str, str]] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = directory / name
        try:
            config = json.loads(file.read_bytes()) if file.is_file() else {}
            if not isinstance(config, dict):
                raise ValueError("not a JSON object")
            found[name] = _named_tokens(config)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}: {error}") from error
    of_map, of_config = found.values()
    # As in transformers, the map takes precedence unless tokenizer_config.json lists the added tokens.
    tokens = of_map | of_config if "added_tokens_decoder" in config else of_config | of_map
    if not (directory / "tokenizer_config.json").is_file():
        tokens = _known_tokens(tokenizer) | tokens
    return templates_in(directory, config), tokens


def _named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of the tokens that a file names: the usual ones, and those of a model, such as "image_token"."""
    extra = config.get("extra_special_tokens")
    named = {**(extra if isinstance(extra, dict) else {}), **config}
    others = [key for key, value in named.items() if key.endswith("_token") and isinstance(value, (str, dict))]
    return {key: text for key in (*TOKEN_NAMES, *others) if (text := _token_text(named, key)) is not None}


def _known_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Return the texts of the tokens that begin and end a text, as the tokenizer knows them."""
    boundaries = tokenizer.vocabulary.boundaries
    return _texts(tokenizer, {"bos_token": boundaries.bos_id, "eos_token": boundaries.eos_id})


def _texts(tokenizer: Tokenizer, ids: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of tokens, given by id."""
    known = {name: id for name, id in ids.items() if type(id) is int and 0 <= id <= tokenizer.max_token_value}
    return {name: text for name, id in known.items() if (text := tokenizer.decode([id]))}


def _token_text(config: Mapping[str, Any], key: str) -> str | None:
    token = config.get(key)
    text = token.get("content") if isinstance(token, dict) else token
    if text is not None and not isinstance(text, str):
        raise InputError(f'"{key}" must be the text of a token, or an object with "content"')
    return text


def _from_gguf(path: Path, tokenizer: Tokenizer) -> _Found:
    metadata = Container.open(path).metadata
    kinds = {"bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask"}
    ids = {f"{kind}_token": metadata.get(f"tokenizer.ggml.{name}_token_id") for kind, name in kinds.items()}
    known = {name: text for name, text in _known_tokens(tokenizer).items() if ids[name] is None}
    try:
        return templates_in_metadata(metadata), known | _texts(tokenizer, ids)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error

"""The files beside the weights, shared by all formats: tokenizer, chat template, ids that begin and end a text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpe import Tokenizer
from bpe.chat.find import templates_in
from bpe.errors import InputError
from bpe.files import write_bytes, write_json
from bpe.formats import TOKENIZER_FILES, open_tokenizer
from model.checkpoint.opened import Checkpoint, read_json

GENERATION, TOKENIZER, TEMPLATE = "generation_config.json", "tokenizer_config.json", "chat_template.jinja"
COMPANIONS = (GENERATION, TOKENIZER, TEMPLATE, "special_tokens_map.json")


def read_companions(directory: Path, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read the fields `chat_template`, `bos` and `eos` of a Checkpoint from the files of a directory.

    Args:
        directory: The directory of the model.
        config: The content of config.json, used for ids that generation_config.json leaves out.

    Raises:
        InputError: When a file is damaged; the message names it.
    """
    generation = {**(config or {}), **_optional(directory / GENERATION)}
    bos, eos = (_ids(generation.get(f"{name}_token_id"), name, directory) for name in ("bos", "eos"))
    return {"chat_template": _chat_template(directory), "bos": bos[0] if bos else None, "eos": eos}


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _ids(value: Any, name: str, directory: Path) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(each) is int and each >= 0 for each in ids):
        raise InputError(f"{directory / GENERATION}: {name}_token_id is {value!r}; expected an id or a list of ids")
    return tuple(ids)


def _chat_template(directory: Path) -> str | None:
    return templates_in(directory, _optional(directory / TOKENIZER)).get("default")


def write_companions(checkpoint: Checkpoint, directory: Path) -> None:
    """Write the tokenizer and its companion files: copies where files exist, else files made from the checkpoint."""
    source = checkpoint.tokenizer
    path, format, content = open_tokenizer(source)
    if format == "gguf":
        read_tokenizer(checkpoint).save(directory / TOKENIZER_FILES[0])
    else:
        name = path.name if path.name in TOKENIZER_FILES else f"tokenizer{path.suffix.replace('.gz', '.tiktoken')}"
        write_bytes(directory / name, bytes(content))
    if source.is_dir():
        for name in COMPANIONS:
            if (source / name).is_file():
                write_bytes(directory / name, (source / name).read_bytes())
    if not (directory / GENERATION).is_file() and (checkpoint.bos is not None or checkpoint.eos):
        write_json(directory / GENERATION, _generation(checkpoint.bos, checkpoint.eos))
    if checkpoint.chat_template is not None and _chat_template(directory) != checkpoint.chat_template:
        write_bytes(directory / TEMPLATE, checkpoint.chat_template.encode())
    if checkpoint.chat_template is not None and not (directory / TOKENIZER).is_file():
        write_json(
            directory / TOKENIZER, _tokenizer_config(checkpoint)
        )  # which names the tokens that the template uses to begin and end a text


def complete_for_transformers(checkpoint: Checkpoint, directory: Path) -> None:
    """Write the files that transformers' AutoTokenizer and generate() need beyond those of `write_companions`."""
    if not (directory / "tokenizer.json").is_file():
        read_tokenizer(checkpoint).save(directory / "tokenizer.json")
    if all((directory / name).is_file() for name in (TOKENIZER, GENERATION)):
        return
    if not (directory / TOKENIZER).is_file():
        write_json(directory / TOKENIZER, _tokenizer_config(checkpoint))
    if not (directory / GENERATION).is_file():
        write_json(directory / GENERATION, _generation(*begin_and_end(checkpoint, read_tokenizer(checkpoint))))


def _tokenizer_config(checkpoint: Checkpoint) -> dict[str, Any]:
    tokenizer = read_tokenizer(checkpoint)
    bos, eos = begin_and_end(checkpoint, tokenizer)
    texts = {id: text for text, id in tokenizer.special_tokens.items()}
    first = {"bos_token": [] if bos is None else [bos], "eos_token": eos[:1]}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: texts[id] for name, ids in first.items() for id in ids if id in texts},
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": checkpoint.config.max_seq_len,
    }


def begin_and_end(checkpoint: Checkpoint, tokenizer: Tokenizer) -> tuple[int | None, tuple[int, ...]]:
    """Return the ids that begin and end a text, from the checkpoint or else from the tokens of usual names."""
    bos = tokenizer.bos_id if checkpoint.bos is None else checkpoint.bos
    return bos, checkpoint.eos or tokenizer.eos_ids


def read_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Return the tokenizer of a checkpoint.

    Raises:
        InputError: When the tokenizer is missing or damaged; the message names the file.
    """
    if checkpoint.make_tokenizer is None:
        return Tokenizer.from_file(checkpoint.tokenizer)
    try:
        return checkpoint.make_tokenizer()
    except ValueError as error:
        raise InputError(f"{checkpoint.tokenizer}: {error}") from error


def _generation(bos: int | None, eos: tuple[int, ...]) -> dict[str, Any]:
    ids = {"bos_token_id": bos, "eos_token_id": eos[0] if len(eos) == 1 else [*eos] or None}
    return {name: id for name, id in ids.items() if id is not None}

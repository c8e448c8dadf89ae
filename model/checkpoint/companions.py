"""The files beside the weights, shared by all formats: tokenizer, chat template, ids that begin and end a text."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from bpe import Tokenizer
from bpe.boundaries import Boundaries
from bpe.chat.template_files import TEMPLATE, templates_in, write_templates
from bpe.errors import InputError
from bpe.files import write_bytes, write_json
from bpe.formats import TOKENIZER_FILES, open_tokenizer
from model.checkpoint.opened import Checkpoint, read_optional_json
from model.checkpoint.sampling_settings import GENERATION, generation_config, read_sampling

TOKENIZER = "tokenizer_config.json"
_IMAGE_TOKEN = "<image_soft_token>"
COMPANIONS = (GENERATION, TOKENIZER, TEMPLATE, "special_tokens_map.json")


def read_companions(directory: Path) -> dict[str, Any]:
    """Read the fields of a Checkpoint about chat templates and sampling from the files of a directory.

    What begins and ends a text is read with the tokenizer; see `bpe.formats.companion_files`.

    Raises:
        InputError: When a file is damaged; the message names it.
    """
    sampling, unused = read_sampling(directory)
    return {"chat_templates": _chat_templates(directory), "sampling": sampling, "unused_settings": unused}


def _chat_templates(directory: Path) -> dict[str, str]:
    return templates_in(directory, read_optional_json(directory / TOKENIZER))


def write_companions(checkpoint: Checkpoint, directory: Path) -> None:
    """Write the tokenizer and its companion files: copies where files exist, else files made from the checkpoint."""
    source = checkpoint.tokenizer
    path, format, content = open_tokenizer(source)
    if format in ("gguf", "vocab_merges"):
        read_tokenizer(checkpoint).save(directory / TOKENIZER_FILES[0])
    else:
        name = path.name if path.name in TOKENIZER_FILES else f"tokenizer{path.suffix.replace('.gz', '.tiktoken')}"
        write_bytes(directory / name, bytes(content))
    if source.is_dir():
        for name in COMPANIONS:
            if (source / name).is_file():
                write_bytes(directory / name, (source / name).read_bytes())
    if checkpoint.chat_templates and _chat_templates(directory) != checkpoint.chat_templates:
        write_templates(directory, checkpoint.chat_templates)
    if checkpoint.chat_templates and not (directory / TOKENIZER).is_file():
        # It names the tokens that the template uses to begin and end a text.
        write_json(directory / TOKENIZER, _tokenizer_config(checkpoint))
    _write_boundaries(checkpoint, directory)
    if read_sampling(directory)[0] != checkpoint.sampling:
        write_json(
            directory / GENERATION,
            {**read_optional_json(directory / GENERATION), **generation_config(checkpoint.sampling)},
        )


def _write_boundaries(checkpoint: Checkpoint, directory: Path) -> None:
    """Make the files of a directory say the same about the beginning and the end of a text as the checkpoint does.

    They do not where the checkpoint is of another format, or its tokenizer comes from elsewhere.
    """
    try:
        tokenizer = read_tokenizer(checkpoint)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the same warnings again
            written = Tokenizer.from_file(directory).vocabulary.boundaries
    except InputError:  # a tokenizer that is only copied, such as ranks whose split pattern the caller names
        return
    said = tokenizer.vocabulary.boundaries
    if (written.prefix_ids, written.suffix_ids) != (said.prefix_ids, said.suffix_ids):
        if (directory / "tokenizer.json").is_file():
            tokenizer.save(directory / "tokenizer.json")
        else:
            added = {"add_bos_token": said.add_bos, "add_eos_token": said.add_eos}
            write_json(directory / TOKENIZER, {**read_optional_json(directory / TOKENIZER), **added})
    named = {token.id: token.content for token in tokenizer.vocabulary.added_tokens}
    if written.eos_id != said.eos_id and said.eos_id in named:
        config = read_optional_json(directory / TOKENIZER) or _tokenizer_config(checkpoint)
        write_json(directory / TOKENIZER, {**config, "eos_token": named[said.eos_id]})
    if (written.bos_id, written.eos_ids) != (said.bos_id, said.eos_ids):
        write_json(directory / GENERATION, {**read_optional_json(directory / GENERATION), **_generation(said)})


def complete_for_transformers(checkpoint: Checkpoint, directory: Path) -> None:
    """Write the files that transformers' AutoTokenizer and generate() need beyond those of `write_companions`."""
    tokenizer = read_tokenizer(checkpoint)
    if not (directory / "tokenizer.json").is_file():
        tokenizer.save(directory / "tokenizer.json")
    if not (directory / TOKENIZER).is_file():
        write_json(directory / TOKENIZER, _tokenizer_config(checkpoint))
    given, ids = read_optional_json(directory / GENERATION), _generation(tokenizer.vocabulary.boundaries)
    if ids.keys() - given.keys() or not (directory / GENERATION).is_file():
        write_json(directory / GENERATION, {**ids, **given})


def _tokenizer_config(checkpoint: Checkpoint) -> dict[str, Any]:
    tokenizer = read_tokenizer(checkpoint)
    said = tokenizer.vocabulary.boundaries
    texts = {token.id: token.content for token in tokenizer.vocabulary.added_tokens}
    named = {"bos_token": said.bos_id, "eos_token": said.eos_id}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: texts[id] for name, id in named.items() if id in texts},
        "add_bos_token": said.add_bos,
        "add_eos_token": said.add_eos,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": checkpoint.config.max_seq_len,
    }


def read_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Return the tokenizer of a checkpoint.

    Raises:
        InputError: When the tokenizer is missing or damaged; the message names the file.
    """
    if checkpoint.make_tokenizer is None:
        return without_image_token(Tokenizer.from_file(checkpoint.tokenizer), checkpoint)
    try:
        return without_image_token(checkpoint.make_tokenizer(), checkpoint)
    except ValueError as error:
        raise InputError(f"{checkpoint.tokenizer}: {error}") from error


def without_image_token(tokenizer: Tokenizer, checkpoint: Checkpoint) -> Tokenizer:
    """Return a tokenizer without the token that a program replaces by an image, if the embedding has no row for it.

    All sizes of Gemma 3 have the same tokenizer; the embedding of the smallest, which reads no images, ends one row
    before this token.
    """
    vocabulary, rows = tokenizer.vocabulary, checkpoint.config.embedding_rows
    if tokenizer.n_vocab != rows + 1 or vocabulary.special_tokens.get(_IMAGE_TOKEN) != rows:
        return tokenizer
    kept = [token for token in vocabulary.added_tokens if token.content != _IMAGE_TOKEN]
    return Tokenizer.from_vocabulary(vocabulary.with_added_tokens(kept))


def fitting_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Return the tokenizer of a checkpoint, each id of which has a row in the embedding.

    Raises:
        InputError: When an id has none, or as `read_tokenizer` does.
    """
    tokenizer = read_tokenizer(checkpoint)
    check_fits(checkpoint, tokenizer)
    return tokenizer


def check_fits(checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer with an id that has no row in the embedding; the error names the tokenizer's place."""
    try:
        checkpoint.config.check_tokens(tokenizer.n_vocab)
    except InputError as error:
        raise InputError(f"{checkpoint.tokenizer}: {error}") from None


def _generation(boundaries: Boundaries) -> dict[str, Any]:
    """Return the ids for generation_config.json."""
    ids: dict[str, Any] = {}
    if boundaries.bos_id is not None:
        ids["bos_token_id"] = boundaries.bos_id
    if boundaries.eos_ids:
        ids["eos_token_id"] = boundaries.eos_ids[0] if len(boundaries.eos_ids) == 1 else [*boundaries.eos_ids]
    return ids

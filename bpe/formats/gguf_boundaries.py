"""What the metadata of a GGUF says about the beginning and the end of a text, and llama.cpp's rules for the rest.

The rules are those of ``llama_vocab::impl::load`` in llama.cpp's src/llama-vocab.cpp.
"""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from bpe.boundaries import Boundaries, completed
from bpe.errors import InputError
from bpe.formats.byte_level import is_id
from bpe.vocabulary import Vocabulary

# The values of tokenizer.ggml.pre with which llama.cpp puts the BOS in front of a text if the file does not say.
_BEGINS = (
    *("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
    *("tekken", "chameleon"),
)
# The tokens that llama.cpp takes by name as the end of a turn, and of a message, if the file does not name these.
_EOT_NAMES = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>"),
    *("[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>"),
)
_EOM_NAMES = ("<|eom_id|>",)
# The tokens at which llama.cpp ends a text because of their names, in addition to those that the file gives.
_ENDS_BY_NAME = {
    *_EOT_NAMES,
    *_EOM_NAMES,
    *("<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "</s>", "[EOS]", "<eos>", "<turn|>", "<|tool_response>"),
}
_DEFAULT_EOS = 11  # llama.cpp's end token for byte-level BPE if the file has none: "<|endoftext|>" of the first Falcon
_ALL_ENDS = "tokenizer.bpe-llama.eos_token_ids"  # our own key, which llama.cpp ignores: all end tokens, in order


def boundaries_in(
    metadata: Mapping[str, Any], tokens: Sequence[str], ids: Mapping[str, int], vocabulary: Vocabulary
) -> Boundaries:
    """Return what begins and ends a text: what the file says, and for what it leaves out, llama.cpp's defaults.

    Args:
        metadata: The metadata of the file.
        tokens: The text of each token, by id.
        ids: The id of each token, by its text, without the unused tokens.
        vocabulary: The vocabulary of the file.

    Raises:
        InputError: When an id or a flag has the wrong type or an id is out of range; the message names the key.
    """
    given = special_ids(metadata, len(tokens))
    add = {kind: _flag(metadata, f"add_{kind}_token") for kind in ("bos", "eos")}
    for kind, wanted in add.items():
        if wanted and given[kind] is None:
            raise InputError(
                f"tokenizer.ggml.add_{kind}_token is true, but there is no tokenizer.ggml.{kind}_token_id; add the id"
            )
    listed = metadata.get(_ALL_ENDS)
    if listed is not None:
        ends = listed.tolist() if isinstance(listed, memoryview) else listed
        if not isinstance(ends, list) or not all(is_id(id) and id < len(tokens) for id in ends):
            raise InputError(f"{_ALL_ENDS} is not a list of ids below {len(tokens)}")
        ends_from = f"GGUF ({_ALL_ENDS})"
    else:
        said = [kind for kind in ("eos", "eot", "eom") if given[kind] is not None]
        ends_from = f"GGUF ({', '.join(f'{kind}_token_id' for kind in said)})" if said else ""
        if said:
            for kind, names in (("eot", _EOT_NAMES), ("eom", _EOM_NAMES)):
                if given[kind] is None:
                    given[kind] = next((ids[name] for name in names if name in ids), None)
        ends = [given[kind] for kind in ("eos", "eot", "eom") if given[kind] is not None]
    found = Boundaries(
        bos_id=given["bos"],
        eos_ids=tuple(dict.fromkeys(ends)),
        eos_id=given["eos"],
        bos_from="" if given["bos"] is None else "GGUF (bos_token_id)",
        eos_from=ends_from,
    )
    found = completed(found._replace(prefix_from="?"), {token.content: token.id for token in vocabulary.added_tokens})
    by_default = add["bos"] is None and metadata.get("tokenizer.ggml.pre") in _BEGINS
    begins = found.bos_id is not None and (add["bos"] or by_default)
    return found._replace(
        prefix_ids=(found.bos_id,) if begins and found.bos_id is not None else (),
        prefix_from="llama.cpp's default" if add["bos"] is None else "GGUF (add_bos_token)",
        suffix_ids=(given["eos"],) if add["eos"] and given["eos"] is not None else (),
        suffix_from="llama.cpp's default" if add["eos"] is None else "GGUF (add_eos_token)",
    )


def special_ids(metadata: Mapping[str, Any], limit: int) -> dict[str, int | None]:
    """Return the ids of "bos", "eos", "eot" and "eom"; None for those that the file does not give.

    Raises:
        InputError: When a value is not an id below `limit`; the message names the key.
    """
    ids = {kind: metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("bos", "eos", "eot", "eom")}
    for kind, id in ids.items():
        if id is not None and not (is_id(id) and id < limit):
            raise InputError(f"tokenizer.ggml.{kind}_token_id is {id!r}; expected an id below {limit}")
    return ids


def _flag(metadata: Mapping[str, Any], key: str) -> bool | None:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if value is not None and not isinstance(value, bool):
        raise InputError(f"tokenizer.ggml.{key} is {value!r}; expected true or false")
    return value


def boundary_metadata(vocabulary: Vocabulary, texts: Sequence[str]) -> dict[str, Any]:
    """Return the metadata about what begins and ends a text.

    llama.cpp has one end of a text, one of a turn and one of a message, and ends a text at tokens of known names as
    well. All end tokens are written under a key of our own, too, so that they are read back in order. Warns if
    llama.cpp ends texts elsewhere.

    Args:
        vocabulary: The vocabulary.
        texts: The text of each token, by id.

    Raises:
        InputError: When llama.cpp cannot put the same tokens in front of a text or behind it: it adds the BOS and the
            EOS only.
    """
    said = vocabulary.boundaries
    for ids, id, name, option in (
        (said.prefix_ids, said.bos_id, "BOS", "in front of"),
        (said.suffix_ids, said.eos_id, "EOS", "behind"),
    ):
        if ids not in ((), (id,)):
            raise InputError(
                f"{vocabulary.name} puts the ids {', '.join(map(str, ids))} {option} each text, but llama.cpp puts only"
                f" the {name} there, which is {'missing' if id is None else id}; change the post_processor of its"
                " tokenizer.json"
            )
    metadata: dict[str, Any] = {}
    if said.bos_id is not None:
        metadata["tokenizer.ggml.bos_token_id"] = said.bos_id
    ends = list(said.eos_ids)
    first = said.eos_id if said.eos_id in ends or said.suffix_ids else next(iter(ends), None)
    if first is not None:
        metadata["tokenizer.ggml.eos_token_id"] = first
    # The slots go to tokens that llama.cpp does not know by name; it finds the others without a slot.
    others = sorted((id for id in ends if id != first and id < len(texts)), key=lambda id: texts[id] in _ENDS_BY_NAME)
    message = next((id for id in others if texts[id] in _EOM_NAMES), None)
    if message is not None:
        others.remove(message)
    turn = others.pop(0) if others else None
    if message is None and others and texts[others[0]] not in _ENDS_BY_NAME:
        message = others.pop(0)
    for kind, end in (("eot", turn), ("eom", message)):
        if end is not None:
            metadata[f"tokenizer.ggml.{kind}_token_id"] = end
    lost = [texts[id] for id in others if texts[id] not in _ENDS_BY_NAME]
    if lost:
        warnings.warn(
            f"llama.cpp has room for three end tokens and will not end a text at {', '.join(lost)}; bpe will",
            stacklevel=2,
        )
    if first is None:
        warnings.warn(
            f"{vocabulary.name} has no end token, and llama.cpp will end a text at the token with the id"
            f" {_DEFAULT_EOS}; name an end token, for example in generation_config.json",
            stacklevel=2,
        )
    if ends:
        metadata[_ALL_ENDS] = memoryview(array("I", ends))
    metadata["tokenizer.ggml.add_bos_token"] = said.add_bos
    metadata["tokenizer.ggml.add_eos_token"] = said.add_eos
    return metadata

"""A tokenizer.json of Unigram, WordPiece or whole words, which ``tokenizers`` encodes with; see `bpe.subwords`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bpe.errors import InputError
from bpe.formats.byte_level import is_id
from bpe.formats.post_processor import boundaries_of, post_processor
from bpe.subwords.tokenizers_encoder import TokenizersEncoder
from bpe.subwords.vocabulary import LibraryVocabulary
from bpe.vocabulary import AddedToken, Vocabulary, chosen_tokens


def ids_of(model: Mapping[str, Any]) -> dict[str, int]:
    """Return the id of each token of the "model" of a tokenizer.json, by its text.

    Raises:
        InputError: When "vocab" is not of the expected form.
    """
    vocab = model.get("vocab")
    kind = model.get("type")
    if kind == "Unigram":
        if not isinstance(vocab, list) or not all(
            isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) for entry in vocab
        ):
            raise InputError('"vocab" of the Unigram model is not a list of tokens with their scores')
        return {entry[0]: id for id, entry in enumerate(vocab)}
    if not isinstance(vocab, dict) or not all(map(is_id, vocab.values())):
        raise InputError(f'"vocab" of the {kind} model is not an object of tokens with their ids')
    return dict(vocab)


def read_json_vocabulary(
    data: dict[str, Any],
    name: str,
    found: Iterable[AddedToken],
    special_tokens: Mapping[str, int] | Sequence[str] | None,
) -> LibraryVocabulary:
    """Read a tokenizer.json of Unigram, WordPiece or whole words.

    Args:
        data: The tokenizer.json.
        name: What to call the vocabulary.
        found: The added tokens of the file.
        special_tokens: Names of special tokens to add to those of the file, or an empty sequence for none.

    Raises:
        InputError: When the file is damaged, or `special_tokens` gives ids.
    """
    if isinstance(special_tokens, Mapping):
        raise InputError(
            f"special_tokens gives ids, which the {data['model']['type']} vocabulary of the file decides about; give a"
            " list of names"
        )
    ids = ids_of(data["model"])
    found = list(found)
    following = max([*ids.values(), *(token.id for token in found)], default=-1) + 1
    added = list(chosen_tokens(found, special_tokens, ids, following).values())
    vocabulary = LibraryVocabulary(name, TokenizersEncoder(data, added), added)
    boundaries = boundaries_of(data.get("post_processor"), vocabulary, special_tokens is None)
    changed = vocabulary.with_boundaries(boundaries)
    assert isinstance(changed, LibraryVocabulary)
    return changed


def render(vocabulary: Vocabulary) -> bytes:
    """Return the content of the tokenizer.json of a vocabulary that ``tokenizers`` encodes with.

    Raises:
        InputError: When another library does.
    """
    encoder = vocabulary.library
    if not isinstance(encoder, TokenizersEncoder):
        raise InputError(f"{vocabulary.name} is a SentencePiece model; save it as .model")
    said, own = vocabulary.boundaries, boundaries_of(encoder.data.get("post_processor"), vocabulary, False)
    if (said.prefix_ids, said.suffix_ids) == (own.prefix_ids, own.suffix_ids):
        return encoder.content
    data = encoder.data | {"post_processor": post_processor(vocabulary)}
    return json.dumps(data, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass")

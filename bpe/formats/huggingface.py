"""Hugging Face's tokenizer.json, for byte-level BPE: tokens, merges, normalizer, pattern and added tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any

from bpe import _core
from bpe.errors import InputError
from bpe.files import parsed_json
from bpe.formats import library_json
from bpe.formats.added_tokens import (
    listed_added_tokens,
    refuse_renumbered,
    with_more,
    with_special,
    written_token,
)
from bpe.formats.byte_level import (
    is_id,
    is_pretoken,
    token_bytes,
    token_text,
    unused_as_ordinary,
    vocabulary_from_texts,
)
from bpe.formats.characters_json import (
    flattened_normalizers,
    needs_characters,
    read_characters,
    unknown_options,
)
from bpe.formats.decoder import check_decoder
from bpe.formats.library_json import ids_of, read_json_vocabulary
from bpe.formats.pieces_json import added_pieces, has_pieces, pieces_data, read_pieces
from bpe.formats.post_processor import boundaries_of, post_processor
from bpe.formats.pre_tokenizer import read_pre_tokenizer, write_pre_tokenizer
from bpe.patterns import Pattern, find_pattern, pattern_of_steps
from bpe.piece_vocabulary import PieceVocabulary
from bpe.subwords.tokenizers_encoder import ALGORITHMS
from bpe.vocabulary import AddedToken, Vocabulary, chosen_tokens


def matches(content: bytes) -> bool:
    """Return whether the content begins a JSON object."""
    return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def read(
    content: bytes,
    name: str,
    pattern: str | None,
    special_tokens: Mapping[str, int] | Sequence[str] | None,
    more_added_tokens: Iterable[AddedToken] = (),
    special_names: Iterable[str] = (),
) -> Vocabulary:
    """Read a tokenizer.json.

    Args:
        content: The content of the file.
        name: The name of the file, which names the vocabulary.
        pattern: The split pattern to use instead of the file's.
        special_tokens: The special tokens to use instead of the file's, or names to add to them.
        more_added_tokens: The tokens that are added to those of the file; see `added_tokens_beside`.
        special_names: The texts of tokens of the file that are special as well; see `special_names_beside`.

    Raises:
        ValueError: When the JSON is damaged, a part of the file is missing, or `tokenizers` would give other ids.
    """
    data = parsed_json(content, "tokenizer.json")
    return read_data(data, name, pattern, special_tokens, more_added_tokens, special_names)


def read_data(
    data: Any,
    name: str,
    pattern: str | None,
    special_tokens: Mapping[str, int] | Sequence[str] | None,
    more_added_tokens: Iterable[AddedToken] = (),
    special_names: Iterable[str] = (),
) -> Vocabulary:
    """Read what a tokenizer.json contains; see `read`.

    Raises:
        ValueError: When a part is missing, or `tokenizers` would give other ids.
    """
    model = _member(data, "model", dict)
    if isinstance(model.get("type"), str) and model["type"] in ALGORITHMS:
        if pattern is not None:
            raise InputError(f"the model is {model['type']}, which has no split pattern; leave out the pattern")
        of_model = ids_of(model)
        tokens = with_special(
            with_more(listed_added_tokens(data), more_added_tokens, of_model), special_names, of_model
        )
        return read_json_vocabulary(data, name.removesuffix(".json"), tokens, special_tokens)
    ids = _member(model, "vocab", dict)
    found = with_special(with_more(listed_added_tokens(data), more_added_tokens, ids), special_names, ids)
    if has_pieces(data):
        pieces = read_pieces(data, name.removesuffix(".json"), pattern, special_tokens, found)
        if isinstance(special_tokens, Mapping):
            return pieces
        refuse_renumbered({token.content: token.id for token in found}, ids)
        return pieces.with_boundaries(boundaries_of(data.get("post_processor"), pieces, special_tokens is None))
    _refuse_other_kinds(model)

    merges = _member(model, "merges", list)
    following = max([*filter(is_id, ids.values()), *(token.id for token in found)], default=-1) + 1
    added = chosen_tokens(found, special_tokens, ids, following)
    chosen = _pattern_of(data) if pattern is None else _given_pattern(pattern, data)
    merges_only = not model.get("ignore_merges")
    both = [text for text, id in ids.items() if text in added and added[text].id == id]
    unused = unused_as_ordinary(both, merges, None if merges_only else chosen)
    ordinary = {text: id for text, id in ids.items() if text not in unused}
    name, normalizer = name.removesuffix(".json"), data.get("normalizer")
    if needs_characters(model, ids, chosen, normalizer):
        vocabulary = read_characters(name, chosen, model, unused, added.values(), normalizer)
    else:
        vocabulary = vocabulary_from_texts(
            name, chosen, ordinary, added.values(), merges, merges_only, ids, normalizer=normalizer
        )
    if added and not isinstance(special_tokens, Mapping):
        refuse_renumbered({token.content: token.id for token in found}, ids)
    check_decoder(data.get("decoder"), ordinary)
    if isinstance(special_tokens, Mapping):
        return vocabulary  # the ids of the post-processor are those of other tokens
    return vocabulary.with_boundaries(boundaries_of(data.get("post_processor"), vocabulary, special_tokens is None))


def render(vocabulary: Vocabulary) -> bytes:
    """Return the content of a tokenizer.json that gives the same ids in ``tokenizers``.

    Raises:
        InputError: When an added token has the text of a token with another id; the format has one id for one text.
    """
    if vocabulary.library is not None:
        return library_json.render(vocabulary)
    if isinstance(vocabulary, PieceVocabulary):
        return _render_pieces(vocabulary)
    ids = _ids_of_added(vocabulary) if _is_plain(vocabulary) else _ids_by_text(vocabulary)
    first_of = {token.id: token for token in reversed(vocabulary.added_tokens)}
    added_tokens = [first_of[id] for id in sorted(first_of)]
    for token in vocabulary.added_tokens:
        if ids.get(token.content, token.id) != token.id:
            raise InputError(
                f"the {token.kind} token {token.content!r} is also an ordinary token, with the id {ids[token.content]}"
                f" instead of {token.id}; tokenizer.json has one id for one text"
            )
    needed = _needed_in_vocab(added_tokens, ids, len(vocabulary.ids) if _is_plain(vocabulary) else len(ids))
    takes_whole = _takes_whole(vocabulary, added_tokens if needed else [], ids)
    data: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [written_token(token, vocabulary.added_tokens) for token in added_tokens],
        "normalizer": vocabulary.normalizer,
        "pre_tokenizer": write_pre_tokenizer(vocabulary.pattern),
        "post_processor": post_processor(vocabulary),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": takes_whole,
        },
    }
    if _is_plain(vocabulary):
        return _with_tokens(data, vocabulary, {text: id for text, id in needed.items() if text not in ids})
    text_of = {id: text for text, id in ids.items()}
    data["model"] |= {
        "vocab": ids | needed,
        "merges": [[text_of[left], text_of[right]] for left, right, _ in vocabulary.merges()],
        **({} if vocabulary.characters is None else unknown_options(vocabulary.characters)),
    }
    return json.dumps(data, ensure_ascii=False, indent=2).encode()


def _is_plain(vocabulary: Vocabulary) -> bool:
    """Return whether all tokens but the added ones are bytes that merge, so that the core can write them."""
    return vocabulary.characters is None and not vocabulary.foreign_tokens


def _ids_of_added(vocabulary: Vocabulary) -> dict[str, int]:
    """Return the ids of the ordinary tokens that have the text of an added token, by that text."""
    contents = {token.content: token_bytes(token.content) for token in vocabulary.added_tokens}
    found = {text: vocabulary.encoder.find(content) for text, content in contents.items() if content}
    return {text: id for text, id in found.items() if id is not None}


def _ids_by_text(vocabulary: Vocabulary) -> dict[str, int]:
    """Return the ids of all tokens but the added ones, by their texts."""
    if vocabulary.characters is not None:
        return dict(vocabulary.characters.ids)
    return {token_text(token): id for token, id in vocabulary.ranks.items()} | vocabulary.foreign_tokens


def _with_tokens(data: Mapping[str, Any], vocabulary: Vocabulary, more: Mapping[str, int]) -> bytes:
    """Return the content of a tokenizer.json: `data`, and at the end of its "model" the tokens and the merges.

    The core writes these as `json.dumps` does, in a fraction of the time and the memory.

    Args:
        data: The file without "vocab" and "merges". The model is the last of its keys.
        vocabulary: The vocabulary.
        more: The ids of the tokens in "vocab" besides those of the vocabulary, by their texts.
    """
    end = "\n  }\n}"
    head = json.dumps(data, ensure_ascii=False, indent=2).removesuffix(end) + ',\n    "vocab": '
    lines = "".join(f",\n      {json.dumps(text, ensure_ascii=False)}: {id}" for text, id in more.items())
    return _core.render_byte_level(vocabulary.encoder, head.encode(), lines.encode(), end.encode())


def _render_pieces(vocabulary: PieceVocabulary) -> bytes:
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [written_token(token, ()) for token in added_pieces(vocabulary)],
        "post_processor": post_processor(vocabulary),
        **pieces_data(vocabulary),
    }
    return json.dumps(data, ensure_ascii=False, indent=2).encode()


def _needed_in_vocab(added_tokens: Sequence[AddedToken], ids: Mapping[str, int], count: int) -> dict[str, int]:
    """The ids of the added tokens, if "vocab" must list them because ``tokenizers`` would number them differently.

    Args:
        added_tokens: The added tokens in the order of their ids.
        ids: The ids of the ordinary tokens by their texts; at least of those with the text of an added token.
        count: The number of ordinary tokens.
    """
    following = count
    for token in added_tokens:
        expected = ids.get(token.content, following)
        following = max(following, expected + 1)
        if expected != token.id:
            break
    else:
        return {}
    return {token.content: token.id for token in added_tokens}


def _takes_whole(vocabulary: Vocabulary, in_vocab: Sequence[AddedToken], ids: Mapping[str, int]) -> bool:
    """Return whether a pretoken that is a token is taken whole, as in tiktoken ("ignore_merges").

    Args:
        vocabulary: The vocabulary.
        in_vocab: The added tokens that "vocab" must list, and that must not become ordinary tokens by this.
        ids: The ids of the ordinary tokens by their texts; at least of those with the text of an added token.
    """
    if vocabulary.characters is not None:
        return vocabulary.characters.takes_whole
    if vocabulary.merges_only:
        return False
    for token in in_vocab:
        if token.content not in ids and is_pretoken(token.content, vocabulary.pattern):
            if vocabulary.unreachable_count == 0:
                return False  # merging alone leads to every token
            raise InputError(
                f"the {token.kind} token {token.content!r} would become an ordinary token as well, since the ids of the"
                " added tokens do not follow the others without a gap; give it a text that is not a word"
            )
    return True


def _member(data: Any, key: str, kind: type) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get(key), kind):
        raise InputError(f'no "{key}" of the expected form; expected a byte-level BPE tokenizer.json')
    return data[key]


def _refuse_other_kinds(model: dict[str, Any]) -> None:
    """Refuse a setting that would change ids and that is not supported."""
    if model.get("type", "BPE") != "BPE":
        raise InputError(f"the model is {model['type']}; byte-level BPE, {', '.join(ALGORITHMS)} are supported")
    for option in ("ignore_merges", "byte_fallback", "fuse_unk"):
        if not isinstance(model.get(option, False), bool):
            raise InputError(f'"{option}" of the model is {model[option]!r}; expected true or false')
    for option in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if not isinstance(model.get(option), (str, NoneType)):
            raise InputError(f'"{option}" of the model is {model[option]!r}; expected a text or null')
    dropout = model.get("dropout")
    if not isinstance(dropout, (int, float, NoneType)) or isinstance(dropout, bool):
        raise InputError(f'"dropout" of the model is {dropout!r}; expected a number or null')
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise InputError(f"the model has {option} = {model[option]!r}, which is not supported")


def _given_pattern(pattern: str, data: dict[str, Any]) -> Pattern:
    """Return the split pattern that the caller gives instead of the file's."""
    if _normalizer_is_byte_level(data):
        raise InputError(
            'the "normalizer" has ByteLevel, so the file\'s pattern splits characters that stand for bytes; leave out'
            " the pattern"
        )
    return find_pattern(pattern)


def _normalizer_is_byte_level(data: dict[str, Any]) -> bool:
    return any(step.get("type") == "ByteLevel" for step in flattened_normalizers(data.get("normalizer")))


def _pattern_of(data: dict[str, Any]) -> Pattern:
    """Return the split pattern of a file."""
    found = read_pre_tokenizer(data.get("pre_tokenizer"), _normalizer_is_byte_level(data))
    if not found.is_byte_level:
        raise InputError('neither "pre_tokenizer" nor "normalizer" has ByteLevel; only byte-level BPE is supported')
    return pattern_of_steps(found.steps)

"""Hugging Face's tokenizer.json, for byte-level BPE: tokens, merges, pattern and added tokens in one file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bpe.errors import InputError
from bpe.formats import library_json
from bpe.formats.byte_level import (
    is_id,
    is_pretoken,
    token_text,
    unused_as_ordinary,
    vocabulary_from_texts,
)
from bpe.formats.library_json import ids_of, read_json_vocabulary
from bpe.formats.post_processor import boundaries_of, post_processor
from bpe.patterns import CL100K, PATTERNS, SMOLLM, Pattern, find_pattern
from bpe.subwords.tokenizers_encoder import ALGORITHMS
from bpe.vocabulary import AddedToken, Vocabulary, chosen_tokens

# tokenizers runs patterns on Oniguruma, where "{1,3}+" means a repetition of "{1,3}" and "$" the end of a line.
_FOR_ONIGURUMA = {CL100K: CL100K.replace("{1,3}+", "{1,3}").replace("$", r"\z")}
_FROM_ONIGURUMA = {theirs: ours for ours, theirs in _FOR_ONIGURUMA.items()}

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_ALIASES = "aliases"  # our own key: more tokens with the id of an added token

_NOT_IN_UTF8 = b"\xc0\xc1" + bytes(range(0xF5, 0x100))


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
    try:
        data = json.loads(content)
    except ValueError as error:
        raise InputError(f"not complete JSON ({error}); is the file truncated?") from error
    except RecursionError as error:
        raise InputError("the JSON is nested too deep for a tokenizer.json") from error
    model = _member(data, "model", dict)
    if isinstance(model.get("type"), str) and model["type"] in ALGORITHMS:
        if pattern is not None:
            raise InputError(f"the model is {model['type']}, which has no split pattern; leave out the pattern")
        of_model = ids_of(model)
        tokens = _with_special(_with_more(_added_tokens(data), more_added_tokens, of_model), special_names, of_model)
        return read_json_vocabulary(data, name.removesuffix(".json"), tokens, special_tokens)
    ids = _member(model, "vocab", dict)
    _refuse_other_kinds(data, model)

    merges = _member(model, "merges", list)
    found = _with_special(_with_more(_added_tokens(data), more_added_tokens, ids), special_names, ids)
    following = max([*filter(is_id, ids.values()), *(token.id for token in found)], default=-1) + 1
    added = chosen_tokens(found, special_tokens, ids, following)
    chosen = find_pattern(pattern) if pattern is not None else _pattern_of(data)
    merges_only = not model.get("ignore_merges")
    both = [text for text, id in ids.items() if text in added and added[text].id == id]
    unused = unused_as_ordinary(both, merges, None if merges_only else chosen)
    ordinary = {text: id for text, id in ids.items() if text not in unused}
    vocabulary = vocabulary_from_texts(
        name.removesuffix(".json"), chosen, ordinary, added.values(), merges, merges_only, ids
    )
    if added and not isinstance(special_tokens, Mapping):
        _refuse_renumbered({token.content: token.id for token in found}, ids)
    unknown = vocabulary.unknown_bytes.translate(None, _NOT_IN_UTF8)
    if unknown and model.get("unk_token") is not None:
        raise InputError(
            f"{len(unknown)} bytes, such as {unknown[:1]!r}, have no token and become {model['unk_token']!r}"
            " (unk_token), which is not supported"
        )
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
    text_of = {id: token_text(token) for token, id in vocabulary.ranks.items()}
    ids = {text: id for id, text in text_of.items()} | vocabulary.foreign_tokens
    first_of = {token.id: token for token in reversed(vocabulary.added_tokens)}
    added_tokens = [first_of[id] for id in sorted(first_of)]
    for token in vocabulary.added_tokens:
        if ids.get(token.content, token.id) != token.id:
            raise InputError(
                f"the {token.kind} token {token.content!r} is also an ordinary token, with the id {ids[token.content]}"
                f" instead of {token.id}; tokenizer.json has one id for one text"
            )
    ids |= _needed_in_vocab(vocabulary, added_tokens, ids)
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_entry(token) | _aliases(token, vocabulary.added_tokens) for token in added_tokens],
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(vocabulary.pattern),
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
            "ignore_merges": not vocabulary.merges_only,  # a pretoken that is a token is taken whole, as in tiktoken
            "vocab": ids,
            "merges": [[text_of[left], text_of[right]] for left, right, _ in vocabulary.merges()],
        },
    }
    return json.dumps(data, ensure_ascii=False, indent=2).encode()


def _entry(token: AddedToken) -> dict[str, object]:
    return {"id": token.id, "content": token.content} | {flag: getattr(token, flag) for flag in _FLAGS}


def _aliases(token: AddedToken, added_tokens: Sequence[AddedToken]) -> dict[str, object]:
    """The other tokens with the same id, under a key that ``tokenizers`` ignores; it has one token for one id."""
    others = [other for other in added_tokens if other.id == token.id and other != token]
    for other in others:
        warnings.warn(
            f"tokenizers has one added token for one id: it reads {token.content!r} as {token.id}, and"
            f" {other.content!r} as text",
            stacklevel=2,
        )
    return {_ALIASES: [_entry(other) for other in others]} if others else {}


def _needed_in_vocab(
    vocabulary: Vocabulary, added_tokens: Sequence[AddedToken], ids: Mapping[str, int]
) -> dict[str, int]:
    """The ids of the added tokens, if "vocab" must list them because ``tokenizers`` would number them differently."""
    following = len(ids)
    for token in added_tokens:
        expected = ids.get(token.content, following)
        following = max(following, expected + 1)
        if expected != token.id:
            break
    else:
        return {}
    for token in added_tokens:
        if not vocabulary.merges_only and token.content not in ids and is_pretoken(token.content, vocabulary.pattern):
            raise InputError(
                f"the {token.kind} token {token.content!r} would become an ordinary token as well, since the ids of the"
                " added tokens do not follow the others without a gap; give it a text that is not a word"
            )
    return {token.content: token.id for token in added_tokens}


def _pre_tokenizer(pattern: Pattern) -> dict[str, object]:
    is_smollm = pattern.text == SMOLLM
    if is_smollm:
        first: dict[str, object] = {"type": "Digits", "individual_digits": True}
    else:
        regex = _FOR_ONIGURUMA.get(pattern.text, pattern.text)
        first = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": is_smollm}
    return {"type": "Sequence", "pretokenizers": [first, byte_level]}


def _member(data: Any, key: str, kind: type) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get(key), kind):
        raise InputError(f'no "{key}" of the expected form; expected a byte-level BPE tokenizer.json')
    return data[key]


def _added_tokens(data: dict[str, Any]) -> list[AddedToken]:
    entries = data.get("added_tokens") or []
    if not isinstance(entries, list):
        raise InputError('"added_tokens" is not a list')
    tokens: dict[str, AddedToken] = {}
    by_id: dict[int, list[AddedToken]] = {}
    for entry in entries:
        token = _token_of(entry)
        earlier = tokens.get(token.content)
        if earlier is not None and earlier.id != token.id:
            raise InputError(f"the added token {token.content!r} has the ids {earlier.id} and {token.id}")
        token = tokens[token.content] = token if earlier is None else _added_again(earlier, token)
        aliases = entry.get(_ALIASES, [])
        if not isinstance(aliases, list):
            raise InputError(f'"{_ALIASES}" of the added token {token.content!r} is not a list')
        by_id[token.id] = [token, *map(_token_of, aliases)]  # of several with one id, too
    return [token for tokens_of_id in by_id.values() for token in tokens_of_id]


def _added_again(earlier: AddedToken, token: AddedToken) -> AddedToken:
    """Return what ``tokenizers`` makes of a token that is added a second time: the last counts, but stays special."""
    return token._replace(id=earlier.id, special=earlier.special or token.special)


def _with_more(
    added_tokens: Iterable[AddedToken], more: Iterable[AddedToken], ids: Mapping[str, Any]
) -> list[AddedToken]:
    """Return the added tokens of a file and those that are added to them, with the ids that ``tokenizers`` gives."""
    tokens = {token.content: token for token in added_tokens}
    for token in more:
        earlier = tokens.get(token.content)
        if earlier is not None:
            tokens[token.content] = _added_again(earlier, token)
        elif token.content:
            following = max(len(ids), *(other.id + 1 for other in tokens.values()), 0)
            tokens[token.content] = token._replace(id=ids.get(token.content, following))
    return list(tokens.values())


def _with_special(added_tokens: list[AddedToken], names: Iterable[str], ids: Mapping[str, Any]) -> list[AddedToken]:
    """Return the added tokens, of which those of these names are special, and those that were only in "vocab"."""
    tokens = {token.content: token for token in added_tokens}
    for name in names:
        if name in tokens:
            tokens[name] = tokens[name]._replace(special=True)
        elif is_id(ids.get(name)):
            tokens[name] = AddedToken(name, ids[name])
    return list(tokens.values())


def _token_of(entry: Any) -> AddedToken:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str) or not is_id(entry.get("id")):
        raise InputError('an entry of "added_tokens" has no "content" or no "id"')
    return AddedToken(entry["content"], entry["id"], **{flag: bool(entry.get(flag)) for flag in _FLAGS})


def _refuse_renumbered(added_ids: dict[str, int], ids: Mapping[str, Any]) -> None:
    """``tokenizers`` gives an added token the id that "vocab" has for it, or else the next free id."""
    following = len(ids)
    by_id = {id: token for token, id in reversed(added_ids.items())}  # without aliases
    for id, token in reversed(by_id.items()):
        expected = ids.get(token, following)
        following = max(following, expected + 1) if is_id(expected) else following
        if id != expected:
            raise InputError(
                f"the added token {token!r} has the id {id}, but tokenizers gives it {expected}, which follows from the"
                ' rest of the file; put the right id into "added_tokens", or the token into "vocab"'
            )


def _refuse_other_kinds(data: dict[str, Any], model: dict[str, Any]) -> None:
    """Refuse a setting that would change ids and that is not supported."""
    if model.get("type", "BPE") != "BPE":
        raise InputError(f"the model is {model['type']}; byte-level BPE, {', '.join(ALGORITHMS)} are supported")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise InputError(f"the model has {option} = {model[option]!r}, which is not supported")
    if data.get("normalizer"):
        kind = data["normalizer"].get("type") if isinstance(data["normalizer"], dict) else data["normalizer"]
        raise InputError(f"the text is normalized ({kind}) before it is split, which is not supported")


def _pattern_of(data: dict[str, Any]) -> Pattern:
    """The split pattern of a file.

    Supported are one Split by a regular expression and ByteLevel; ByteLevel with its own pattern, which is GPT-2's; and
    Digits one by one before that, which is SmolLM2's.
    """
    pre_tokenizer = _member(data, "pre_tokenizer", dict)
    steps = pre_tokenizer.get("pretokenizers") if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise InputError('"pre_tokenizer" is not of the expected form')
    kinds = [step.get("type") for step in steps]
    if kinds[-1:] == ["ByteLevel"]:
        byte_level = steps[-1]
        if byte_level.get("add_prefix_space", True):
            raise InputError("ByteLevel adds a space in front of the text, which is not supported")
        if kinds == ["ByteLevel"] and byte_level.get("use_regex", True):
            return PATTERNS["gpt2"]
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and byte_level.get("use_regex", True):
            return PATTERNS["smollm"]
        if kinds == ["Split", "ByteLevel"] and not byte_level.get("use_regex", True):
            split = steps[0]
            regex = split["pattern"].get("Regex") if isinstance(split.get("pattern"), dict) else None
            if isinstance(regex, str) and split.get("behavior") == "Isolated" and not split.get("invert"):
                return find_pattern(_FROM_ONIGURUMA.get(regex, regex))
    raise InputError(
        f"the pre-tokenizer is {' + '.join(map(str, kinds))}; supported are ByteLevel, individual Digits + ByteLevel,"
        " and Split by a Regex + ByteLevel"
    )

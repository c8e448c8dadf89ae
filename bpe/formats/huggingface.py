"""Hugging Face's tokenizer.json, for byte-level BPE: vocabulary, merges, pattern and special tokens in one file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bpe.errors import InputError
from bpe.formats.byte_level import _is_id, byte_characters, check_merges, from_vocabulary
from bpe.patterns import CL100K, PATTERNS, SMOLLM, Pattern, find_pattern

if TYPE_CHECKING:
    from bpe.tokenizer import Tokenizer


# tokenizers runs patterns on Oniguruma, which takes "{1,3}+" for a repetition of "{1,3}" and "$" for the end of a line.
_FOR_ONIGURUMA = {CL100K: CL100K.replace("{1,3}+", "{1,3}").replace("$", r"\z")}
_FROM_ONIGURUMA = {theirs: ours for ours, theirs in _FOR_ONIGURUMA.items()}

_NOT_IN_UTF8 = b"\xc0\xc1" + bytes(range(0xF5, 0x100))


def matches(content: bytes) -> bool:
    """Whether this is a JSON object."""
    return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def read(
    content: bytes, name: str, pattern: str | None, special_tokens: Mapping[str, int] | Sequence[str] | None
) -> Tokenizer:
    """Parse a tokenizer.json; `pattern` and `special_tokens` take the place of the file's where they are given.

    Raises:
        ValueError: damaged JSON, a part that is missing, or a kind of tokenizer whose ids we could not give exactly.
    """
    try:
        data = json.loads(content)
    except ValueError as error:
        raise InputError(f"not complete JSON ({error}); is the file truncated?") from error
    except RecursionError as error:
        raise InputError("the JSON is nested too deep for a tokenizer.json") from error
    model = _member(data, "model", dict)
    vocabulary = _member(model, "vocab", dict)
    _refuse_other_kinds(data, model)

    specials = _added_tokens(data)
    if isinstance(special_tokens, Mapping):
        specials = dict(special_tokens)
    elif special_tokens is not None:
        specials = {token: specials[token] for token in special_tokens if token in specials}

    ordinary = {text: id for text, id in vocabulary.items() if not (text in specials and specials[text] == id)}
    chosen = find_pattern(pattern) if pattern is not None else _pattern_of(data)
    merges_only = not model.get("ignore_merges")
    tokenizer = from_vocabulary(name.removesuffix(".json"), chosen, ordinary, specials, merges_only)
    if special_tokens is None:
        _refuse_renumbered(specials, vocabulary)
    check_merges(tokenizer, _member(model, "merges", list), vocabulary)
    unknown = tokenizer.unknown_bytes.translate(None, _NOT_IN_UTF8)
    if unknown and model.get("unk_token") is not None:
        raise InputError(
            f"{len(unknown)} bytes, such as {unknown[:1]!r}, have no token and become {model['unk_token']!r}"
            " (unk_token), which is not supported"
        )
    return tokenizer


def render(tokenizer: Tokenizer) -> bytes:
    """The file's content. Opened in ``tokenizers``, it gives the same ids.

    Raises:
        InputError: a special token has the text of another token; the format has one id for one text.
    """
    characters = byte_characters()
    text_of = {
        id: token.decode("latin-1").translate(characters)  # str.translate indexes a str by code point
        for token, id in sorted(tokenizer.mergeable_ranks.items(), key=lambda item: item[1])
    }
    vocabulary = {text: id for id, text in text_of.items()}
    for token in tokenizer.special_tokens.keys() & vocabulary.keys():
        raise InputError(f"the special token {token!r} is an ordinary token, too, which tokenizer.json cannot express")
    # tokenizers numbers added tokens anew, without a gap, unless the vocabulary has them.
    vocabulary |= dict(sorted(tokenizer.special_tokens.items(), key=lambda item: item[1]))
    pairs = tokenizer._core.pairs().reshape(-1, 3).tolist()
    is_smollm = tokenizer.pattern.text == SMOLLM
    if is_smollm:
        first: dict[str, object] = {"type": "Digits", "individual_digits": True}
    else:
        regex = _FOR_ONIGURUMA.get(tokenizer.pattern.text, tokenizer.pattern.text)
        first = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": id,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token, id in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                first,
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": is_smollm},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": not tokenizer.merges_only,  # a pretoken that is a token is taken whole, as in tiktoken
            "vocab": vocabulary,
            "merges": [[text_of[left], text_of[right]] for left, right, _ in pairs],
        },
    }
    return json.dumps(data, ensure_ascii=False, indent=2).encode()


def _member(data: Any, key: str, kind: type) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get(key), kind):
        raise InputError(f'no "{key}" of the expected form; expected a byte-level BPE tokenizer.json')
    return data[key]


def _added_tokens(data: dict[str, Any]) -> dict[str, int]:
    entries = data.get("added_tokens") or []
    if not isinstance(entries, list):
        raise InputError('"added_tokens" is not a list')
    specials: dict[str, int] = {}
    for added in entries:
        if not isinstance(added, dict) or not isinstance(added.get("content"), str) or not _is_id(added.get("id")):
            raise InputError('an entry of "added_tokens" has no "content" or no "id"')
        for option in ("lstrip", "rstrip", "single_word"):
            if added.get(option):
                raise InputError(f"the added token {added['content']!r} has {option} set, which is not supported")
        specials[added["content"]] = added["id"]
    # tokenizers looks for those that are not normalized first, in all of the text.
    late = [added["content"] for added in entries if added.get("normalized")]
    early = [added["content"] for added in entries if not added.get("normalized")]
    for token, other in itertools.product(late, early):
        if _overlap(token, other):
            raise InputError(
                f"the added tokens {token!r}, normalized, and {other!r}, not, overlap, which is not supported"
            )
    return specials


def _refuse_renumbered(specials: Mapping[str, int], vocabulary: Mapping[str, Any]) -> None:
    """``tokenizers`` gives an added token the id that the vocabulary has for it, else the next free one."""
    following = len(vocabulary)
    for token, id in specials.items():
        expected = vocabulary.get(token, following)
        following = max(following, expected + 1) if _is_id(expected) else following
        if id != expected:
            raise InputError(
                f"the added token {token!r} has the id {id}, but {expected} follows from the rest of the file, and"
                ' tokenizers goes by that; put the right id into "added_tokens", or the token into "vocab"'
            )


def _overlap(a: str, b: str) -> bool:
    """Whether the two can share characters of a text.

    >>> _overlap("ab<", "<x>"), _overlap("<x>", "x"), _overlap("ab", "<x>")
    (True, True, False)
    """
    if a in b or b in a:
        return True
    return any(a.endswith(b[:size]) or b.endswith(a[:size]) for size in range(1, min(len(a), len(b))))


def _refuse_other_kinds(data: dict[str, Any], model: dict[str, Any]) -> None:
    """Whatever would change ids and is not done here is refused by name."""
    if model.get("type", "BPE") != "BPE":
        raise InputError(f"the model is {model['type']}; only byte-level BPE is read here")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise InputError(f"the model has {option} = {model[option]!r}, which is not supported")
    if data.get("normalizer"):
        kind = data["normalizer"].get("type") if isinstance(data["normalizer"], dict) else data["normalizer"]
        raise InputError(f"the text is normalized ({kind}) before it is split, which is not supported")


def _pattern_of(data: dict[str, Any]) -> Pattern:
    """The split pattern: one Split by a regular expression and ByteLevel, or ByteLevel's own, which is GPT-2's.

    Digits one by one before ByteLevel's own make SmolLM2's.
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
        f"the pre-tokenizer is {' + '.join(map(str, kinds))}; supported are ByteLevel, Digits one by one + ByteLevel,"
        " and Split by a Regex + ByteLevel"
    )

"""The pre-tokenizer of a tokenizer.json: the steps by which it splits a text, read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from bpe.errors import InputError
from bpe.formats.byte_level import byte_characters
from bpe.formats.rust_classes import PUNCTUATION, WHITE_SPACE, WORDS_AND_OTHERS
from bpe.patterns import DIGITS_THEN_GPT2, Pattern
from bpe.published_patterns import FOR_ONIGURUMA, GPT2, NUMERIC, SMOLLM
from bpe.splitting.steps import (
    FROM_BYTE_CHARACTERS,
    TO_BYTE_CHARACTERS,
    Behavior,
    Metaspace,
    PrefixSpace,
    Split,
    Step,
)

_WHERE = '"pre_tokenizer"'
_MOST_NESTED = 64
_TIKTOKEN = "tiktoken"  # our own key, which tokenizers ignores: the pattern in the words of tiktoken
_BEHAVIORS = {
    "Isolated": "isolated",
    "Removed": "removed",
    "MergedWithPrevious": "merged_with_previous",
    "MergedWithNext": "merged_with_next",
    "Contiguous": "contiguous",
}


class PreTokenizer(NamedTuple):
    """What a pre-tokenizer does to a text."""

    steps: tuple[Step, ...]
    is_byte_level: bool
    """Whether the pretokens have a character for each byte, as ByteLevel writes it."""


def read_pre_tokenizer(value: Any, normalizer_is_byte_level: bool = False) -> PreTokenizer:
    """Read the "pre_tokenizer" of a tokenizer.json. None, or an empty Sequence, leaves a text whole.

    ByteLevel writes a character for each byte, which the steps behind it see. The last ByteLevel needs no step of its
    own if nothing follows it, since the core's merges are those of bytes.

    Args:
        value: The value of "pre_tokenizer".
        normalizer_is_byte_level: Whether the text that it splits has a character for each byte already.

    Raises:
        InputError: When a kind is unknown, or a key is missing or has the wrong type.
    """
    steps: list[Step] = []
    is_byte_level = normalizer_is_byte_level
    for entry in _flattened(value):
        kind = entry["type"]
        steps += _READERS[kind](_Fields(kind, entry))
        if kind == "ByteLevel":
            steps.append(TO_BYTE_CHARACTERS)
            is_byte_level = True
    if steps[-1:] == [TO_BYTE_CHARACTERS]:
        steps.pop()
    elif is_byte_level:
        steps.append(FROM_BYTE_CHARACTERS)
    return PreTokenizer(tuple(steps), is_byte_level)


def adds_other_characters(steps: Sequence[Step]) -> bool:
    """Return whether steps behind the last ByteLevel may write a character that stands for no byte."""
    if steps[-1:] != (FROM_BYTE_CHARACTERS,):
        return False
    for step in reversed(steps):
        if step == TO_BYTE_CHARACTERS:
            return False
        if isinstance(step, Metaspace) and step.prepend_scheme != "never" and step.replacement not in byte_characters():
            return True
    return False


def _flattened(value: Any, depth: int = 0) -> list[dict[str, Any]]:
    """Return the steps of a pre-tokenizer in their order, without the Sequences around them."""
    if value is None and depth == 0:
        return []
    if not isinstance(value, dict):
        raise InputError(f"{_WHERE} has {_short(value)} in place of a step; expected an object with a type")
    kind = value.get("type")
    if kind == "Sequence":
        inner = value.get("pretokenizers")
        if not isinstance(inner, list) or depth == _MOST_NESTED:
            what = "is nested too deep" if isinstance(inner, list) else 'has no list "pretokenizers"'
            raise InputError(f"a Sequence in {_WHERE} {what}")
        return [step for each in inner for step in _flattened(each, depth + 1)]
    if not isinstance(kind, str) or kind not in _READERS:
        raise InputError(
            f"{_WHERE} has a step of the type {_short(kind)}, which is not supported; supported are"
            f" {', '.join(_READERS)} and Sequence. Open the file with the package tokenizers, or train the model again"
            " with one of these"
        )
    return [value]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Fields:
    """The keys of a step, whose types are checked."""

    def __init__(self, kind: str, entry: Mapping[str, Any]) -> None:
        self._kind = kind
        self._entry = entry

    def wrong(self, key: str, expected: str) -> InputError:
        """Return the error for a value that a key cannot have."""
        found = f"is {_short(self._entry[key])}" if key in self._entry else "is missing"
        return InputError(f'"{key}" of {self._kind} in {_WHERE} {found}; expected {expected}')

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return a boolean. Without a default, the key must exist."""
        value = self._entry.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def character(self, key: str) -> str:
        """Return a string of one character."""
        value = self._entry.get(key)
        if not isinstance(value, str) or len(value) != 1 or "\ud800" <= value <= "\udfff":
            raise self.wrong(key, "one character")
        return value

    def choice(self, key: str, choices: Mapping[str, str], default: str | None = None) -> str:
        """Return what one of some strings stands for."""
        value = self._entry.get(key, default)
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(key, f"one of {', '.join(choices)}")
        return choices[value]

    def number(self, key: str, default: int) -> int:
        """Return a positive integer."""
        value = self._entry.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(key, "a positive integer")
        return value

    def for_tiktoken(self, split: Split) -> Split:
        """Return a split with the pattern that it was translated from, if it still is its translation."""
        text = self._entry.get(_TIKTOKEN)
        if not isinstance(text, str) or split.dialect != "tokenizers":
            return split
        from bpe.splitting.translate import translate  # large, and needed for custom patterns only

        is_translation = translate(text, "tiktoken", "tokenizers") == split.pattern
        return split._replace(pattern=text, dialect="tiktoken") if is_translation else split

    def pattern(self) -> tuple[str, bool]:
        """Return the text of a pattern, and whether it is a regular expression instead of a text to find."""
        value = self._entry.get("pattern")
        if isinstance(value, dict) and len(value) == 1:
            ((kind, text),) = value.items()
            if kind in ("Regex", "String") and isinstance(text, str):
                return text, kind == "Regex"
        raise self.wrong("pattern", 'an object with "Regex" or "String"')


def _split(fields: _Fields) -> list[Step]:
    text, is_regex = fields.pattern()
    behavior = cast("Behavior", fields.choice("behavior", _BEHAVIORS))
    split = Split(text, "tokenizers" if is_regex else "literal", behavior, fields.flag("invert"))
    return [fields.for_tiktoken(split)]


def _byte_level(fields: _Fields) -> list[Step]:
    fields.flag("trim_offsets", True)  # changes offsets only
    steps: list[Step] = [PrefixSpace()] if fields.flag("add_prefix_space") else []
    return [*steps, Split(GPT2, "tokenizers")] if fields.flag("use_regex", True) else steps


def _digits(fields: _Fields) -> list[Step]:
    return [Split(NUMERIC, "tokenizers", "isolated" if fields.flag("individual_digits") else "contiguous")]


def _punctuation(fields: _Fields) -> list[Step]:
    behavior = cast("Behavior", fields.choice("behavior", _BEHAVIORS, "Isolated"))
    return [Split(PUNCTUATION, "tokenizers", behavior)]


def _metaspace(fields: _Fields) -> list[Step]:
    replacement = fields.character("replacement")
    schemes = {scheme: scheme for scheme in ("first", "never", "always")}
    scheme = fields.choice("prepend_scheme", schemes, "always")
    if not fields.flag("add_prefix_space", True) and scheme != "never":
        raise fields.wrong("add_prefix_space", 'true, or "prepend_scheme": "never" beside it')
    return [Metaspace(replacement, cast("Any", scheme), fields.flag("split", True))]


def _fixed_length(fields: _Fields) -> list[Step]:
    return [Split(rf"[\s\S]{{1,{fields.number('length', 5)}}}", "tokenizers")]


def _bert(fields: _Fields) -> list[Step]:
    return [Split(WHITE_SPACE, "tokenizers", "removed"), Split(PUNCTUATION, "tokenizers")]


_READERS: dict[str, Callable[[_Fields], list[Step]]] = {
    "Split": _split,
    "ByteLevel": _byte_level,
    "Digits": _digits,
    "Punctuation": _punctuation,
    "Whitespace": lambda _: [Split(WORDS_AND_OTHERS, "tokenizers", "removed", invert=True)],
    "WhitespaceSplit": lambda _: [Split(WHITE_SPACE, "tokenizers", "removed")],
    "CharDelimiterSplit": lambda fields: [Split(fields.character("delimiter"), "literal", "removed")],
    "Metaspace": _metaspace,
    "BertPreTokenizer": _bert,
    "FixedLength": _fixed_length,
}


def write_pre_tokenizer(pattern: Pattern) -> dict[str, Any]:
    """Return the pre-tokenizer that splits as a pattern does, and writes a character for each byte.

    With a pattern for texts that have a character for each byte already, it writes none.

    Raises:
        InputError: When no pre-tokenizer does so.
    """
    if pattern.steps == DIGITS_THEN_GPT2.steps:
        return _sequence([{"type": "Digits", "individual_digits": True}, _written_byte_level(use_regex=True)])
    if pattern.scanner is not None and pattern.text == SMOLLM:
        return _sequence([_written(Split(r"\p{N}", "tokenizers")), _written_byte_level(use_regex=True)])
    if pattern.scanner is not None:
        regex = FOR_ONIGURUMA.get(pattern.text, pattern.text)
        return _sequence([_written(Split(regex, "tokenizers")), _written_byte_level()])
    written: list[dict[str, Any]] = []
    steps: list[Step] = []
    for step in pattern.all_steps:
        if step == TO_BYTE_CHARACTERS:
            written += _written_before_bytes(steps)
            steps = []
        else:
            steps.append(step)
    if steps[-1:] == [FROM_BYTE_CHARACTERS]:
        return _sequence([*written, *map(_written, steps[:-1])])
    return _sequence([*written, *_written_before_bytes(steps)])


def _written_before_bytes(steps: list[Step]) -> list[dict[str, Any]]:
    """Return what makes some steps and then writes a character for each byte."""
    uses_regex = steps[-1:] == [Split(GPT2, "tokenizers")]
    adds_space = steps[-2:-1] == [PrefixSpace()] if uses_regex else steps[-1:] == [PrefixSpace()]
    if adds_space:
        steps = steps[: -2 if uses_regex else -1]
    else:
        uses_regex = False
    return [*map(_written, steps), _written_byte_level(uses_regex, adds_space)]


def _sequence(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": steps}


def _written_byte_level(use_regex: bool = False, add_prefix_space: bool = False) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _written(step: Step) -> dict[str, Any]:
    if isinstance(step, Metaspace):
        fields = {"replacement": step.replacement, "prepend_scheme": step.prepend_scheme, "split": step.split}
        return {"type": "Metaspace", **fields}
    if not isinstance(step, Split):
        raise InputError("the split pattern puts a space in front before other steps, which tokenizers cannot do")
    kind, text = ("String" if step.dialect == "literal" else "Regex"), step.pattern
    own = {}
    if step.dialect == "tiktoken":
        from bpe.splitting.translate import translate  # large, and needed for custom patterns only

        text, own = translate(text, "tiktoken", "tokenizers"), {_TIKTOKEN: text}
    names = {behavior: name for name, behavior in _BEHAVIORS.items()}
    return {
        "type": "Split",
        "pattern": {kind: text},
        "behavior": names[step.behavior],
        "invert": step.invert,
        **own,
    }

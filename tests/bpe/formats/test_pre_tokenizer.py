"""Reading and writing pre-tokenizers: what is read is written as steps that split as in `tokenizers`."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import tokenizers
from tokenizers import pre_tokenizers

from bpe import InputError
from bpe.formats.pre_tokenizer import read_pre_tokenizer, write_pre_tokenizer
from bpe.formats.rust_classes import PUNCTUATION, WHITE_SPACE, WORDS_AND_OTHERS
from bpe.patterns import PATTERNS, pattern_of_steps
from bpe.published_patterns import NUMERIC
from bpe.splitting.steps import Metaspace, PrefixSpace, Split
from support.references import CODE_POINTS, PECULIAR

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
BEHAVIORS = ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")


def split(pattern: str, behavior: str = "Isolated", invert: bool = False, kind: str = "Regex") -> dict[str, Any]:
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


STEPS: list[dict[str, Any]] = [
    *({"type": "Digits", "individual_digits": individual} for individual in (True, False)),
    *({"type": "Punctuation", "behavior": behavior} for behavior in BEHAVIORS),
    *(split(r"\p{N}{1,3}", behavior, invert) for behavior in BEHAVIORS for invert in (True, False)),
    *(split("a.", behavior, invert, "String") for behavior in BEHAVIORS for invert in (True, False)),
    *({"type": kind} for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "FixedLength")),
    {"type": "CharDelimiterSplit", "delimiter": "."},
    {"type": "FixedLength", "length": 3},
    {"type": "Punctuation"},
]
LAST = [
    BYTE_LEVEL | {"add_prefix_space": space, "use_regex": regex} for space in (True, False) for regex in (True, False)
]


def theirs(pre_tokenizer: Any) -> pre_tokenizers.PreTokenizer:
    """Return what tokenizers makes of a pre-tokenizer in a file."""
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    data = {"version": "1.0", "added_tokens": [], "pre_tokenizer": pre_tokenizer, "model": model}
    return tokenizers.Tokenizer.from_str(json.dumps(data)).pre_tokenizer


def texts(generator: random.Random, count: int) -> list[str]:
    letters = PECULIAR + "ab .,1234-\n ²³¹¼½¾\u200c\u200d\U00011de0\U00011de9\U00016ff4\u166d\u061d\u2e43"
    return ["".join(generator.choices(letters, k=generator.randrange(30))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(60))
def test_steps_are_written_so_that_tokenizers_splits_as_before(seed: int) -> None:
    generator = random.Random(seed)
    steps = generator.choices(STEPS, k=generator.randint(0, 3))
    nested = {"type": "Sequence", "pretokenizers": steps}
    before = {"type": "Sequence", "pretokenizers": [nested, generator.choice(LAST)]}
    read = read_pre_tokenizer(before)
    assert read.is_byte_level
    written = write_pre_tokenizer(pattern_of_steps(read.steps))
    assert read_pre_tokenizer(written).is_byte_level
    one, other = theirs(before), theirs(written)
    for text in texts(generator, 30):
        assert one.pre_tokenize_str(text) == other.pre_tokenize_str(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "kind"),
    [
        (pre_tokenizers.Split(tokenizers.Regex(NUMERIC), "isolated"), pre_tokenizers.Digits(True)),
        (pre_tokenizers.Split(tokenizers.Regex(PUNCTUATION), "isolated"), pre_tokenizers.Punctuation("isolated")),
        (pre_tokenizers.Split(tokenizers.Regex(WHITE_SPACE), "removed"), pre_tokenizers.WhitespaceSplit()),
        (pre_tokenizers.Split(tokenizers.Regex(WORDS_AND_OTHERS), "removed", True), pre_tokenizers.Whitespace()),
    ],
)
def test_classes_are_those_of_tokenizers_at_every_code_point(
    ours: pre_tokenizers.PreTokenizer, kind: pre_tokenizers.PreTokenizer
) -> None:
    for separator in ("", "a", "."):
        for first in range(0, len(CODE_POINTS), 4096):
            text = separator.join(map(chr, CODE_POINTS[first : first + 4096]))
            assert ours.pre_tokenize_str(text) == kind.pre_tokenize_str(text)


def test_known_steps_have_the_pattern_of_their_scanner() -> None:
    digits = {"type": "Digits", "individual_digits": True}
    for steps, name in (
        ([BYTE_LEVEL | {"use_regex": True}], "gpt2"),
        ([digits, BYTE_LEVEL | {"use_regex": True}], "smollm"),
        ([split(PATTERNS["llama3"].text), BYTE_LEVEL], "llama3"),
        ([split(PATTERNS["llama3"].text, "Removed", invert=True), BYTE_LEVEL], "llama3"),
        ([split(PATTERNS["o200k"].text), BYTE_LEVEL], "o200k"),
        ([split(PATTERNS["llama3"].text, "Contiguous"), BYTE_LEVEL], None),
        ([split(PATTERNS["llama3"].text, kind="String"), BYTE_LEVEL], None),
        ([digits | {"individual_digits": False}, BYTE_LEVEL | {"use_regex": True}], None),
    ):
        read = read_pre_tokenizer({"type": "Sequence", "pretokenizers": steps})
        assert pattern_of_steps(read.steps).name == name


def test_metaspace_is_read_with_its_old_keys_and_its_new_ones() -> None:
    old = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}
    assert read_pre_tokenizer(old) == ((Metaspace("▁", "always", True),), False)
    new = {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": False}
    assert read_pre_tokenizer(new) == ((Metaspace("_", "first", False),), False)
    never = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": False, "prepend_scheme": "never"}
    assert read_pre_tokenizer(never) == ((Metaspace("▁", "never", True),), False)


def test_nothing_and_an_empty_sequence_leave_a_text_whole() -> None:
    assert read_pre_tokenizer(None) == ((), False)
    assert read_pre_tokenizer({"type": "Sequence", "pretokenizers": []}) == ((), False)
    assert read_pre_tokenizer(BYTE_LEVEL) == ((), True)
    assert read_pre_tokenizer(BYTE_LEVEL | {"add_prefix_space": True}) == ((PrefixSpace(),), True)
    assert pattern_of_steps(()).text == "nothing"
    assert pattern_of_steps([Split("a", "tiktoken", "removed", invert=True)]).text == "a"


@pytest.mark.parametrize(
    ("pre_tokenizer", "message"),
    [
        (5, "has 5 in place of a step"),
        ("ByteLevel", "has 'ByteLevel' in place of a step"),
        ({}, "a step of the type None, which is not supported; supported are Split, ByteLevel"),
        ({"type": "UnicodeScripts"}, "a step of the type 'UnicodeScripts', which is not supported"),
        ({"type": ["Split"]}, r"a step of the type \['Split'\]"),
        ({"type": "Sequence"}, 'no list "pretokenizers"'),
        ({"type": "Sequence", "pretokenizers": [None]}, "has None in place of a step"),
        (split("a") | {"pattern": "a"}, '"pattern" of Split in "pre_tokenizer" is \'a\'; expected an object'),
        (split("a") | {"pattern": {"Regex": 5}}, '"pattern" of Split'),
        (split("a") | {"behavior": "isolated"}, "\"behavior\" of Split .* is 'isolated'; expected one of Isolated, "),
        (split("a") | {"invert": 1}, '"invert" of Split .* is 1; expected true or false'),
        ({"type": "ByteLevel"}, '"add_prefix_space" of ByteLevel .* is missing'),
        (BYTE_LEVEL | {"use_regex": None}, '"use_regex" of ByteLevel .* is None'),
        (BYTE_LEVEL | {"trim_offsets": "x"}, "\"trim_offsets\" of ByteLevel .* is 'x'"),
        ({"type": "Digits"}, '"individual_digits" of Digits .* is missing'),
        ({"type": "Punctuation", "behavior": 5}, '"behavior" of Punctuation .* is 5'),
        ({"type": "CharDelimiterSplit", "delimiter": "--"}, "\"delimiter\" of CharDelimiterSplit .* is '--'"),
        ({"type": "Metaspace"}, '"replacement" of Metaspace .* is missing; expected one character'),
        (
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "sometimes"},
            "expected one of first, never, always",
        ),
        ({"type": "Metaspace", "replacement": "▁", "add_prefix_space": False}, '"add_prefix_space" of Metaspace'),
        ({"type": "FixedLength", "length": 0}, '"length" of FixedLength .* is 0; expected a positive integer'),
    ],
)
def test_wrong_steps_are_refused_by_name(pre_tokenizer: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_pre_tokenizer(pre_tokenizer)


def test_steps_that_are_nested_too_deep_are_refused() -> None:
    steps: Any = BYTE_LEVEL
    for _ in range(100):
        steps = {"type": "Sequence", "pretokenizers": [steps]}
    with pytest.raises(InputError, match="nested too deep"):
        read_pre_tokenizer(steps)

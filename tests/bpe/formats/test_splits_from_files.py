"""A tokenizer.json with any steps gives the ids of `tokenizers`, also once it is written again."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from bpe import Tokenizer
from bpe.formats.byte_level import token_text
from support.references import PECULIAR, byte_tokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
BEHAVIORS = ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")
# Every pair of these characters merges, so that ids depend on where a text is cut.
LETTERS = "ab1 .é'\n"


def split(pattern: str, behavior: str = "Isolated", invert: bool = False, kind: str = "Regex") -> dict[str, Any]:
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


STEPS: list[dict[str, Any]] = [
    *({"type": "Digits", "individual_digits": individual} for individual in (True, False)),
    *({"type": "Punctuation", "behavior": behavior} for behavior in BEHAVIORS),
    *(split(r"\p{N}{1,3}", behavior, invert) for behavior in BEHAVIORS for invert in (True, False)),
    *(split("a.", behavior, invert, "String") for behavior in BEHAVIORS for invert in (True, False)),
    *({"type": kind} for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "FixedLength")),
    {"type": "CharDelimiterSplit", "delimiter": "."},
    split(r"\s?\p{L}+"),
    split(r"(?i)AB|\b1"),
]
LAST = [
    BYTE_LEVEL | {"add_prefix_space": space, "use_regex": regex} for space in (True, False) for regex in (True, False)
]


def file_with(pre_tokenizer: Any, directory: Path) -> Path:
    """Write a tokenizer.json whose tokens are all pairs and many triples of some characters."""
    tokens = [bytes([byte]) for byte in range(256)]
    single = [letter.encode() for letter in LETTERS]
    pairs = [(left, right) for left in single for right in single]
    merges = [(letter[:1], letter[1:]) for letter in single if len(letter) > 1]
    merges += pairs + [(left + right, right) for left, right in pairs]
    tokens += [left + right for left, right in merges]
    data = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token_text(token): id for id, token in enumerate(dict.fromkeys(tokens))},
            "merges": [[token_text(left), token_text(right)] for left, right in merges],
        },
    }
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(data))
    return path


def assert_alike(ours: Tokenizer, path: Path, generator: random.Random, count: int = 40) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(path))
    texts = ["".join(generator.choices(LETTERS + PECULIAR, k=generator.randrange(40))) for _ in range(count)]
    texts += ["".join(generator.choices(LETTERS, k=generator.randrange(30))) for _ in range(count)]
    for text in texts:
        assert ours.encode_ordinary(text) == theirs.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize("seed", range(40))
def test_random_steps_give_the_ids_of_tokenizers(seed: int, tmp_path: Path) -> None:
    generator = random.Random(seed)
    steps = generator.choices(STEPS, k=generator.randint(0, 3))
    path = file_with({"type": "Sequence", "pretokenizers": [*steps, generator.choice(LAST)]}, tmp_path)
    ours = Tokenizer.from_file(path)
    assert_alike(ours, path, generator)
    again = tmp_path / "again.json"
    ours.save(again)
    assert_alike(ours, again, generator)
    assert_alike(Tokenizer.from_file(again), path, generator)


@pytest.mark.parametrize("pattern", [r"\p{N}{1,3}", r"\w+|[^\w\s]+", r"(?i)ab|\s++$|1$|.", r"\p{N}{1,3}+|a|\s+(?!\S)"])
def test_a_pattern_that_leaves_text_out_is_written_in_the_words_of_tokenizers(pattern: str, tmp_path: Path) -> None:
    ours = byte_tokenizer(pattern, ab=256, aab=257)
    path = tmp_path / "tokenizer.json"
    ours.save(path)
    assert Tokenizer.from_file(path).pattern == ours.pattern
    assert_alike(ours, path, random.Random(0))


def test_numbers_that_only_one_of_two_engines_knows_are_split_as_by_each(tmp_path: Path) -> None:
    """tokenizers' Digits knows the numbers of Unicode 17; the class of numbers in an expression does not."""
    digits = {"type": "Digits", "individual_digits": True}
    path = file_with({"type": "Sequence", "pretokenizers": [digits, BYTE_LEVEL | {"use_regex": True}]}, tmp_path)
    by_digits = Tokenizer.from_file(path)
    by_expression = byte_tokenizer("smollm", ab=256)
    assert by_digits.pattern.name == by_expression.pattern.name == "smollm"
    written, saved = tmp_path / "written.json", tmp_path / "saved.json"
    by_digits.save(written)
    by_expression.save(saved)
    assert json.loads(written.read_bytes())["pre_tokenizer"]["pretokenizers"][0] == digits
    assert Tokenizer.from_file(saved).pattern == by_expression.pattern
    splits = {each: tokenizers.Tokenizer.from_file(str(each)).pre_tokenizer for each in (path, written, saved)}
    generator = random.Random(0)
    letters = [*"as1² \n.'日é\t½\u3000", "'s", "  ", "\U00011de0", "\U00011de9", "\U00016ff4", "\U00016ff7"]
    for _ in range(3000):
        text = "".join(generator.choices(letters, k=generator.randrange(12)))
        for each, ours in ((path, by_digits), (written, by_digits), (saved, by_expression)):
            expected = [len(piece) for piece, _ in splits[each].pre_tokenize_str(text)]
            assert [len(piece) for piece in ours.pattern.splitter().split(text)] == expected, text

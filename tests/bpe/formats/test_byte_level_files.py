"""Byte-level files whose steps see the characters that stand for bytes, or that lack tokens for bytes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from support.byte_level_files import BEHAVIORS, BYTE_LEVEL, assert_alike, split, trained

SPLITS: list[dict[str, Any]] = [
    *({"type": "Digits", "individual_digits": individual} for individual in (True, False)),
    *({"type": "Punctuation", "behavior": behavior} for behavior in BEHAVIORS),
    *({"type": kind} for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "FixedLength")),
    {"type": "CharDelimiterSplit", "delimiter": "Ġ"},
    *(split("[0-9][0-9][0-9]", behavior, invert) for behavior in BEHAVIORS for invert in (True, False)),
    *(split("Ġ", behavior, kind="String") for behavior in BEHAVIORS),
    split(r"\p{L}+|\p{N}"),
    split(r"Ġ?[^ĠĊ]+|Ġ+|Ċ"),
    split(r"\w+", "Removed", invert=True),
    {"type": "Metaspace", "replacement": "Ġ", "prepend_scheme": "first", "split": True},
    {"type": "Metaspace", "replacement": "Ġ", "prepend_scheme": "always", "split": False},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
]
MAPPED = [BYTE_LEVEL | {"add_prefix_space": space, "use_regex": regex} for space in (0, 1) for regex in (0, 1)]
MAPPED = [
    step | {"add_prefix_space": bool(step["add_prefix_space"]), "use_regex": bool(step["use_regex"])} for step in MAPPED
]
FALCON = [
    {"type": "Punctuation", "behavior": "Contiguous"},
    BYTE_LEVEL,
    {"type": "Digits", "individual_digits": False},
    split("[0-9][0-9][0-9]"),
]


def sequence(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": steps}


@pytest.mark.parametrize("seed", range(10))
def test_falcons_steps_behind_byte_level_see_the_characters_of_bytes(seed: int, tmp_path: Path) -> None:
    generator = random.Random(seed)
    assert_alike(trained(generator, sequence(FALCON)), tmp_path / "tokenizer.json", generator)


@pytest.mark.parametrize("seed", range(40))
def test_random_steps_behind_byte_level_give_the_ids_of_tokenizers(seed: int, tmp_path: Path) -> None:
    generator = random.Random(seed)
    before = generator.choices(SPLITS[:-3], k=generator.randrange(2))
    after = generator.choices([*SPLITS, *MAPPED], k=generator.randint(1, 3))
    steps = [*before, generator.choice(MAPPED), *after]
    assert_alike(trained(generator, sequence(steps)), tmp_path / "tokenizer.json", generator)


OPTIONS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {}),
    ((), {"ignore_merges": True}),
    (("<unk>",), {"unk_token": "<unk>"}),
    (("<unk>",), {"unk_token": "<unk>", "fuse_unk": True}),
    (("<unk>",), {"unk_token": "<unk>", "fuse_unk": True, "ignore_merges": True}),
    (("<unk>", "<0xC4>", "<0xA0>", "<0xC3>"), {"unk_token": "<unk>", "byte_fallback": True}),
    (("<0xC4>", "<0xA0>", "<0x61>", "<0xC3>", "<0x31>"), {"byte_fallback": True}),
    (tuple(f"<0x{byte:02X}>" for byte in range(256)), {"byte_fallback": True}),
    (("<unk>", "<0xC4>", "<0xC3>"), {"unk_token": "<unk>", "byte_fallback": False}),
]


@pytest.mark.parametrize("seed", range(54))
def test_bytes_without_a_token_become_what_tokenizers_makes_of_them(seed: int, tmp_path: Path) -> None:
    generator = random.Random(seed)
    more, options = OPTIONS[seed % len(OPTIONS)]
    steps = [*generator.choices(SPLITS[:-3], k=generator.randrange(2)), generator.choice(MAPPED)]
    data = trained(generator, sequence(steps), None, True, options, more)
    assert_alike(data, tmp_path / "tokenizer.json", generator)


NORMALIZERS: list[list[dict[str, Any]]] = [
    [],
    [{"type": "NFC"}],
    [{"type": "Lowercase"}],
    [{"type": "Replace", "pattern": {"String": "ab"}, "content": "é"}],
    [{"type": "NFD"}, {"type": "StripAccents"}],
]
AFTER: list[list[dict[str, Any]]] = [
    [],
    [{"type": "Prepend", "prepend": "Ġ"}],
    [{"type": "Replace", "pattern": {"String": "Ġ"}, "content": "_"}],
    [{"type": "Replace", "pattern": {"Regex": "Ġ+"}, "content": "▁"}],
    [{"type": "Lowercase"}],
    [{"type": "NFD"}],
    [{"type": "ByteLevel"}],
]


@pytest.mark.parametrize("seed", range(60))
def test_byte_level_as_a_normalizer_gives_the_ids_of_tokenizers(seed: int, tmp_path: Path) -> None:
    generator = random.Random(seed)
    normalizers = [*generator.choice(NORMALIZERS), {"type": "ByteLevel"}, *generator.choice(AFTER)]
    steps = generator.choices([*SPLITS, *MAPPED], k=generator.randrange(3))
    more, options = generator.choice(OPTIONS)
    data = trained(
        generator,
        sequence(steps) if steps else None,
        {"type": "Sequence", "normalizers": normalizers},
        generator.random() < 0.5,
        options,
        more,
    )
    assert_alike(data, tmp_path / "tokenizer.json", generator)

"""Byte-level files whose steps see the characters that stand for bytes, or that lack tokens for bytes."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from bpe import InputError, Tokenizer
from support.byte_level_files import BEHAVIORS, BYTE_LEVEL, assert_alike, random_text, split, trained

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
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False},
    split("[²³0-9]+"),
    split("Â²?", "MergedWithNext"),
]
BEFORE = [step for step in SPLITS if "Ġ" not in str(step)]
MAPPED = [
    BYTE_LEVEL | {"add_prefix_space": space, "use_regex": regex} for space in (True, False) for regex in (True, False)
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
    before = generator.choices(BEFORE, k=generator.randrange(2))
    after = generator.choices([*SPLITS, *MAPPED], k=generator.randint(1, 3))
    steps = [*before, generator.choice(MAPPED), *after]
    assert_alike(trained(generator, sequence(steps)), tmp_path / "tokenizer.json", generator)


@pytest.mark.parametrize("seed", range(30))
def test_metaspace_knows_what_stands_for_the_first_character_of_a_text(seed: int, tmp_path: Path) -> None:
    """The bytes of the first character are pieces of their own, or a normalizer removes it or puts others before it."""
    generator = random.Random(seed)
    metaspace = {"type": "Metaspace", "replacement": "Ġ▁"[seed % 2], "prepend_scheme": "first", "split": False}
    if seed % 3:
        steps = [generator.choice(MAPPED), split(r"[²³0-9]|\p{L}"), metaspace]
        normalizer = None
    else:
        steps = [generator.choice([split("b"), {"type": "Punctuation"}]), metaspace, generator.choice(MAPPED)]
        marks = [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Prepend", "prepend": "x"}]
        normalizer = {"type": "Sequence", "normalizers": marks[: generator.randint(1, 3)]}
    assert_alike(trained(generator, sequence(steps), normalizer), tmp_path / "tokenizer.json", generator)


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
    steps = [*generator.choices(BEFORE, k=generator.randrange(2)), generator.choice(MAPPED)]
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


def opened(tmp_path: Path, more: tuple[str, ...], options: dict[str, Any], **parts: Any) -> Tokenizer:
    """Return the tokenizer of a file that lacks tokens for some bytes."""
    data = trained(random.Random(5), BYTE_LEVEL, None, True, options, more) | parts
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return Tokenizer.from_file(path)


@pytest.mark.parametrize(
    ("more", "options", "effect"),
    [
        (("<unk>",), {"unk_token": "<unk>"}, "encodes bytes without a token as '<unk>'"),
        (OPTIONS[7][0], {"byte_fallback": True}, r"encodes bytes without a token as others \(byte_fallback\)"),
        ((), {"ignore_merges": True}, "drops bytes without a token"),
    ],
)
def test_other_formats_refuse_bytes_that_become_others(
    more: tuple[str, ...], options: dict[str, Any], effect: str, tmp_path: Path
) -> None:
    ours = opened(tmp_path, more, options)
    with pytest.raises(InputError, match=f"{effect}, which tiktoken's format cannot express; write a tokenizer.json"):
        ours.save(tmp_path / "saved.tiktoken")
    with pytest.raises(InputError, match=f"{effect}, which llama.cpp does not do; write a tokenizer.json"):
        ours.save(tmp_path / "saved.gguf")
    assert list(tmp_path.iterdir()) == [tmp_path / "tokenizer.json"]


def test_a_file_that_other_steps_follow_is_pickled_and_gets_special_tokens(tmp_path: Path) -> None:
    ours = opened(tmp_path, ("<unk>",), {"unk_token": "<unk>", "fuse_unk": True})
    copy = pickle.loads(pickle.dumps(ours))
    text = "abc 123 日本 é²"
    assert copy.encode(text) == ours.encode(text)
    assert copy.decode(ours.encode(text)) == ours.decode(ours.encode(text))
    assert copy.vocabulary.merges() == ours.vocabulary.merges() != []
    more = ours.vocabulary.with_special_tokens(["<|end|>"])
    assert more.special_tokens["<|end|>"] == ours.n_vocab
    with pytest.raises(InputError, match="encode_with_unstable"):
        ours.encode_with_unstable(text)


def test_text_that_is_not_utf8_is_encoded_byte_by_byte(tmp_path: Path) -> None:
    generator = random.Random(3)
    path = tmp_path / "tokenizer.json"
    for normalizer in (None, {"type": "ByteLevel"}):
        steps = [split("[0-9][0-9][0-9]"), split("Ġ")] if normalizer else FALCON
        data = trained(generator, sequence(steps), normalizer)
        path.write_text(json.dumps(data), encoding="utf-8")
        ours = Tokenizer.from_file(path)
        for _ in range(200):
            content = bytes(generator.choices([*range(0x20, 0x80), *range(0x80, 0x100)], k=generator.randrange(40)))
            assert ours.decode_bytes(ours.encode_ordinary(content)) == content


@pytest.mark.parametrize("seed", range(6))
def test_long_texts_have_the_same_ids_on_several_threads(seed: int, tmp_path: Path) -> None:
    generator = random.Random(seed)
    more, options = OPTIONS[seed % len(OPTIONS)]
    steps = [split(r"\s?\p{L}+|\p{N}{1,3}|[^\p{L}\p{N}]"), BYTE_LEVEL, {"type": "Digits", "individual_digits": False}]
    data = trained(generator, sequence(steps), None, seed % 2 == 0, options, more)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    ours, theirs = Tokenizer.from_file(path), tokenizers.Tokenizer.from_file(str(path))
    text = "".join(random_text(generator) for _ in range(20_000)).replace("<unk>", "")
    expected = theirs.encode(text, add_special_tokens=False).ids
    assert ours.encode(text) == expected
    assert ours.encode_batch([text, text], num_threads=4) == [expected, expected]


DROPS = {"unk_token": None, "ignore_merges": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}, 5]}}, '"normalizer.normalizers'),
        ({"normalizer": {"type": "ByteLevel", "use_regex": True}}, '"use_regex", which tokenizers ignores'),
        ({"pre_tokenizer": sequence([BYTE_LEVEL, {"type": "UnicodeScripts"}])}, "UnicodeScripts"),
        ({"pre_tokenizer": sequence([BYTE_LEVEL, split("(a)\\1")])}, "back reference"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, 'neither "pre_tokenizer" nor "normalizer" has ByteLevel'),
        ({"pre_tokenizer": sequence([BYTE_LEVEL] * 9 + [split("a")])}, r"at most 2\^8"),
        ({"merges": [["Ġ", "zz"]]}, r"entry 0 of the merges, \['Ġ', 'zz'\], has 'zz', which is not a token"),
        ({"merges": [5]}, "entry 0 of the merges, 5, is not a pair"),
        ({"vocab": {"a": 0, "b": -1}, "merges": []} | DROPS, "the token 'b' has the id -1"),
        ({"vocab": {"a": 0, "b": 0}, "merges": []} | DROPS, "rank 0 appears twice"),
        ({"vocab": {}, "merges": []} | DROPS, "the vocabulary is empty"),
        ({"unk_token": 5}, '"unk_token" of the model is 5'),
        ({"byte_fallback": "yes"}, "\"byte_fallback\" of the model is 'yes'"),
        ({"unk_token": "<none>"}, "such as b'.*', have no token, and unk_token = '<none>' is no token either"),
    ],
)
def test_damaged_files_are_refused_in_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    of_file = {key: value for key, value in change.items() if key in ("normalizer", "pre_tokenizer")}
    of_model = {key: value for key, value in change.items() if key not in of_file}
    with pytest.raises(InputError, match=message) as caught:
        opened(tmp_path, ("<unk>",), {"unk_token": "<unk>"} | of_model, **of_file)
    assert "\n" not in str(caught.value)


def test_a_pattern_cannot_replace_that_of_a_normalizer_with_byte_level(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(trained(random.Random(0), split("Ġ"), {"type": "ByteLevel"})), encoding="utf-8")
    assert Tokenizer.from_file(path).encode("a b")
    with pytest.raises(InputError, match='"normalizer" has ByteLevel, .*leave out the pattern'):
        Tokenizer.from_file(path, pattern="gpt2")

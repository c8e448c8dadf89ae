"""The core's normalizer gives what Hugging Face's tokenizers gives, and may be applied to the parts of a text."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from bpe import _core

_BERT = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}

# For each normalizer of tokenizers, the steps of the core that do the same.
CASES: dict[str, tuple[Any, list[tuple[Any, ...]]]] = {
    "nfc": (normalizers.NFC(), [("nfc",)]),
    "nfd": (normalizers.NFD(), [("nfd",)]),
    "nfkc": (normalizers.NFKC(), [("nfkc",)]),
    "nfkd": (normalizers.NFKD(), [("nfkd",)]),
    "lowercase": (normalizers.Lowercase(), [("lowercase",)]),
    "strip_accents": (normalizers.StripAccents(), [("strip_accents",)]),
    "strip": (normalizers.Strip(), [("strip", True, True)]),
    "strip_left": (normalizers.Strip(left=True, right=False), [("strip", True, False)]),
    "strip_right": (normalizers.Strip(left=False, right=True), [("strip", False, True)]),
    "nmt": (normalizers.Nmt(), [("nmt",)]),
    "byte_level": (normalizers.ByteLevel(), [("byte_level",)]),
    "bert_clean": (normalizers.BertNormalizer(**_BERT | {"clean_text": True}), [("bert_clean",)]),
    "bert_chinese": (normalizers.BertNormalizer(**_BERT | {"handle_chinese_chars": True}), [("bert_chinese",)]),
    "bert_accents": (normalizers.BertNormalizer(**_BERT | {"strip_accents": True}), [("nfd",), ("bert_accents",)]),
    "words": (
        normalizers.Sequence(
            [
                normalizers.NFD(),
                normalizers.StripAccents(),
                normalizers.Lowercase(),
                normalizers.Prepend("▁"),
                normalizers.Replace(" ", "▁"),
            ]
        ),
        [("nfd",), ("strip_accents",), ("lowercase",), ("prepend", "▁".encode()), ("replace", b" ", "▁".encode())],
    ),
    "removing": (
        normalizers.Sequence(
            [
                normalizers.Replace("é", "xyz"),
                normalizers.NFKC(),
                normalizers.Strip(),
                normalizers.Replace("e", ""),
                normalizers.NFC(),
            ]
        ),
        [("replace", "é".encode(), b"xyz"), ("nfkc",), ("strip", True, True), ("replace", b"e", b""), ("nfc",)],
    ),
}

# Marks of many classes, decompositions that begin with a mark, characters that are not composed again, Hangul and its
# parts, letters whose lowercase or compatible form is longer, white space, control characters, unassigned code points.
_CHOSEN = (
    "eaoi <=>\0\t\n\r\x85\xa0\u3000\u200b\u200d\ufffdßẞΣςσ½ﬁİKÅé\u0345\u0344\u0f71\u0f73\u0f75\u0f81\u0f72\u0300"
    "\u0301\u0316\u0327\u0308\u0323\u0338\u3099\u309a\u1100\u1161\u11a7\u11a8가각힣\u0958\u2adc\ufb1d\u1e69\u01d5α\u1fb7"
    "一\uf900\U0002f800\ufdfa\u2126\u212b\u09c7\u09be\U00011099\U000110ba\U0001d15e\u0e33\u0378\ue000\U00100000\uffff"
)
_RANGES = [(0, 0x300), (0x300, 0x370), (0x370, 0x600), (0x900, 0x1200), (0x1E00, 0x2200), (0x3000, 0xD800)]
_RANGES += [(0xF900, 0xFB50), (0xE000, 0x110000)]


def _text(random: Random, letters: str, longest: int) -> str:
    return "".join(random.choice(letters) for _ in range(random.randrange(longest + 1)))


def _any_text(random: Random) -> str:
    def character() -> str:
        return random.choice(_CHOSEN) if random.random() < 0.6 else chr(random.randrange(*random.choice(_RANGES)))

    return "".join(character() for _ in range(random.choice([3, 8, 20])))


def _with_tokens_of_characters(normalizer: Any) -> Tokenizer:
    """A tokenizer each of whose tokens is a character of the normalized text."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m:.)"), "isolated")
    return tokenizer


def _origins_of_characters(text: str, normalized: bytes, origins: Any) -> list[tuple[int, int]]:
    """The begin and end in the text, in characters, of each character of the normalized text."""
    if origins is None:
        return [(i, i + 1) for i in range(len(text))]
    pairs = origins.reshape(-1, 2).tolist()
    place = [number for number, character in enumerate(text) for _ in character.encode()] + [len(text)]
    starts = [pairs[i] for i, byte in enumerate(normalized) if byte & 0xC0 != 0x80]
    return [(place[begin], place[end]) for begin, end in starts]


@pytest.mark.parametrize("case", CASES)
def test_every_code_point_is_normalized_as_in_the_reference(case: str) -> None:
    reference, steps = CASES[case]
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    if case.startswith("strip_") or case == "strip":
        points = [f"{point}x{point}" for point in points if reference.normalize_str(point) != point] + ["x"]
    text = "x".join(points)
    assert _core.Normalizer(steps).apply(text) == reference.normalize_str(text).encode()


@pytest.mark.parametrize("case", CASES)
def test_random_texts_have_the_results_and_origins_of_the_reference_also_in_parts(case: str) -> None:
    random = Random(case)
    reference, steps = CASES[case]
    core, tokenizer = _core.Normalizer(steps), _with_tokens_of_characters(reference)
    cuts = 0
    for _ in range(2000):
        text = _any_text(random)
        expected = reference.normalize_str(text)
        normalized, origins = core.apply_with_origins(text)
        assert core.apply(text) == normalized == expected.encode(), ascii(text)
        offsets = tokenizer.encode(text).offsets
        assert _origins_of_characters(text, normalized, origins) == offsets, ascii(text)
        for cut in core.cuts(text):
            left, right = text.encode()[:cut], text.encode()[cut:]
            assert core.apply(left) + core.apply(right, at_start=False) == normalized, (ascii(text), cut)
            cuts += 1
    assert cuts > 1000


def test_replacing_and_prepending_strings_equals_the_reference_also_in_parts() -> None:
    random = Random(1)
    cuts = 0
    for _ in range(5000):
        pattern, content, front = _text(random, "abé ", 2), _text(random, "abé ▁", 2), _text(random, "a▁", 2)
        text = _text(random, "abé ▁", 7)
        reference = normalizers.Sequence([normalizers.Replace(pattern, content), normalizers.Prepend(front)])
        core = _core.Normalizer([("replace", pattern.encode(), content.encode()), ("prepend", front.encode())])
        expected = reference.normalize_str(text).encode()
        assert core.apply(text) == expected, (pattern, content, front, text)
        for cut in core.cuts(text):
            left, right = text.encode()[:cut], text.encode()[cut:]
            assert core.apply(left) + core.apply(right, at_start=False) == expected, (pattern, content, text, cut)
            cuts += 1
    assert cuts > 1000


@pytest.mark.parametrize("case", CASES)
def test_malformed_bytes_stay_and_the_text_between_them_is_normalized(case: str) -> None:
    random = Random(case)
    core = _core.Normalizer([step for step in CASES[case][1] if step[0] not in ("strip", "prepend", "byte_level")])
    for _ in range(200):
        parts = [_any_text(random) for _ in range(4)]
        content = b"\xff".join(part.encode() for part in parts)
        assert core.apply(content) == b"\xff".join(core.apply(part) for part in parts)
        assert core.apply_with_origins(content)[0] == core.apply(content)


_DIGITS, _SPACE = (0x30, 0x39), (0x20, 0x20)
_PROGRAMS = {
    "[0-9]+": ((_DIGITS,), ((0, 0, 0), (2, 0, 2), (3, 0, 0))),
    " {2}": ((_SPACE,), ((0, 0, 0), (0, 0, 0), (3, 0, 0))),
    "[0-9]*": ((_DIGITS,), ((2, 1, 3), (0, 0, 0), (1, 0, 0), (3, 0, 0))),
}


@pytest.mark.parametrize("pattern", _PROGRAMS)
def test_replacing_the_matches_of_a_pattern_equals_the_reference(pattern: str) -> None:
    random = Random(pattern)
    for content in ("", "x", "é9"):
        reference = normalizers.Replace(Regex(pattern), content)
        core = _core.Normalizer([("replace_matches", *_PROGRAMS[pattern], content.encode())])
        tokenizer = _with_tokens_of_characters(reference)
        for _ in range(500):
            text = _text(random, "a1é  2", 9)
            normalized, origins = core.apply_with_origins(text)
            assert core.apply(text) == normalized == reference.normalize_str(text).encode(), text
            assert _origins_of_characters(text, normalized, origins) == tokenizer.encode(text).offsets, text
            assert core.cuts(text) == []


def test_a_long_string_that_nearly_occurs_everywhere_is_searched_for_in_linear_time() -> None:
    core = _core.Normalizer([("replace", b"a" * 100_000 + b"b", b"!")])
    text = b"a" * 1_000_000
    assert core.apply(text) == text
    assert core.apply(text + b"b" + text) == b"a" * 900_000 + b"!" + text
    random = Random(2)
    for _ in range(200):
        pattern = _text(random, "ab", 3).encode() * 15 or b"a"
        text = _text(random, "ab", 4).encode() * random.randrange(200)
        assert _core.Normalizer([("replace", pattern, b"-")]).apply(text) == text.replace(pattern, b"-")


@pytest.mark.parametrize("form", ["nfc", "nfd", "nfkc", "nfkd"])
def test_a_long_run_of_marks_is_sorted_in_reasonable_time(form: str) -> None:
    text = "a" + "\u0301\u0316\u0345" * 100_000
    reference = {"nfc": normalizers.NFC(), "nfd": normalizers.NFD(), "nfkc": normalizers.NFKC()}
    expected = reference.get(form, normalizers.NFKD()).normalize_str(text)
    assert _core.Normalizer([(form,)]).apply(text) == expected.encode()

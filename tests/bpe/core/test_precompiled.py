"""Sentencepiece's map of characters: as tokenizers applies it, and refused where it is damaged."""

from __future__ import annotations

import struct
from random import Random

import pytest
from tokenizers import normalizers

from bpe import _core
from bpe.errors import InputError
from tests.support.charsmaps import charsmap, entry_of, reference_normalizer

# Letters with marks, emoji sequences, regional indicators, Hangul and its parts, conjuncts of Devanagari, marks that
# join to what follows them, and line ends.
_LETTERS = (
    "aeé ©½\r\n\t\0\u0301\u0308\u0323\u0903\u0600\u070f\u200c\u200d\ufe0f❤👍\U0001f1e6\U0001f1e7\U0001f3fd가각"
    "\u1100\u1161\u11a8\u0915\u094d\u0937\u093c\u0b95\u0bbe\u1b05\u1b44ﷺ㍿ｶﾞ\u0e33\U000110bd\U00011915"
)


def _text(random: Random) -> str:
    def character() -> str:
        return random.choice(_LETTERS) if random.random() < 0.9 else chr(random.choice([*range(0xD800), 0x1F468]))

    return "".join(character() for _ in range(random.choice([3, 6, 15])))


def _random_map(random: Random) -> bytes:
    keys = {"".join(random.choice(_LETTERS[1:]) for _ in range(random.choice([1, 1, 1, 2, 3]))) for _ in range(20)}
    contents = ["", "x", "xyz", "é", "中文字", " "]
    return charsmap({key.replace("\0", "a"): random.choice(contents) for key in keys})


def test_random_maps_give_what_the_reference_gives_also_in_parts() -> None:
    random = Random(3)
    cuts = 0
    for _ in range(40):
        content = _random_map(random)
        reference = reference_normalizer(entry_of(content))
        core = _core.Normalizer([("precompiled", content)])
        for _ in range(50):
            text = _text(random)
            expected = reference.normalize_str(text).encode()
            assert core.apply(text) == expected, ascii(text)
            assert core.apply_with_origins(text)[0] == expected
            for cut in core.cuts(text):
                left, right = text.encode()[:cut], text.encode()[cut:]
                assert core.apply(left) + core.apply(right, at_start=False) == expected, (ascii(text), cut)
                cuts += 1
    assert cuts > 500


def test_every_code_point_joins_to_clusters_as_in_the_reference() -> None:
    # Each single byte is a key, so a cluster of fewer than 6 bytes becomes one Z, and each character of a longer one.
    units = [0] * 1024
    units[0] = 256 << 10
    for byte in range(1, 256):
        units[256 ^ byte] = ((256 ^ byte) ^ (512 + byte)) << 10 | 1 << 8 | byte
        units[512 + byte] = 1 << 31
    content = struct.pack("<1025I", 4 * len(units), *units) + b"Z\0"
    reference, core = reference_normalizer(entry_of(content)), _core.Normalizer([("precompiled", content)])
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    for before, after in (("a", "a"), ("\u0915", "\u094d\u0915\u0308")):
        text = "\n".join(before + point + after for point in points)
        assert core.apply(text) == reference.normalize_str(text).encode()


def test_a_map_within_a_sequence_is_cut_only_where_its_result_is_certain() -> None:
    random = Random(4)
    content = charsmap({"\u3000": " ", "é": "e\u0301", "ﬁ": "fi", "a\u0308": "ä", "\t": ""})
    steps = [("precompiled", content), ("replace", b" ", "▁".encode()), ("strip", True, True), ("prepend", b"_")]
    entry = {
        "type": "Sequence",
        "normalizers": [
            entry_of(content),
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            {"type": "Strip", "strip_left": True, "strip_right": True},
            {"type": "Prepend", "prepend": "_"},
        ],
    }
    reference, core = reference_normalizer(entry), _core.Normalizer(steps)
    assert isinstance(reference, normalizers.Normalizer)
    for _ in range(3000):
        text = "".join(random.choice("ab é ﬁ\u3000\t\n\u0308中") for _ in range(random.randrange(9)))
        expected = reference.normalize_str(text).encode()
        assert core.apply(text) == expected, ascii(text)
        for cut in core.cuts(text):
            left, right = text.encode()[:cut], text.encode()[cut:]
            assert core.apply(left) + core.apply(right, at_start=False) == expected, (ascii(text), cut)


def test_a_map_that_ends_early_is_refused() -> None:
    content = charsmap({"ab": "x", "é": "e", "\u3000": " "})
    trie = 4 + struct.unpack_from("<I", content)[0]
    for size in [*range(40), *range(40, trie, 97), trie - 1]:
        with pytest.raises(InputError, match="charsmap"):
            _core.Normalizer([("precompiled", content[:size])])
    for size in range(trie, len(content)):  # the last replacement may be shorter, and the others not be there
        try:
            _core.Normalizer([("precompiled", content[:size])]).apply("ab é\u3000")
        except InputError:
            continue


def test_lengths_that_lie_are_refused_before_memory_is_taken() -> None:
    content = charsmap({"ab": "x"})
    for size in (0, 3, 0x7FFFFFFC, 0xFFFFFFFC, 0xFFFFFFFF, len(content)):
        with pytest.raises(InputError, match="charsmap"):
            _core.Normalizer([("precompiled", struct.pack("<I", size) + content[4:])])


def test_flipped_bits_are_refused_or_give_some_text() -> None:
    random = Random(6)
    content = charsmap({"ab": "x", "é": "e", "\u3000": " ", "a\u0308": "中"})
    used = [i for i, byte in enumerate(content) if byte] + [*range(len(content) - 12, len(content))]
    refused = 0
    for _ in range(3000):
        damaged = bytearray(content)
        for _ in range(random.choice([1, 1, 3])):
            damaged[random.choice(used)] ^= 1 << random.randrange(8)
        try:
            core = _core.Normalizer([("precompiled", bytes(damaged))])
        except InputError as error:
            refused += 1
            assert "charsmap" in str(error)
            continue
        core.apply("ab é\u3000a\u0308 abc " * 3)
        core.apply_with_origins("ab é\u3000a\u0308 abc " * 3)
    assert 100 < refused < 3000


def test_a_long_cluster_is_read_in_reasonable_time() -> None:
    content = charsmap({"a": "x", "\u0301": ""})
    text = "a" + "\u0301" * 200_000 + "b"
    assert _core.Normalizer([("precompiled", content)]).apply(text) == b"xb"

"""Test the native scanners against the split patterns that they implement.

Ids are compared with tiktoken's. Pretoken boundaries are compared with the `regex` module, on characters that have the
same class in its newer Unicode version.
"""

from __future__ import annotations

import random
from itertools import product

import pytest
import regex
import tiktoken
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from bpe import Tokenizer, _core
from bpe.patterns import PATTERNS, SCANNED, Pattern
from bpe.published_patterns import GPT2_POSSESSIVE
from support.references import (
    CODE_POINTS,
    PECULIAR,
    any_text,
    broken_bytes,
    is_pinned,
    peculiar_text,
    pinned_characters,
)

REGEXES = {name: regex.compile(pattern.text) for name, pattern in SCANNED.items()}

each_pattern = pytest.mark.parametrize("pattern", SCANNED.values(), ids=SCANNED.keys())


def ends_by_regex(pattern: Pattern, text: str) -> list[int]:
    """Return the ends of the pretokens in bytes, by the pattern's regular expression."""
    assert pattern.name is not None
    return _ends(REGEXES[pattern.name], text)


def _ends(compiled: regex.Pattern[str], text: str) -> list[int]:
    ends = []
    position = 0
    for match in compiled.finditer(text):
        position += len(match.group().encode("utf-8", "surrogateescape"))
        ends.append(position)
    return ends


def ends_by_scanner(pattern: Pattern, text: str | bytes) -> list[int]:
    """Return the ends of the pretokens by the native scanner, after checking that all kernels agree."""
    assert pattern.scanner is not None
    best, *others = [_core.scan(pattern.scanner, text, kernel).tolist() for kernel in _core.kernels()]
    assert all(ends == best for ends in others)
    return best


@pytest.mark.slow
def test_peculiar_characters_have_the_same_class_in_the_core_and_the_regex_module() -> None:
    assert is_pinned(PECULIAR)


@each_pattern
@given(text=any_text.filter(is_pinned) | peculiar_text)
@example(text="a  \n \n  b \t")
@example(text="\n  ")
@example(text=" \r\n\r \u3000")
@example(text="it'\u017fit'ſs 'Kk \u212a's'LL'lL've'")
@example(text=" '' 's's'")
def test_texts_of_peculiar_characters_are_split_by_the_pattern(pattern: Pattern, text: str) -> None:
    assert ends_by_scanner(pattern, text) == ends_by_regex(pattern, text)


@each_pattern
@given(data=st.data())
def test_texts_of_any_characters_are_split_by_the_pattern(pattern: Pattern, data: st.DataObject) -> None:
    characters = pinned_characters()
    places = data.draw(st.lists(st.integers(0, len(characters) - 1), max_size=30))
    text = "".join(characters[place] for place in places)
    assert ends_by_scanner(pattern, text) == ends_by_regex(pattern, text)


@each_pattern
def test_all_short_texts_of_eight_kinds_of_characters_are_split_by_the_pattern(pattern: Pattern) -> None:
    """Check all 37,449 texts of up to five of eight characters, one of each kind."""
    texts = [""]
    newest = texts
    for _ in range(5):
        newest = [text + character for text in newest for character in "as1 \t\n.'"]
        texts = texts + newest
    wrong = [text for text in texts if ends_by_scanner(pattern, text) != ends_by_regex(pattern, text)]
    assert wrong == []


# Pieces of text around the seam between two blocks of 64 bytes.
SEAMS = [
    *("a", "'s", "'ll", "'LL", "'\u017f", "é", "日本", "Жд", "한", "👩", "\u0301", "12", "1234", "٣٤٥", "½"),
    *(" ", "  ", "\n", " \n", "\n ", "\r\n\r\n", "\t", "\u00a0", "\u3000 ", "\u0085", "\u2028"),
    *(".", "?!\n", " .", "\0", "«»", "/", "!\n/", "\n/x"),
    *("ABC", "aBc", "Ünï", "中AB", "AB中c", "ǅa", "ʰ", "don't", "WE'LL", "❤\ufe0f", "!!\u0301a"),
    *("жЖ", "aʰ\u0301B", "i's's", "i'ſS", "!\n//.", " !\u0301\n/\u0301", "𐐨𐐀"),
]

# One character of each kind that o200k distinguishes within words, and characters that may surround or divide a word.
CASES = "aSЖʰ日\u0301'/! \n1"


@each_pattern
@pytest.mark.parametrize("filler", ["a", " ", ".", "\n", "1", "é", "日", "Ж", "\u3000", "👩"])
def test_pretokens_at_the_seams_of_blocks_are_split_by_the_pattern(pattern: Pattern, filler: str) -> None:
    """Check every piece at every offset around the first two seams, after and before a run."""
    wrong = []
    for piece in SEAMS:
        for length in [*range(54, 68), *range(122, 130)]:
            before = filler * (length // len(filler.encode()))
            for text in (before + piece, before + piece + "x", before + piece + filler * 70):
                if ends_by_scanner(pattern, text) != ends_by_regex(pattern, text):
                    wrong.append(text)
    assert wrong == []


@each_pattern
def test_all_combinations_of_four_characters_are_split_by_the_pattern_within_long_texts(
    pattern: Pattern,
) -> None:
    """Check all 20,736 texts of four characters of `CASES`, joined by each separator, at random offsets in a block."""
    generator = random.Random(0)
    pieces = ["".join(piece) for piece in product(CASES, repeat=4)]
    wrong = []
    for between in ("Na", "na", "日", "!!", "\u0301", "1 "):
        generator.shuffle(pieces)
        for start in range(0, len(pieces), 48):
            text = between.join(pieces[start : start + 48])
            if ends_by_scanner(pattern, text) != ends_by_regex(pattern, text):
                wrong.append(text)
    assert wrong == []


@each_pattern
def test_long_texts_of_all_kinds_are_split_by_the_pattern(pattern: Pattern) -> None:
    generator = random.Random(0)
    for _ in range(60):
        kinds = generator.sample([*SEAMS, *PECULIAR], generator.randint(2, 12))
        text = "".join(piece * generator.choice((1, 1, 2, 3, 30)) for piece in generator.choices(kinds, k=150))
        assert ends_by_scanner(pattern, text) == ends_by_regex(pattern, text)
        content = bytearray(text.encode())
        for place in generator.sample(range(len(content)), 10):
            content[place] = generator.choice(b"\xc3\x80\xbf\xd0\xe5\xe9\xeb\xf0\xf4\xff a'")
        decoded = content.decode("utf-8", "surrogateescape")
        if is_pinned(decoded):
            assert ends_by_scanner(pattern, bytes(content)) == ends_by_regex(pattern, decoded)


@pytest.mark.slow
@given(text=any_text)
def test_both_forms_of_the_gpt2_pattern_split_equally(text: str) -> None:
    """tiktoken writes the pattern with possessive quantifiers; both forms are recognized as the same pattern."""
    assert _ends(regex.compile(GPT2_POSSESSIVE), text) == ends_by_regex(PATTERNS["gpt2"], text)


def numbers_first_then_gpt2(text: str) -> list[int]:
    """Return the ends of the pretokens when digits are split off first, then each piece is split by GPT-2's pattern."""
    ends, begin = [], 0
    for piece in regex.split(r"(\p{N})", text):
        ends += [begin + end for end in _ends(REGEXES["gpt2"], piece)]
        begin += len(piece.encode())
    return ends


def test_smollm_as_one_expression_splits_all_short_texts_like_its_two_steps() -> None:
    """Check all 37,449 texts of up to five of eight characters."""
    pattern = PATTERNS["smollm"]
    texts = ("".join(characters) for length in range(6) for characters in product("as1² \n.'", repeat=length))
    wrong = [text for text in texts if ends_by_regex(pattern, text) != numbers_first_then_gpt2(text)]
    assert wrong == []


@given(text=any_text.filter(is_pinned) | peculiar_text)
@example(text="a  1 \n2\t\t３　　½ ' 's1's \n")
def test_the_smollm_scanner_splits_like_its_two_steps(text: str) -> None:
    assert ends_by_scanner(PATTERNS["smollm"], text) == numbers_first_then_gpt2(text)


# Numbers added in Unicode 17: `tokenizers` recognizes them, tiktoken does not yet.
NEW_NUMBERS = {*map(chr, range(0x11DE0, 0x11DEA)), *map(chr, range(0x16FF4, 0x16FF7))}

SMOLLM_STEPS = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)


def pieces_by_tokenizers(text: str) -> list[int]:
    ends, size = [], 0
    for piece, _ in SMOLLM_STEPS.pre_tokenize_str(text):  # a character for each byte
        size += len(piece)
        ends.append(size)
    return ends


@given(text=any_text | peculiar_text)
@example(text="a  1 \n2\t\t３　　½ ' 's1's \n")
def test_the_smollm_scanner_splits_like_tokenizers(text: str) -> None:
    assume(NEW_NUMBERS.isdisjoint(text) and "\ud800" not in text)
    text = text.encode("utf-8", "replace").decode()
    assert ends_by_scanner(PATTERNS["smollm"], text) == pieces_by_tokenizers(text)


def test_tokenizers_recognizes_the_same_numbers_except_those_of_a_newer_unicode() -> None:
    digits = pre_tokenizers.Digits(individual_digits=True)
    numbers: set[str] = set()
    for start in range(0, len(CODE_POINTS), 4096):
        text = "a".join(map(chr, CODE_POINTS[start : start + 4096]))
        numbers.update(piece for piece, _ in digits.pre_tokenize_str(f"aa{text}aa") if len(piece) == 1)
    ours = {chr(point) for point in CODE_POINTS if _core.classes_of(point) & 8}
    assert ours <= numbers
    assert numbers - ours - {"a"} <= NEW_NUMBERS


@each_pattern
@given(text=broken_bytes())
@example(text=b"a\xc3")
@example(text=b"\xf0\x9f\x98a")
@example(text=b"'\xc5")
@example(text=b"\xe3\x80\xe3\x80\x80")
@example(text=b"\xed\xa0\x80\xed\xb0\x80")
def test_a_byte_that_is_not_utf8_is_split_like_a_surrogate_escape(pattern: Pattern, text: bytes) -> None:
    decoded = text.decode("utf-8", "surrogateescape")
    assume(is_pinned(decoded))
    assert ends_by_scanner(pattern, text) == ends_by_regex(pattern, decoded)


@given(text=any_text)
def test_any_text_has_the_ids_of_tiktoken_with_every_pattern(
    pair: tuple[Tokenizer, tiktoken.Encoding], text: str
) -> None:
    tokenizer, reference = pair
    assert tokenizer.encode_ordinary(text) == reference.encode_ordinary(text)


@pytest.mark.slow
def test_code_points_in_every_context_have_the_ids_of_tiktoken(pair: tuple[Tokenizer, tiktoken.Encoding]) -> None:
    """Check after a letter, a space, a newline and a mark, and before a contraction and white space.

    Check all code points of planes 0 and 1. In the other planes, whose classes test_unicode.py checks one by one, check
    the code points around each change of the class.
    """
    tokenizer, reference = pair
    points = [
        point
        for point in CODE_POINTS
        if point < 0x20000 or len({_core.classes_of(p) for p in range(point - 1, min(point + 2, 0x110000))}) > 1
    ]
    size = 1024
    texts = []
    for start in range(0, len(points), size):
        characters = map(chr, points[start : start + size])
        texts.append("".join(f"q{c}'s1{c} {c}\n{c}?{c} \nq" for c in characters))
    ours = tokenizer.encode_ordinary_batch(texts)
    theirs = reference.encode_ordinary_batch(texts, num_threads=2)
    wrong = [hex(points[i * size]) for i in range(len(texts)) if ours[i] != theirs[i]]
    assert wrong == [], "these are the first code points of the batches that differ"


@each_pattern
@pytest.mark.parametrize("run", [" ", "\n", "\u3000", "a", "1", ".", "'", " \n", "'s", " a", "\r\n\t", "\xa0."])
def test_the_pretokens_of_a_long_run_cover_it_without_gaps(pattern: Pattern, run: str) -> None:
    text = run * 300_000
    ends = ends_by_scanner(pattern, text)
    assert ends[-1] == len(text.encode())
    assert all(begin < end for begin, end in zip(ends, ends[1:], strict=False))


def test_an_unknown_pattern_or_kernel_is_refused() -> None:
    for number in (6, 99, 256, -1):
        with pytest.raises((ValueError, RuntimeError)):
            _core.scan(number, "text")
    with pytest.raises(ValueError, match="kernel"):
        _core.scan(0, "text", "abacus")


def test_the_plain_kernel_is_always_available() -> None:
    assert _core.kernels()[-1] == "plain"

"""Generate normal_tables.inc: what the normalizers of Hugging Face's tokenizers do to each code point.

Each of them follows the Unicode version of the library that it is built on, and these versions differ. So the data is
found by asking the pinned version of ``tokenizers``:

    pip install tokenizers==0.23.3
    python bpe/core/text/generate_normal.py

All tables by code point have two stages, as in generate_unicode.py.

- ``kForm*``: decompositions, combining classes and composition, for NFC, NFD, NFKC and NFKD.
- ``kLower*``: lowercase, as the distance to the lowercase character.
- ``kNormalClass*``: the sets of characters that StripAccents, BertNormalizer and Strip name.
- ``kGrapheme*``: how characters join to grapheme clusters, for Precompiled.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import normalizers

TOKENIZERS_VERSION = "0.23.3"
CODE_POINTS = 0x110000
HANGUL = range(0xAC00, 0xD7A4)  # composed and decomposed by arithmetic

# FormFlag in normal_forms.cpp has the same numbers. For each form NFD, NFKD, NFC, NFKC, from the lowest bit: whether
# the character can be changed, and whether a part of the text that is normalized by itself can begin with it.
CHANGES = 1
STARTS = 16
SECOND = 256  # composes with a character before it
FIRST = 512  # composes with a character after it

# NormalClass in normal_classes.hpp has the same numbers.
MARK = 1  # what StripAccents removes
NONSPACING = 2  # what BertNormalizer's strip_accents removes
REMOVED = 4  # what BertNormalizer's clean_text removes
BERT_SPACE = 8  # what it makes a space
SPACE = 16  # what Strip removes

# Grapheme in graphemes.hpp has the same numbers: a kind, and in the higher bits the Indic_Conjunct_Break.
OTHER, CONTROL, EXTEND, SPACING, JOINER, PREPEND, L, V, T, LV, LVT, PICTURE = range(12)
CONSONANT, CONJUNCT_EXTEND, LINKER = 16, 32, 48


def characters() -> Iterable[str]:
    """Return every code point that is no surrogate."""
    return (chr(point) for point in range(CODE_POINTS) if not 0xD800 <= point < 0xE000)


# --- NFC, NFD, NFKC, NFKD ---

nfd = normalizers.NFD().normalize_str
nfkd = normalizers.NFKD().normalize_str
nfc = normalizers.NFC().normalize_str
nfkc = normalizers.NFKC().normalize_str


def combining_classes() -> dict[str, int]:
    """Return a number for each combining mark that sorts as its combining class does."""
    # U+0334 has the class 1, the lowest, and U+0345 the highest, 240.
    marks = [c for c in characters() if nfd(c) == c and ("a" + "\u0345" + c != nfd("a\u0345" + c) or c == "\u0345")]
    marks += [c for c in characters() if nfd(c) == c and c not in set(marks) and nfd("a" + c + "\u0334")[1] == "\u0334"]
    groups: list[str] = []  # the first mark found of each class
    members: dict[str, str] = {}
    for mark in marks:
        for group in groups:
            if nfd("a" + mark + group)[1] == mark and nfd("a" + group + mark)[1] == group:
                members[mark] = group
                break
        else:
            groups.append(mark)
            members[mark] = mark
    position = {group: sum(nfd("a" + group + other)[1] == other != group for other in groups) for group in groups}
    return {mark: position[group] + 1 for mark, group in members.items()}


def compositions() -> dict[tuple[str, str], str]:
    """Return what each pair of characters composes to, without Hangul."""
    pairs = {}
    for c in characters():
        parts = nfd(c)
        if parts != c and nfc(c) == c and ord(c) not in HANGUL:
            pair = (nfc(parts[:-1]), parts[-1])
            if nfc(pair[0] + pair[1]) != c or len(pair[0]) != 1:
                raise SystemExit(f"U+{ord(c):04X} is not composed of two characters")
            pairs[pair] = c
    return pairs


def forms() -> str:
    """Return the tables of the normalization forms."""
    classes = combining_classes()
    pairs = compositions()
    jamo = {chr(point) for point in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    firsts = {first for first, _ in pairs} | {chr(point) for point in range(0x1100, 0x1113)}
    firsts |= {chr(point) for point in HANGUL if (point - HANGUL.start) % 28 == 0}
    seconds = {second for _, second in pairs} | jamo
    pool = ""
    records: dict[tuple[int, ...], int] = {}
    index_of = []
    for point in range(CODE_POINTS):
        if 0xD800 <= point < 0xE000:
            index_of.append(0)
            continue
        c = chr(point)
        flags = (SECOND if c in seconds else 0) | (FIRST if c in firsts else 0)
        parts = [nfd(c), nfkd(c)]
        for form, (result, part) in enumerate(zip((nfd(c), nfkd(c), nfc(c), nfkc(c)), parts * 2, strict=True)):
            composes = form >= 2
            flags |= (CHANGES << form) * (result != c or (composes and c in seconds))
            flags |= (STARTS << form) * (part[0] not in classes and not (composes and part[0] in seconds))
        places = []
        for part in parts:
            if part == c or point in HANGUL:
                places += [0, 0]
                continue
            if part not in pool:
                pool += part
            places += [pool.index(part), len(part)]
        record = (*places, classes.get(c, 0), flags)
        index_of.append(records.setdefault(record, len(records)))
    by_pair = sorted((ord(first), ord(second), ord(c)) for (first, second), c in pairs.items())
    rows = ",\n".join("    {" + ", ".join(map(str, record)) + "}" for record in records)
    return "\n".join(
        [
            two_stages("Form", index_of, "std::uint16_t"),
            f"inline constexpr FormRecord kFormRecords[{len(records)}] = {{\n{rows}\n}};",
            array("kFormPool", [ord(c) for c in pool], "char32_t"),
            array("kFormPairs", [point for pair in by_pair for point in pair], "char32_t"),
        ]
    )


# --- lowercase and sets of characters ---


def lowercase() -> str:
    """Return the table of lowercase characters."""
    lower = normalizers.Lowercase().normalize_str
    long = {c: lower(c) for c in characters() if len(lower(c)) > 1}
    if long != {"\u0130": "i\u0307"}:
        raise SystemExit(f"normal_steps.cpp knows no other lowercase of several characters: {long}")
    distances: dict[int, int] = {0: 0}
    index_of = [0] * CODE_POINTS
    for c in characters():
        distance = ord(lower(c)) - ord(c) if c not in long else 0
        index_of[ord(c)] = distances.setdefault(distance, len(distances))
    return (
        two_stages("Lower", index_of, "std::uint8_t") + "\n" + array("kLowerDistances", list(distances), "std::int32_t")
    )


def normal_classes() -> str:
    """Return the table of the sets of characters."""
    strip_accents = normalizers.StripAccents().normalize_str
    strip = normalizers.Strip().normalize_str
    options = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    accents = normalizers.BertNormalizer(**options | {"strip_accents": True}).normalize_str
    clean = normalizers.BertNormalizer(**options | {"clean_text": True}).normalize_str
    classes = [0] * CODE_POINTS
    for c in characters():
        classes[ord(c)] = (
            MARK * (strip_accents(c) == "")
            | NONSPACING * (nfd(c) == c and accents(c) == "")
            | REMOVED * (clean(c) == "")
            | BERT_SPACE * (clean(c) == " ")
            | SPACE * (strip(c) == "")
        )
    return two_stages("NormalClass", classes, "std::uint8_t")


# --- grapheme clusters ---


def cluster_counter() -> normalizers.Normalizer:
    """Return a normalizer that makes a Z of each cluster of fewer than 6 bytes, and of each character of the others."""
    # The map has each single byte as a key, and the first key that a cluster begins with counts. A trie of one level:
    # unit 0 has its children at 256 ^ byte, and the value of each is at 512 ^ byte.
    units = [0] * 1024
    units[0] = 256 << 10
    for byte in range(1, 256):
        units[256 ^ byte] = ((256 ^ byte) ^ (512 + byte)) << 10 | 1 << 8 | byte
        units[512 + byte] = 1 << 31
    charsmap = struct.pack("<1025I", 4 * len(units), *units) + b"Z\0"
    entry = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    shell = {"version": "1.0", "added_tokens": [], "normalizer": entry}
    shell["model"] = {"type": "BPE", "vocab": {}, "merges": []}
    normalizer: normalizers.Normalizer = tokenizers.Tokenizer.from_str(json.dumps(shell)).normalizer
    return normalizer


def graphemes() -> str:
    """Return the table of how characters join to grapheme clusters."""
    normalize = cluster_counter().normalize_str
    if (normalize("abc"), normalize("a\u0308")) != ("ZZZ", "Z"):
        raise SystemExit("the map that counts clusters does not work")

    def count(text: str) -> int:
        return len(normalize(text))

    kinds = [0] * CODE_POINTS
    for c in characters():
        kinds[ord(c)] = kind_of(c, count) if c != "\0" else CONTROL
    return two_stages("Grapheme", kinds, "std::uint8_t")


def kind_of(c: str, count: Callable[[str], int]) -> int:
    """Return how a character joins to others, from the number of clusters that it makes with known characters."""
    mark, joiner, ka, virama = "\u0308", "\u200d", "\u0915", "\u094d"
    conjunct = 0
    if count("a" + c) == 1:  # a mark
        if count(ka + c + ka + mark) == 4:
            conjunct = LINKER
        elif count(ka + c + virama + ka + mark) == 5:
            conjunct = CONJUNCT_EXTEND
        if count("©" + c + "©" + mark) == 4:
            return JOINER | conjunct
        return (EXTEND if count("©" + c + joiner + "©" + mark) == 5 else SPACING) | conjunct
    if count(c + mark + mark) == 2:
        return CONTROL
    if count(c + "a") == 1:
        return PREPEND
    if count("©" + joiner + c) == 3:
        return PICTURE
    if count(c + virama + ka + mark) == 4:
        return CONSONANT
    before = (count(c + "\u1100" + mark) == 3, count(c + "\u1161" + mark) == 3, count(c + "\u11a8" + mark) == 3)
    is_syllable = ord(c) in HANGUL  # of the others, some vowels are not in the blocks of Hangul
    return {
        (True, True, False): L,
        (False, True, True): LV if is_syllable else V,
        (False, False, True): LVT if is_syllable else T,
        (False, False, False): OTHER,
    }[before]


# --- writing ---


def array(name: str, values: Sequence[int], kind: str) -> str:
    """Return the definition of an array."""
    width = 28
    lines = (values[start : start + width] for start in range(0, len(values), width))
    content = "\n".join("    " + ", ".join(map(str, line)) + "," for line in lines)
    return f"inline constexpr {kind} {name}[{len(values)}] = {{\n{content}\n}};"


def two_stages(name: str, values: Sequence[int], kind: str) -> str:
    """Return a table by code point: the number of each block of 64 code points, and the blocks."""
    blocks: dict[tuple[int, ...], int] = {}
    block_of = []
    for start in range(0, CODE_POINTS, 64):
        block = tuple(values[start : start + 64])
        block_of.append(blocks.setdefault(block, len(blocks)))
    kind_of_block = "std::uint8_t" if len(blocks) <= 256 else "std::uint16_t"
    joined = [value for block in blocks for value in block]
    return "\n".join([array(f"k{name}BlockOf", block_of, kind_of_block), array(f"k{name}Of", joined, kind)])


def main() -> None:
    """Write normal_tables.inc beside this script.

    Raises:
        SystemExit: When tokenizers is another version than TOKENIZERS_VERSION.
    """
    if tokenizers.__version__ != TOKENIZERS_VERSION:
        raise SystemExit(f"run: pip install tokenizers=={TOKENIZERS_VERSION}")
    tables = [forms(), lowercase(), normal_classes(), graphemes()]
    Path(__file__).with_name("normal_tables.inc").write_text(
        f"// tokenizers {TOKENIZERS_VERSION}. Generated by generate_normal.py; do not edit.\n"
        + "\n".join(tables)
        + "\n",
        encoding="ascii",
    )


if __name__ == "__main__":
    main()

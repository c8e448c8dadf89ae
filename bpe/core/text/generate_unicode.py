"""Write unicode_tables.inc: the class of every code point, from the Unicode 16.0 character database.

The classes decide where text is split, so they must be those of the reference: tiktoken 0.14 splits with a regex
engine built on Unicode 16.0. Python's own ``unicodedata`` follows the interpreter's version, so the data comes from
the ``unicodedata2`` package, pinned:

    pip install unicodedata2==16.0.0
    python bpe/core/text/generate_unicode.py

The table has two stages, as UTF-8 has: ``kBlockOf[code_point >> 6]`` names a block, and a block holds the classes of
64 code points, the range that the last byte of a multi-byte character spans.
"""

from __future__ import annotations

from pathlib import Path

import unicodedata2

UNICODE_VERSION = "16.0.0"

# One bit for each set of characters that a split pattern names; the same numbers stand in unicode.hpp.
LETTER = 1  # \p{L}
UPPER_SET = 2  # [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], the o200k pattern's first set
LOWER_SET = 4  # [\p{Ll}\p{Lm}\p{Lo}\p{M}], its second set
NUMBER = 8  # \p{N}
SPACE = 16  # \s, Unicode's White_Space property
NEWLINE = 32  # [\r\n]

CLASS_OF_CATEGORY = {
    "Lu": LETTER | UPPER_SET,
    "Lt": LETTER | UPPER_SET,
    "Ll": LETTER | LOWER_SET,
    "Lm": LETTER | UPPER_SET | LOWER_SET,
    "Lo": LETTER | UPPER_SET | LOWER_SET,
    "Mn": UPPER_SET | LOWER_SET,
    "Mc": UPPER_SET | LOWER_SET,
    "Me": UPPER_SET | LOWER_SET,
    "Nd": NUMBER,
    "Nl": NUMBER,
    "No": NUMBER,
    "Zs": SPACE,
    "Zl": SPACE,
    "Zp": SPACE,
}


def class_of(code_point: int) -> int:
    if code_point in (0x0A, 0x0D):
        return SPACE | NEWLINE
    if code_point in (0x09, 0x0B, 0x0C, 0x85):  # White_Space among the control characters
        return SPACE
    return CLASS_OF_CATEGORY.get(unicodedata2.category(chr(code_point)), 0)


def rows(values: list[int], width: int) -> str:
    lines = (values[start : start + width] for start in range(0, len(values), width))
    return "\n".join("    " + ", ".join(map(str, line)) + "," for line in lines)


def main() -> None:
    if unicodedata2.unidata_version != UNICODE_VERSION:
        raise SystemExit(f"unicodedata2 {UNICODE_VERSION} is needed, found {unicodedata2.unidata_version}")
    blocks: dict[tuple[int, ...], int] = {}
    block_of = []
    for start in range(0, 0x110000, 64):
        block = tuple(class_of(code_point) for code_point in range(start, start + 64))
        block_of.append(blocks.setdefault(block, len(blocks)))
    classes = [value for block in blocks for value in block]
    Path(__file__).with_name("unicode_tables.inc").write_text(
        f"// Unicode {UNICODE_VERSION}. Written by generate_unicode.py; do not edit.\n"
        f"inline constexpr std::uint16_t kBlockOf[{len(block_of)}] = {{\n{rows(block_of, 28)}\n}};\n"
        f"inline constexpr std::uint8_t kClasses[{len(classes)}] = {{\n{rows(classes, 32)}\n}};\n",
        encoding="ascii",
    )
    print(f"{len(blocks)} blocks, {2 * len(block_of) + len(classes)} bytes")


if __name__ == "__main__":
    main()

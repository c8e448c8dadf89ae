"""Generate unicode.bin: the sets of characters that the two reference engines know by name, and their case folding.

The data comes from the engines themselves: the script searches each name in a text of all characters, with tiktoken
(fancy-regex and Rust's regex) and with tokenizers (Oniguruma). A split pattern must split as they do, in the Unicode
version that they were built with. fonttools has the names of scripts and blocks:

    pip install tiktoken==0.14.0 tokenizers==0.23.3 fonttools
    python bpe/splitting/generate_unicode.py

The file is compressed by zlib. Its first line is JSON: for each engine the number of the set with each name (lower
case, without spaces, hyphens and underscores), the case folding, and how many bytes each set has. The sets follow. A
set is a list of ranges; a range is two numbers: the gap since the range before it, and its length minus one. A number
is written in groups of seven bits, the lowest first; all but its last byte have the highest bit set.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import tiktoken
from fontTools.unicodedata import Blocks, Scripts
from tokenizers import Regex, decoders

CHARACTERS = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))

CATEGORIES = """
L Letter Lu Uppercase_Letter Ll Lowercase_Letter Lt Titlecase_Letter Lm Modifier_Letter Lo Other_Letter LC
Cased_Letter M Mark Combining_Mark Mn Nonspacing_Mark Mc Spacing_Mark Me Enclosing_Mark N Number Nd
Decimal_Number digit Nl Letter_Number No Other_Number P Punctuation punct Pc Connector_Punctuation Pd
Dash_Punctuation Ps Open_Punctuation Pe Close_Punctuation Pi Initial_Punctuation Pf Final_Punctuation Po
Other_Punctuation S Symbol Sm Math_Symbol Sc Currency_Symbol Sk Modifier_Symbol So Other_Symbol Z Separator Zs
Space_Separator Zl Line_Separator Zp Paragraph_Separator C Other Cc Control cntrl Cf Format Co Private_Use Cn
Unassigned""".split()  # noqa: SIM905
PROPERTIES = """
Any ASCII Assigned Alphabetic Alpha ASCII_Hex_Digit AHex Bidi_Control Bidi_C Bidi_Mirrored Bidi_M
Case_Ignorable CI Cased Changes_When_Casefolded CWCF Changes_When_Casemapped CWCM Changes_When_Lowercased CWL
Changes_When_NFKC_Casefolded Changes_When_Titlecased CWT Changes_When_Uppercased CWU Dash
Default_Ignorable_Code_Point DI Deprecated Dep Diacritic Dia Emoji Emoji_Component EComp Emoji_Modifier EMod
Emoji_Modifier_Base EBase Emoji_Presentation EPres Extended_Pictographic ExtPict Extender Ext
Full_Composition_Exclusion Grapheme_Base Gr_Base Grapheme_Extend Gr_Ext Grapheme_Link Hex_Digit Hex Hyphen
IDS_Binary_Operator IDS_Trinary_Operator ID_Continue IDC ID_Start IDS Ideographic Ideo Join_Control Join_C
Logical_Order_Exception LOE Lowercase Lower Math Noncharacter_Code_Point NChar Other_Alphabetic OAlpha
Other_Default_Ignorable_Code_Point Other_Grapheme_Extend Other_ID_Continue Other_ID_Start Other_Lowercase
Other_Math Other_Uppercase Pattern_Syntax Pat_Syn Pattern_White_Space Pat_WS Quotation_Mark QMark Radical
Regional_Indicator RI Sentence_Terminal STerm Soft_Dotted SD Terminal_Punctuation Term Unified_Ideograph UIdeo
Uppercase Upper Variation_Selector VS White_Space WSpace XID_Continue XIDC XID_Start XIDS""".split()  # noqa: SIM905
POSIX = (
    "alnum",
    "alpha",
    "ascii",
    "blank",
    "cntrl",
    "digit",
    "graph",
    "lower",
    "print",
    "punct",
    "space",
    "upper",
    "word",
    "xdigit",
)

Ranges = tuple[tuple[int, int], ...]


def loose(name: str) -> str:
    """Return the name without case, spaces, hyphens and underscores."""
    return name.lower().replace(" ", "").replace("_", "").replace("-", "")


def ranges_of(points: Iterable[int]) -> Ranges:
    """Return the ranges of sorted code points. Surrogates count as in the set if their neighbours are."""
    ranges: list[tuple[int, int]] = []
    for point in points:
        if ranges and ranges[-1][1] in (point - 1, 0xD7FF if point == 0xE000 else -1):
            ranges[-1] = ranges[-1][0], point
        else:
            ranges.append((point, point))
    return tuple(ranges)


def find_tiktoken(pattern: str, text: str = CHARACTERS) -> str:
    """Return the matches of a pattern, one after another, as tiktoken finds them."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return bytes(encoding.encode_ordinary(text)).decode()


def find_tokenizers(pattern: str, text: str = CHARACTERS) -> str:
    """Return the characters that match an item of a class, as tokenizers finds them.

    A decoder removes the others; it takes a tenth of the time of a pre-tokenizer, which keeps offsets.
    """
    return str(decoders.Replace(Regex(f"[^{pattern}]+"), "").decode([text]))


Find = Callable[..., str]
FIND: dict[str, Find] = {"tiktoken": find_tiktoken, "tokenizers": find_tokenizers}


def find_folded(pattern: str, text: str) -> str:
    """Return the characters of a text that match a pattern, as tokenizers finds them."""
    lines = "\n".join(text)  # so that no two of them match as one character
    return str(decoders.Replace(Regex(f"(?:(?!{pattern})(?m:.))+"), "").decode([lines])).replace("\n", "")


def patterns(engine: str) -> dict[str, str]:
    """Return the pattern that finds the characters of each name."""
    names = [*CATEGORIES, *PROPERTIES, *Scripts.NAMES, *Scripts.NAMES.values()]
    found = {loose(name): rf"\p{{{name}}}" for name in [*names, *POSIX]}
    found |= {f"[:{name}:]": f"[[:{name}:]]" for name in POSIX} | {f"\\{letter}": f"\\{letter}" for letter in "dswh"}
    if engine == "tiktoken":
        scripts = [*Scripts.NAMES, *Scripts.NAMES.values()]
        found |= {f"{key}={loose(name)}": rf"\p{{{key}={name}}}" for key in ("sc", "scx") for name in scripts}
        found |= {f"gc={loose(name)}": rf"\p{{gc={name}}}" for name in CATEGORIES}
    else:
        found |= {"in" + loose(name): rf"\p{{In_{name}}}" for name in Blocks.VALUES if name != "No_Block"}
    return found


def quietly(find: Find, pattern: str) -> str | None:
    """Return what is found, or nothing if the engine refuses the pattern."""
    try:
        return find(pattern)
    except BaseException as error:  # tiktoken and tokenizers raise their own kinds
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return None


def word_at_boundary() -> str:
    r"""Return the characters that ``\b`` of Oniguruma takes for parts of a word, which are not those of ``\w``."""
    text = "".join(f"\n{c}" for c in CHARACTERS if c != "\n")
    return str(decoders.Replace(Regex(r"\n\B[^\n]"), "").decode([text])).replace("\n", "")


def named_sets(engine: str, sets: dict[Ranges, int]) -> dict[str, int]:
    """Return the number of the set with each name that the engine knows."""
    names = {}
    for name, pattern in patterns(engine).items():
        matches = quietly(FIND[engine], pattern)
        if matches is not None:
            names[name] = sets.setdefault(ranges_of(map(ord, matches)), len(sets))
    if engine == "tiktoken":
        return names | {r"\b": names[r"\w"]}
    # Outside of classes, \w and \p{Word} of Oniguruma have six characters more, such as U+00BD.
    alone = sets.setdefault(ranges_of(map(ord, word_at_boundary())), len(sets))
    return names | {name: alone for name in (r"\b", r"\w alone", "word alone")}


def foldings(find: Find) -> list[list[int]]:
    """Return the groups of characters that match each other when case is ignored."""
    changing = quietly(find_tiktoken, r"[\p{CWCM}\p{CWCF}]") or ""
    candidates = set(changing)
    candidates |= {c for c in CHARACTERS if len({c, c.lower(), c.upper(), c.casefold(), c.title()}) > 1}
    candidates |= {other for c in candidates for other in c.lower() + c.upper() + c.casefold() + c.title()}
    text = "".join(sorted(candidates))
    rest = "".join(c for c in CHARACTERS if c not in candidates)
    groups: list[list[int]] = []
    seen: set[str] = set()
    for c in text:
        group = sorted(set(find(rf"(?i:\x{{{ord(c):X}}})", text)))
        if len(group) > 1 and not seen.issuperset(group):
            if not seen.isdisjoint(group):
                raise SystemExit(f"{c!r} is in two groups")
            seen |= set(group)
            groups.append(list(map(ord, group)))
    ranges = "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in ranges_of(map(ord, rest)))
    if set(find(f"(?i:[{ranges}])", text)):
        raise SystemExit("a character that is no candidate changes its case")
    return groups


def expansions() -> dict[str, str]:
    """Return the characters that match several characters when case is ignored, and these, in Oniguruma."""
    found = {}
    for c in CHARACTERS:
        if len(c.casefold()) > 1 and _matches_all(f"(?i:{c})", c.casefold()):
            found[c] = c.casefold()
    return found


def _matches_all(pattern: str, text: str) -> bool:
    """Return whether a pattern matches a whole text in tokenizers."""
    return str(decoders.Replace(Regex(pattern), "").decode([text])) == ""


def number(value: int) -> bytes:
    """Return a number in groups of seven bits."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def packed(ranges: Ranges) -> bytes:
    """Return the bytes of a set."""
    out, end = b"", 0
    for first, last in ranges:
        out += number(first - end) + number(last - first)
        end = last + 1
    return out


def main() -> None:
    """Write unicode.bin beside this script."""
    sets: dict[Ranges, int] = {}
    names = {engine: named_sets(engine, sets) for engine in FIND}
    folds = {"tiktoken": foldings(find_tiktoken), "tokenizers": foldings(find_folded)}
    body = [packed(ranges) for ranges in sets]
    header = {"names": names, "folds": folds, "expansions": expansions(), "sizes": [len(part) for part in body]}
    content = json.dumps(header, separators=(",", ":")).encode() + b"\n" + b"".join(body)
    compressed = zlib.compress(content, 9)
    Path(__file__).with_name("unicode.bin").write_bytes(compressed)
    print(f"{len(sets)} sets, {len(content)} bytes, {len(compressed)} compressed", file=sys.stderr)


if __name__ == "__main__":
    main()

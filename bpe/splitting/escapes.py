"""Escapes that mean a character or a set of characters, inside and outside of classes."""

from __future__ import annotations

from bpe.errors import did_you_mean
from bpe.splitting.excerpts import excerpt
from bpe.splitting.program import Set
from bpe.splitting.scanner import Scanner
from bpe.splitting.sets import complement
from bpe.splitting.unicode import folded, known_names, loose, named_set

_HEX = "0123456789abcdefABCDEF"


def read_character(scanner: Scanner, in_class: bool) -> int | None:
    r"""Read an escape that means one character, such as ``\n``, ``\x41`` or ``\.``, after its backslash.

    Returns:
        The character; None, without skipping anything, if the escape means something else.
    """
    syntax = scanner.syntax
    letter = scanner.peek()
    if letter in syntax.characters:
        scanner.position += 1
        return syntax.characters[letter]
    if letter in syntax.hex_digits:
        return _read_hex(scanner)
    if in_class and letter == "b":
        scanner.position += 1
        return 8
    escapable = not letter.isalnum() and (not in_class or letter.isascii())
    if letter and escapable and not (letter in "<>" and syntax.engine == "tiktoken"):
        scanner.position += 1
        return ord(letter)
    return None


def _read_hex(scanner: Scanner) -> int:
    """Read the digits of an escape by code point, from its letter on."""
    begin = scanner.position - 1
    letter = scanner.next()
    low, high = scanner.syntax.hex_digits[letter]
    braces = letter in scanner.syntax.hex_braces and scanner.take("{")
    if braces:
        low, high = 1, 8
    digits = ""
    while scanner.peek() and scanner.peek() in _HEX and len(digits) < high:
        digits += scanner.next()
    if len(digits) < low or (braces and not scanner.take("}")):
        scanner.refuse(begin, "an escape with too few or too many digits", r"write \x{...} with the code point in hex")
    value = int(digits, 16)
    if value > 0x10FFFF or 0xD800 <= value <= 0xDFFF:
        scanner.refuse(begin, "an escape of a code point that is no character", "write a code point of Unicode")
    return value


def read_set(scanner: Scanner, fold: bool, in_class: bool) -> Set | None:
    r"""Read an escape that means a set, such as ``\d`` or ``\p{L}``, after its backslash.

    Args:
        scanner: The pattern, behind the backslash.
        fold: Whether to add the characters that match when case is ignored.
        in_class: Whether the escape is within brackets, where Oniguruma has other sets for some.

    Returns:
        The set; None, without skipping anything, if the escape means something else.
    """
    begin = scanner.position - 1
    letter = scanner.peek()
    if letter and letter in "dswhDSWH":
        scanner.position += 1
        chars = _named(scanner, f"\\{letter.lower()}", in_class)
        assert chars is not None
        return complement(chars) if letter.isupper() else chars
    if letter not in ("p", "P"):
        return None
    scanner.position += 1
    negated = letter == "P"
    if scanner.take("{"):
        end = scanner.text.find("}", scanner.position)
        if end < 0:
            scanner.invalid(begin, r"\p{ without its }", "close the name with }")
        name = scanner.text[scanner.position : end]
        scanner.position = end + 1
    elif scanner.syntax.one_letter_properties and scanner.peek().isalpha():
        name = scanner.next()
    else:
        scanner.refuse(begin, r"\p without a name in braces", r"write it as \p{L}")
    if name.startswith("^"):
        negated, name = not negated, name[1:]
    chars = _property(scanner, name, begin, in_class)
    chars = folded(scanner.syntax.engine, chars) if fold else chars
    return complement(chars) if negated else chars


def _named(scanner: Scanner, name: str, in_class: bool) -> Set | None:
    """Return the set with a name, inside or outside of a class."""
    alone = None if in_class else named_set(scanner.syntax.engine, f"{name} alone")
    return alone or named_set(scanner.syntax.engine, name)


def _property(scanner: Scanner, name: str, begin: int, in_class: bool) -> Set:
    r"""Return the set with a name in ``\p{...}``."""
    syntax = scanner.syntax
    key, _, value = name.replace(":", "=").partition("=")
    if value:
        prefix = syntax.name_prefixes.get(loose(key))
        found = named_set(syntax.engine, prefix + _plain(scanner, value)) if prefix and not key.endswith("!") else None
    else:
        found = _named(scanner, _plain(scanner, name), in_class)
    if found is None or "[" in name or "\\" in name:
        names = [known for known in known_names(syntax.engine) if known.isalnum()]
        meant = did_you_mean(loose(name), names) if name.isascii() else ""
        remedy = "write its characters as ranges, such as [a-z]"
        scanner.refuse(
            begin,
            rf"the property \p{{{excerpt(name, 40)}}}, which is not known in the {syntax.name} dialect",
            remedy + meant,
        )
    return found


def _plain(scanner: Scanner, name: str) -> str:
    """Return a name as the tables have it."""
    plain = loose(name)
    if scanner.syntax.optional_is and plain.startswith("is") and named_set(scanner.syntax.engine, plain) is None:
        return plain[2:]
    return plain

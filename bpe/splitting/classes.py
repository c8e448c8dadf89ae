"""Classes of characters in brackets, with ranges, nested classes, POSIX names, and set operations."""

from __future__ import annotations

from bpe.splitting.escapes import read_character, read_set
from bpe.splitting.excerpts import excerpt
from bpe.splitting.program import Set
from bpe.splitting.scanner import Scanner
from bpe.splitting.sets import complement, difference, intersection, span, union
from bpe.splitting.unicode import expansions, folded, named_set

_DEEPEST = 50


class _Operand:
    """What has been read since the last set operation."""

    def __init__(self) -> None:
        self.parts: list[Set] = []
        self.after = "start"
        """What was read last: "start" of the operand, "character", "range", "set" (an escape) or "class"."""


def read_class(scanner: Scanner, ignore_case: bool) -> Set:
    """Read a class from its bracket on.

    Args:
        scanner: The pattern, at the bracket.
        ignore_case: Whether the class is to match without regard to case.

    Raises:
        InputError: When the class is not valid, or means something that is not supported.
    """
    begin = scanner.position
    chars, negated = _read_nested(scanner, ignore_case and scanner.syntax.fold_leaves, 0)
    if ignore_case and not scanner.syntax.fold_leaves:
        chars = folded(scanner.syntax.engine, chars)
        if scanner.syntax.has_expansions and not negated and intersection(chars, expansions()[0]):
            scanner.unsupported(
                begin,
                "a class without regard to case with a character that stands for several, such as U+00DF for 'ss'",
                "write both cases into the class instead of (?i)",
            )
    return complement(chars) if negated else chars


def _read_nested(scanner: Scanner, fold: bool, depth: int) -> tuple[Set, bool]:
    """Read a class, which may be part of another; return its items, and whether it is negated."""
    begin = scanner.position
    if depth > _DEEPEST:
        scanner.refuse(begin, f"classes nested deeper than {_DEEPEST}", "write the class without so many brackets")
    scanner.next()
    negated = scanner.take("^")
    first = scanner.position
    result: Set | None = None
    operator = ""
    operand = _Operand()
    while True:
        if not scanner.rest:
            scanner.invalid(begin, "a class without its closing bracket", "close the class with ]")
        at = scanner.position
        found = next((op for op in scanner.syntax.set_operators if scanner.peek(2) == op), "")
        if found or (scanner.peek() == "]" and at != first):
            if operand.after == "start":
                scanner.unsupported(at, "a set operation with nothing on one side", "write a class on both sides of it")
            result = _combined(result, operator, union(*operand.parts))
            if not found:
                scanner.next()
                return result, negated
            scanner.position += 2
            operator, operand = found, _Operand()
        else:
            _read_item(scanner, operand, fold, depth, at == first)


def _combined(left: Set | None, operator: str, right: Set) -> Set:
    """Return the result of a set operation; operations have one precedence and go from left to right."""
    if left is None:
        return right
    if operator == "&&":
        return intersection(left, right)
    if operator == "--":
        return difference(left, right)
    return union(difference(left, right), difference(right, left))


def _read_item(scanner: Scanner, operand: _Operand, fold: bool, depth: int, is_first: bool) -> None:
    """Read the next character, range, set or nested class into the operand."""
    at = scanner.position
    if scanner.peek() == "[":
        operand.parts.append(_read_bracket(scanner, fold, depth))
        operand.after = "class"
        return
    if scanner.peek() == "\\":
        chars = _read_set_escape(scanner, fold)
        if chars is not None:
            if scanner.peek() == "-" and scanner.peek(2) not in ("-]", "--"):
                scanner.invalid(at, "a range that begins with a set", r"write a hyphen as \-")
            operand.parts.append(chars)
            operand.after = "set"
            return
    if scanner.peek() == "-":
        _check_hyphen(scanner, operand, is_first)
    if scanner.peek() == "]":
        _check_bracket(scanner, depth)
    low = high = _read_one(scanner)
    is_range = scanner.peek() == "-" and scanner.peek(2) not in ("-]", "-") and not _is_operator(scanner)
    if is_range and scanner.text[at] != "-":
        scanner.next()
        high = _read_end(scanner, at)
        if low > high:
            scanner.invalid(at, "a range whose end comes before its beginning", "swap the two")
    chars = span(low, high)
    operand.parts.append(folded(scanner.syntax.engine, chars) if fold else chars)
    operand.after = "range" if is_range else "character"


def _is_operator(scanner: Scanner) -> bool:
    return scanner.peek(2) in scanner.syntax.set_operators


def _check_hyphen(scanner: Scanner, operand: _Operand, is_first: bool) -> None:
    r"""Refuse a hyphen that engines read in different ways; ``\-`` is clear to all of them."""
    is_last = scanner.peek(2) == "-]"
    after_whole = operand.after in ("range", "class") and scanner.peek(2) != "--"
    if not (is_last or (is_first and scanner.peek(2) != "--") or after_whole):
        scanner.unsupported(scanner.position, "a hyphen inside of a class that begins no range", r"write it as \-")
    ends_range = scanner.text[scanner.position + 1 : scanner.position + 2] == "-"
    if ends_range:
        scanner.unsupported(scanner.position, "two hyphens in a class", r"write each as \-")


def _check_bracket(scanner: Scanner, depth: int) -> None:
    """Refuse a closing bracket at the beginning of a class where engines disagree."""
    if depth or scanner.peek(2) == "]-":
        scanner.unsupported(scanner.position, "a bracket at the beginning of a class", r"write it as \]")


def _read_one(scanner: Scanner) -> int:
    """Read one character, which may be an escape."""
    at = scanner.position
    if not scanner.take("\\"):
        return ord(scanner.next())
    value = read_character(scanner, in_class=True)
    if value is None:
        escape = "\\" + excerpt(scanner.peek())
        scanner.refuse(at, f"the escape {escape} in a class, which is not known", r"write the character or \x{...}")
    return value


def _read_end(scanner: Scanner, begin: int) -> int:
    """Read the end of a range."""
    if scanner.peek() == "[" or (scanner.peek() == "\\" and scanner.peek(2)[1:] in tuple("dswhDSWHpP")):
        scanner.invalid(begin, "a range that ends with a set", r"write a hyphen as \-")
    return _read_one(scanner)


def _read_set_escape(scanner: Scanner, fold: bool) -> Set | None:
    """Read an escape that means a set; skip nothing if it means a character."""
    scanner.next()
    chars = read_set(scanner, fold, in_class=True)
    if chars is None:
        scanner.position -= 1
    return chars


def _read_bracket(scanner: Scanner, fold: bool, depth: int) -> Set:
    """Read a POSIX name or a nested class."""
    begin = scanner.position
    if scanner.peek(2) == "[:":
        end = scanner.text.find(":]", begin)
        name = scanner.text[begin + 2 : end] if end > 0 else ""
        negated = name.startswith("^")
        chars = named_set(scanner.syntax.engine, f"[:{name.removeprefix('^')}:]")
        if chars is None:
            scanner.refuse(begin, "an unknown name in [: :]", r"write a known one, such as [:alpha:], or \[:")
        scanner.position = end + 2
        chars = folded(scanner.syntax.engine, chars) if fold else chars
    else:
        chars, negated = _read_nested(scanner, fold, depth + 1)
    return complement(chars) if negated else chars

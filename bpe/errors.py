"""The exceptions for wrong input. A command prints their messages as one line, without a traceback."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """An input cannot be used. The message is one line: the input, what is wrong and where, and what to do."""


class ArgumentError(InputError, TypeError):
    """The argument of a function has a value of a wrong type."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the end of a message that asks for the likeliest of some names, or nothing if none is similar."""
    from difflib import get_close_matches  # here, because it would add to the start-up time of every command

    likely = get_close_matches(name, [other for other in names if other != name], 1, 0.7)
    return f"; did you mean {likely[0]}?" if likely else ""

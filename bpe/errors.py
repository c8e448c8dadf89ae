"""The exception for wrong input. A command prints its message as one line, without a traceback."""

from __future__ import annotations


class InputError(ValueError):
    """An input cannot be used. The message is one line: the input, what is wrong and where, and what to do."""

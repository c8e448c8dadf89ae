"""A position in the text of a pattern, and the errors that name it."""

from __future__ import annotations

from typing import NoReturn

from bpe.errors import InputError
from bpe.splitting.dialects import Syntax
from bpe.splitting.excerpts import place


class Scanner:
    """Reads the text of a pattern from left to right."""

    def __init__(self, text: str, syntax: Syntax) -> None:
        self.text = text
        self.syntax = syntax
        self.position = 0

    @property
    def rest(self) -> bool:
        """Whether there is text left."""
        return self.position < len(self.text)

    def peek(self, count: int = 1) -> str:
        """Return the next characters, or fewer at the end of the pattern."""
        return self.text[self.position : self.position + count]

    def take(self, expected: str) -> bool:
        """Skip a text if it comes next, and return whether it does."""
        found = self.text.startswith(expected, self.position)
        if found:
            self.position += len(expected)
        return found

    def next(self) -> str:
        """Return the next character and skip it."""
        self.position += 1
        return self.text[self.position - 1]

    def refuse(self, position: int, problem: str, remedy: str) -> NoReturn:
        """Raise an InputError about the pattern.

        Args:
            position: Where the construct begins, from 0.
            problem: What is wrong, such as "a back reference, which is not supported". The message continues with it
                after "the split pattern has".
            remedy: What to do.
        """
        raise InputError(f"the split pattern has {problem}, {place(self.text, position)}; {remedy}")

    def unsupported(self, position: int, construct: str, remedy: str) -> NoReturn:
        """Raise an InputError about a construct that is valid for the engine, but not supported here."""
        self.refuse(position, f"{construct}, which is not supported", remedy)

    def invalid(self, position: int, problem: str, remedy: str) -> NoReturn:
        """Raise an InputError about a construct that the engine refuses, too."""
        self.refuse(position, f"{problem}, which {self.syntax.name} refuses", remedy)

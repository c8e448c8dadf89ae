"""Text of a model on a terminal: broken into lines between words, and with nothing that the terminal obeys."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from wcwidth import wcwidth

from bpe.columns import columns_of, terminal_columns

# C0 without tab and line feed, DEL, and C1. With them, a model could move the cursor or set the clipboard.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FENCE = re.compile(r"(`{3,}|~{3,})")
_JOINER = "\u200d"
# No line begins with these; it may end before the character in front of them.
_CLOSING = frozenset("、。，．：；！？）］｝〉》」』】〕〗〙〛’”％ー・…‥々ぁぃぅぇぉっゃゅょァィゥェォッャュョ")
_OPENING = frozenset("（［｛〈《「『【〔〖〘〚‘“")
_TAB = 8


def harmless(text: str) -> str:
    """Return the text with control characters as <U+001B>, except for tabs and line breaks."""
    return _CONTROLS.sub(lambda match: f"<U+{ord(match[0]):04X}>", text.replace("\r\n", "\n"))


def terminal_width() -> int:
    """Return the number of columns of the terminal that stdout writes to, which may change at any time."""
    return terminal_columns(sys.stdout)


class Wrapper:
    """Breaks a text that arrives piece by piece into lines, between words or wide characters.

    The last word is held back until it is complete, so that it can begin a new line. A word longer than a line is left
    for the terminal to break, and so are code blocks and the rows of tables, which are to be copied as they are.
    Spaces at a break are dropped. Widths are those of the terminal's cells: 2 for a wide character, 0 for a combining
    character.
    """

    def __init__(self, width: Callable[[], int] = terminal_width) -> None:
        """Start at the beginning of a line.

        Args:
            width: Returns the number of columns of the terminal; asked again for each word.
        """
        self._width = width
        self._column = 0
        self._spaces = ""  # white space in front of the word
        self._word = ""  # held back
        self._is_broken_by_terminal = False  # the rest of a long word, a code block, or the row of a table
        self._line = ""  # the text of the line, without breaks of ours
        self._fence = ""  # what the current code block began with
        self._return = ""  # a carriage return that may belong to a line feed

    def feed(self, text: str) -> str:
        """Return what to print now, given the next piece of the text."""
        text = self._return + text
        self._return = "\r" if text.endswith("\r") else ""
        text = harmless(text.removesuffix("\r") if self._return else text)
        return "".join(map(self._next, text))

    def flush(self) -> str:
        """Return the rest of what to print."""
        rest = "".join(map(self._next, harmless(self._return)))
        self._return = ""
        return rest + self._place()

    def _next(self, character: str) -> str:
        """Return what to print when this character follows."""
        if character == "\n":
            return self._end_line()
        self._line += character
        if self._fence or (self._is_broken_by_terminal and not character.isspace()):
            return self._move(character)
        if character.isspace() and character != "\xa0":
            self._is_broken_by_terminal = self._is_row()
            if self._is_broken_by_terminal:
                return self._place() + self._move(character)
            placed = self._place() if self._word else ""
            self._spaces += character
            return placed
        placed = self._place() if self._word and _may_break(self._word, character) else ""
        self._word += character
        if self._is_row() or (len(self._word) > 1 and columns_of(self._word) > self._width()):
            placed += self._place()
            self._is_broken_by_terminal = True
        return placed

    def _end_line(self) -> str:
        """Return what to print for a line break, and notice where a code block begins or ends."""
        placed = self._place() + "\n"
        text = self._line.strip()
        fence = _FENCE.match(text)
        if self._fence:
            if fence and text == fence[1] and text.startswith(self._fence):
                self._fence = ""
        elif fence and "`" not in text[len(fence[1]) :]:
            self._fence = fence[1]
        self._line, self._column, self._is_broken_by_terminal = "", 0, False
        return placed

    def _is_row(self) -> bool:
        """Return whether the line is the row of a table."""
        return self._line.lstrip().startswith("|")

    def _place(self) -> str:
        """Return the spaces and the word that are held back, after a line break if they do not fit."""
        spaces, word = self._spaces, self._word
        self._spaces = self._word = ""
        end = _end(self._column, spaces)
        if not word:
            return self._move(spaces) if end <= self._width() else ""
        if self._column and end + columns_of(word) > self._width():
            self._column = 0
            return "\n" + self._move(word)
        return self._move(spaces + word)

    def _move(self, text: str) -> str:
        """Move past a text that the terminal breaks where it reaches the margin, and return it."""
        column, width = _end(self._column, text), self._width()
        self._column = column if column <= width else (column - 1) % width + 1
        return text


def _end(column: int, text: str) -> int:
    """Return the column after a text that begins in this column of an endless line."""
    for part in re.split("(\t)", text):
        column += _TAB - column % _TAB if part == "\t" else columns_of(part)
    return column


def _may_break(word: str, following: str) -> bool:
    """Return whether a line may end between a word and the character that follows it, without a space between."""
    last = word[-1]
    if _JOINER in (last, following) or following in _CLOSING or last in _OPENING:
        return False
    if wcwidth(following) <= 0 or "\U0001f3fb" <= following <= "\U0001f3ff":  # a combining character, a skin tone
        return False
    if "\U0001f1e6" <= following <= "\U0001f1ff":  # the second half of a flag
        flags = len(word) - len(word.rstrip("".join(map(chr, range(0x1F1E6, 0x1F200)))))
        return flags > 0 and flags % 2 == 0
    if wcwidth(following) == 2:
        return True
    base = next((character for character in reversed(word) if wcwidth(character) > 0), "")
    return bool(base) and wcwidth(base) == 2 and not "\uff00" <= base <= "\uff60"

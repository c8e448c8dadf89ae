"""How tokens and tokenizers look to a person: on a terminal, as plain text, and in a notebook.

Token bytes are untrusted. On a terminal, control characters are shown instead of obeyed; in HTML, they are escaped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bpe.vocabulary import Vocabulary

# Background colors of successive tokens: the number in the 256-color palette, and the same color in HTML. The text is
# black, so that it can be read in light and dark terminals and notebooks.
_COLORS = ((152, "#afd7d7"), (223, "#ffd7af"), (182, "#d7afd7"), (225, "#ffd7ff"), (189, "#d7d7ff"))
_MOST_IN_HTML = 10_000  # tokens; a browser slows down with more

# A card takes the colors of the notebook; only its lines have a color, which suits light and dark backgrounds.
_CARD = "border:1px solid #8888;border-radius:6px;padding:8px 12px;display:inline-block;max-width:60em"
_LABEL = "text-align:left;vertical-align:top;padding:1px 12px 1px 0;white-space:nowrap"
_VALUE = "text-align:left;vertical-align:top;padding:1px 12px 1px 0;white-space:pre-wrap"


def _escaped(text: str) -> str:
    from html import escape  # here, because it would add to the start-up time of every command

    return escape(text)


def painted(piece: str, color: int) -> str:
    """Return the text on a background from the 256-color palette.

    The background ends before a line break, so that it does not extend to the edge of the terminal.
    """
    lines = piece.split("\n")
    return "\n".join(f"\x1b[30;48;5;{color}m{line}\x1b[0m" if line else "" for line in lines)


def visible(token: bytes, newline: str = "⏎") -> str:
    """Return a token as text, with invalid bytes as <C3>, control characters as <U+0007>, and line breaks as given."""
    shown = []
    for character in token.decode("utf-8", "surrogateescape"):
        if character == "\n":
            shown.append(newline)
        elif "\udc80" <= character <= "\udcff":
            shown.append(f"<{ord(character) - 0xDC00:02X}>")
        elif character.isprintable():
            shown.append(character)
        else:
            shown.append(f"<U+{ord(character):04X}>")
    return "".join(shown)


class ShownText:
    """A text with its tokens marked, as `Tokenizer.show` returns it.

    A notebook shows it in color. `print` and the interpreter show it in color on a terminal, unless NO_COLOR is set,
    and with | between tokens elsewhere.
    """

    def __init__(self, ids: Sequence[int], tokens: Sequence[bytes]) -> None:
        """Mark the tokens of a text.

        Args:
            ids: The id of each token.
            tokens: The bytes of each token.
        """
        self.ids: list[int] = list(ids)
        """The id of each token."""
        self.tokens: list[bytes] = list(tokens)
        """The bytes of each token."""

    @property
    def summary(self) -> str:
        """The numbers of tokens and bytes, and their ratio."""
        size = sum(map(len, self.tokens))
        return f"{len(self.ids):,} tokens, {size:,} bytes, {size / max(len(self.ids), 1):.2f} bytes per token"

    def plain(self) -> str:
        """Return the text with | between its tokens."""
        return "|".join(self._pieces())

    def colored(self) -> str:
        """Return the text with escape codes that give the tokens alternating background colors on a terminal."""
        return "".join(painted(piece, _COLORS[i % len(_COLORS)][0]) for i, piece in enumerate(self._pieces()))

    def _pieces(self) -> list[str]:
        return [visible(token, newline="⏎\n") for token in self.tokens]

    def __str__(self) -> str:
        is_colored = sys.stdout is not None and sys.stdout.isatty() and "NO_COLOR" not in os.environ
        return self.colored() if is_colored else self.plain()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        spans = []
        for i, (id, piece) in enumerate(zip(self.ids[:_MOST_IN_HTML], self._pieces(), strict=False)):
            style = f"background:{_COLORS[i % len(_COLORS)][1]};color:#000"
            spans.append(f'<span title="{id}" style="{style}">{_escaped(piece)}</span>')
        left_out = len(self.ids) - _MOST_IN_HTML
        end = f"<div>… and {left_out:,} more tokens</div>" if left_out > 0 else ""
        text = f'<div style="white-space:pre-wrap;font-family:monospace;line-height:1.6">{"".join(spans)}</div>'
        return f"{text}{end}<small>{self.summary}</small>"


def described(vocabulary: Vocabulary) -> str:
    """Return a tokenizer in one line, as `repr` shows it."""
    parts = [f"{vocabulary.token_count:,} tokens", f"pattern {_pattern(vocabulary)}", _specials(vocabulary, 3)]
    return f"<Tokenizer {vocabulary.name!r}: {', '.join(parts)}>"


def card(vocabulary: Vocabulary) -> str:
    """Return a tokenizer as a table in HTML, as a notebook shows it."""
    rows = [
        ("tokens", f"{vocabulary.token_count:,}"),
        ("pattern", _pattern(vocabulary)),
        ("special", _specials(vocabulary, 12).removeprefix("special ")),
        ("begins with", _named(vocabulary, vocabulary.boundaries.prefix_ids)),
        ("ends with", _named(vocabulary, vocabulary.boundaries.eos_ids)),
        ("longest", _longest(vocabulary)),
    ]
    lines = "".join(
        f'<tr style="background:none"><th style="{_LABEL}">{label}</th><td style="{_VALUE}">{_escaped(value)}</td></tr>'
        for label, value in rows
    )
    title = f"<b>Tokenizer {_escaped(_printable(vocabulary.name))}</b>"
    return f'<div style="{_CARD}">{title}<table style="border:none;margin:4px 0 0">{lines}</table></div>'


def _printable(text: str) -> str:
    return visible(text.encode("utf-8", "replace"))


def _pattern(vocabulary: Vocabulary) -> str:
    name, text = vocabulary.pattern.name, vocabulary.pattern.text
    if name is not None:
        return name
    return _printable(text) if len(text) <= 40 else f"{_printable(text[:37])}..."


def _specials(vocabulary: Vocabulary, most: int) -> str:
    tokens = [_printable(token) for token in vocabulary.special_tokens]
    if not tokens:
        return "no special tokens"
    if len(tokens) <= most:
        return f"special {', '.join(tokens)}"
    return f"{len(tokens):,} special tokens" + ("" if most < 4 else f": {', '.join(tokens[:most])}, ...")


def _named(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    return ", ".join(f"{_token(vocabulary, id)} ({id})" for id in ids) or "–"


def _token(vocabulary: Vocabulary, id: int) -> str:
    try:
        return visible(vocabulary.encoder.bytes_of(id))
    except KeyError:
        return "no token"


def _longest(vocabulary: Vocabulary) -> str:
    longest = sorted(vocabulary.sorted_tokens, key=len, reverse=True)[:3]
    return ", ".join(repr(visible(token[:40])) for token in longest)

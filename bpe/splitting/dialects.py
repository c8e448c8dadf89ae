"""What differs between the engines, as data: flags, escapes, and the meaning of anchors and quantifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from bpe.splitting.unicode import Engine

_COMMON = {"a": 7, "e": 0x1B, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


class Syntax(NamedTuple):
    """The rules of one engine where the engines differ."""

    engine: Engine
    name: str
    """The name of the engine in messages."""
    flags: Mapping[str, Literal["ignore_case", "dot_all", "multi_line", "extended", "nothing"]]
    """What the letters of ``(?...)`` set."""
    flag_opens_group: bool
    """Whether ``a(?i)b|c`` means ``a(?i:b|c)``. Otherwise the flag holds until the group ends: ``a(?i:b)|(?i:c)``."""
    lines: bool
    """Whether ``^`` and ``$`` are always those of lines, and ``^`` never matches after the last line's end."""
    possessive_braces: bool
    """Whether ``{n,m}+`` is possessive, and ``{n}?`` lazy. Otherwise these repeat the repetition: `+` and `?`."""
    set_operators: tuple[str, ...]
    fold_leaves: bool
    """Whether case is folded for each item of a class. Otherwise a class is folded as a whole, before ``^``."""
    folds_properties: bool
    r"""Whether ``(?i)`` has an effect on ``\p{...}``."""
    has_expansions: bool
    """Whether one character matches several when case is ignored, such as U+00DF and "ss"."""
    name_prefixes: Mapping[str, str]
    r"""The keys of ``\p{key=value}``, and what stands before the names of their sets in the tables."""
    optional_is: bool
    r"""Whether the name in ``\p{...}`` may begin with "is"."""
    characters: Mapping[str, int]
    """Escapes of one letter, and the characters that they mean."""
    hex_digits: Mapping[str, tuple[int, int]]
    r"""How many digits may follow the escapes without braces: ``\x``, ``\u``."""
    hex_braces: str
    """The letters of the escapes that may have braces."""
    one_letter_properties: bool
    r"""Whether ``\pL`` is ``\p{L}``."""
    named_groups: tuple[str, ...]
    looks_in_look_behind: bool
    """Whether look-around may be part of look-behind."""
    line_end_at_end: Literal["any", "one"]
    r"""How many line feeds ``\Z`` may leave before the end of the text."""


TIKTOKEN = Syntax(
    engine="tiktoken",
    name="tiktoken",
    flags={"i": "ignore_case", "s": "dot_all", "m": "multi_line", "x": "extended", "u": "nothing"},
    flag_opens_group=False,
    lines=False,
    possessive_braces=True,
    set_operators=("&&", "--", "~~"),
    fold_leaves=True,
    folds_properties=True,
    has_expansions=False,
    name_prefixes={
        **dict.fromkeys(("gc", "generalcategory"), "gc="),
        **dict.fromkeys(("sc", "script"), "sc="),
        **dict.fromkeys(("scx", "scriptextensions"), "scx="),
    },
    optional_is=True,
    characters=_COMMON,
    hex_digits={"x": (2, 2), "u": (4, 4), "U": (8, 8)},
    hex_braces="xuU",
    one_letter_properties=True,
    named_groups=("(?<", "(?P<"),
    looks_in_look_behind=True,
    line_end_at_end="any",
)
TOKENIZERS = Syntax(
    engine="tokenizers",
    name="tokenizers",
    flags={"i": "ignore_case", "m": "dot_all", "x": "extended"},
    flag_opens_group=True,
    lines=True,
    possessive_braces=False,
    set_operators=("&&",),
    fold_leaves=False,
    folds_properties=False,
    has_expansions=True,
    name_prefixes={},
    optional_is=False,
    characters=_COMMON,
    hex_digits={"x": (1, 2), "u": (4, 4)},
    hex_braces="x",
    one_letter_properties=False,
    named_groups=("(?<",),
    looks_in_look_behind=False,
    line_end_at_end="one",
)
SYNTAXES: Mapping[str, Syntax] = {"tiktoken": TIKTOKEN, "tokenizers": TOKENIZERS}

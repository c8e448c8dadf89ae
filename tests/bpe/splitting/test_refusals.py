"""Patterns that cannot be matched exactly are refused: the message names the construct, its place, and a remedy."""

from __future__ import annotations

import pytest

from bpe.errors import InputError
from bpe.splitting.compile import compile_pattern

# The pattern, the dialect, and words of the message.
REFUSED = [
    (r"(a)\1", "tiktoken", "a back reference or an octal escape", "at character 4"),
    (r"(?<n>a)\k<n>", "tokenizers", "a back reference", "at character 8"),
    (r"x(?(1)a|b)", "tiktoken", "a conditional", "at character 2"),
    (r"ab(?~cd)", "tokenizers", "an absent operator", "at character 3"),
    (r"a\Kb", "tiktoken", r"\K", "at character 2"),
    (r"\Ga", "tokenizers", r"\G", "at character 1"),
    (r"a|\X", "tokenizers", "a grapheme cluster", "at character 3"),
    (r"a(?R)", "tiktoken", "recursion", "at character 2"),
    (r"(*FAIL)", "tiktoken", "a control verb", "at character 1"),
    (r"(?i)ss", "tokenizers", "U+00DF", "at character 6"),
    (r"(?i)[à-ßaß]", "tokenizers", "", "at character"),
    (
        r"(?<=a+)b",
        "tiktoken",
        "a look-behind without a limit",
        "at character 1, '(?<=a+)b'; write it with fixed lengths",
    ),
    (r"x(?<!\w*)", "tokenizers", "a look-behind without a limit", r"at character 2, '(?<!\w*)'"),
    (r"a\Kb\n", "tiktoken", r"\K", r"at character 2, '\Kb\n'; "),
    ("a(\n", "tiktoken", "a ( without its )", r"at character 2, '(\n'"),
    (r"[[:foo:]]", "tiktoken", "an unknown name in [: :]", "at character 2"),
    (r"\p{Grek2}", "tiktoken", r"the property \p{Grek2}", "at character 1"),
    (r"\p{Script=Greek}", "tokenizers", r"the property \p{Script=Greek}", "at character 1"),
    (r"[a-z-9-b--c]", "tokenizers", "a hyphen", r"write it as \-"),
    (r"[z-a]", "tiktoken", "a range whose end comes before", "at character 2"),
    (r"[abc", "tiktoken", "a class without its closing bracket", "at character 1"),
    (r"(ab", "tokenizers", "a ( without its )", "at character 1"),
    (r"ab)", "tokenizers", "a ) without its (", "at character 3"),
    (r"a**", "tokenizers", "a repetition of a repetition", "at character 2"),
    (r"\b+", "tiktoken", "a repetition of a condition", "at character 3"),
    (r"*a", "tiktoken", "a repetition of nothing", "at character 1"),
    (r"a{3,1}", "tiktoken", "limits in the wrong order", "at character 2"),
    (r"a{1000}{1000}", "tiktoken", "a repetition of a repetition", "at character 2"),
    (r"(?:a{1000}){1000}", "tiktoken", "more than 65536 instructions", "lower"),
    (r"(?s).", "tokenizers", "an unknown group or flag", "i, m, x"),
    (r"(?U)a+", "tiktoken", "an unknown group or flag", "i, s, m, x"),
    (r"(?:a*?b?)*", "tiktoken", "may match nothing before its other alternatives", "at character 10"),
    (r"(?:(?>a|ab|))*", "tokenizers", "repeats an atomic group", "at least one character"),
    ("\\", "tiktoken", "a backslash at its end", "at character 1"),
    (r"\x{110000}", "tokenizers", "no character", "at character 1"),
    ("(" * 300 + ")" * 300, "tiktoken", "groups nested deeper", "at character 61"),
]


@pytest.mark.parametrize(("pattern", "dialect", "construct", "place"), REFUSED)
def test_the_message_names_construct_and_place(pattern: str, dialect: str, construct: str, place: str) -> None:
    with pytest.raises(InputError) as caught:
        compile_pattern(pattern, dialect)  # type: ignore[arg-type]
    message = str(caught.value)
    assert construct in message
    assert place in message
    assert ";" in message  # a remedy
    assert "\n" not in message

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
    (r"(?:a{10}){20000}", "tiktoken", "more than 65536 instructions", "at character 10, '{20000}'; lower its numbers"),
    (r"a{3}(?:b{1000}){1000}c", "tokenizers", "more than 65536 instructions", "at character 9, '{1000}){1000...'; low"),
    (r"(?s).", "tokenizers", "an unknown group or flag", "i, m, x"),
    (r"(?U)a+", "tiktoken", "an unknown group or flag", "i, s, m, x"),
    (r"(?:a*?b?)*", "tiktoken", "may match nothing before its other alternatives", "at character 10"),
    (
        r"(?:(?>a|ab|))*",
        "tokenizers",
        "a repetition of an atomic group",
        "at character 14, '*'; write the group so that",
    ),
    (r"x(?:\s*+|(?>a|))+y", "tokenizers", "possessive repetition that may match nothing", "at character 17, '+y'"),
    (r"(?:(?:(?>a|)){0,3}){2,}", "tokenizers", "an atomic group or possessive", "at character 20, '{2,}'"),
    (r"(?>a|){2,3}+", "tokenizers", "atomic group or possessive repetition", "at character 7, '{2,3}+'"),
    (r"(?:(?:c?|d)(?>b|))*", "tokenizers", "an atomic group", "at character 19, '*'"),
    ("\\", "tiktoken", "a backslash at its end", "at character 1"),
    (r"\x{110000}", "tokenizers", "no character", "at character 1"),
    (r"a|(?{callout})", "tokenizers", "a callout", "at character 3, '(?{callout})'; remove it"),
    (r"(?|a|b)", "tiktoken", "a branch reset", "at character 1, '(?|a|b)'; write a plain group"),
    (r"(?P=n)a", "tiktoken", "a back reference", "at character 1, '(?P=n)a'; write the part without referring"),
    (r"a(?&n)", "tokenizers", "recursion", "at character 2, '(?&n)'; write the part without referring to another"),
    (r"a(?#x", "tiktoken", "a comment without its )", "at character 2, '(?#x'; close the comment"),
    (r"\g<1>", "tokenizers", "recursion or a back reference", "at character 1"),
    (r"a\b{start}", "tiktoken", "the kind of word boundary", "at character 2, '\\b{start}'; write \\b and look-around"),
    (r"(?<=a(?=b))", "tokenizers", "look-around within look-behind", "at character 6, '(?=b))'; write it outside"),
    (r"(?<!(a))", "tokenizers", "a capturing group in a negative look-behind", "at character 5, '(a))'; write it as"),
    (r"(?<=a\z)", "tokenizers", r"\z in a look-behind", r"at character 6, '\z)'; write it after"),
    (r"(?<=(?>a|bc))", "tiktoken", "an atomic group or possessive repetition of several lengths", "at character 1"),
    (r"(?<=(?:a|bb){9})", "tiktoken", "", "at character 1"),
    (r"(?<n>a)(?<n>b)", "tiktoken", "a group whose name is taken", "at character 8, '(?<n>b)'; write a plain group"),
    (r"(?<1>a)", "tokenizers", "a group whose name is taken or not plain", "at character 1"),
    (r"x(?-)", "tiktoken", "an unknown group or flag", "at character 2, '(?-)'; use (?:...) or the flags i"),
    (r"x(?)", "tokenizers", "a group without flags", "at character 2, '(?)'; write (?:...)"),
    (r"a{100001}", "tokenizers", "more than 100000 repeats", "at character 2, '{100001}'; write fewer"),
    (r"{2}a", "tiktoken", "a repetition of nothing", r"at character 1, '{2}a'; write a brace as \{"),
    (r"a{2}{3}", "tokenizers", "a repetition of a repetition", "at character 2, '{2}{3}'; put the inner one into"),
    (r"a{2,2}?", "tokenizers", "{n,n}?", "at character 2, '{2,2}?'; write {n}"),
    (r"^*", "tokenizers", "a repetition of a condition", "at character 2, '*'; remove the repetition"),
    (r"\q", "tiktoken", r"the escape \q, which is not known", r"at character 1, '\q'; write the character without"),
    (r"[\q]", "tokenizers", r"the escape \q in a class, which is not known", r"at character 2, '\q]'; write the char"),
    (r"\N{DIGIT}", "tiktoken", r"the escape \N, which is not known", r"at character 1, '\N{DIGIT}'; write the"),
    (r"\u{d800}", "tiktoken", "a code point that is no character", "at character 1"),
    (r"\x{}", "tokenizers", "an escape with too few or too many digits", r"at character 1, '\x{}'; write \x{...}"),
    (r"\p{L", "tiktoken", r"\p{ without its }", r"at character 1, '\p{L'; close the name with }"),
    (r"\pL", "tokenizers", r"\p without a name in braces", r"at character 1, '\pL'; write it as \p{L}"),
    (r"\p{Letterr}", "tiktoken", r"the property \p{Letterr}", "did you mean"),
    ("\\p{" + "x" * 500 + "}", "tokenizers", "xxxxx...}, which is not known", "at character 1"),
    ("\\p{a\nb}", "tokenizers", r"the property \p{a\nb}", "at character 1"),
    (r"[a-\d]", "tiktoken", "a range that ends with a set", "at character 2, 'a-\\d]'; write a hyphen as \\-"),
    (r"[\d-z]", "tokenizers", "a range that begins with a set", r"at character 2, '\d-z]'; write a hyphen as \-"),
    (r"[a&&]", "tiktoken", "a set operation with nothing on one side", "at character 5, ']'; write a class on both"),
    (r"[&&a]", "tokenizers", "a set operation with nothing on one side", "at character 2"),
    (
        r"[--a]",
        "tokenizers",
        "a hyphen inside of a class that begins no range",
        r"at character 2, '--a]'; write it as \-",
    ),
    (r"[[]a]]", "tiktoken", "a bracket at the beginning of a class", r"at character 3, ']a]]'; write it as \]"),
    ("(?x)a\x0bb", "tiktoken", "an unusual white-space character", r"at character 6, '\x0bb'; write \x{...}"),
    ("[" * 60 + "a" + "]" * 60, "tokenizers", "classes nested deeper than 50", "at character 52"),
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
    assert message.isprintable()
    assert len(message) < 400
    assert "which" not in construct or message.startswith("the split pattern has ")

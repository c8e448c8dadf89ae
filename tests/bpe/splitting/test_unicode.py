"""The sets and the case folding of both engines, character by character."""

from __future__ import annotations

import random

import pytest

from bpe.splitting.generate_unicode import CHARACTERS, FIND, find_folded, find_tiktoken, patterns, ranges_of
from bpe.splitting.sets import pairs, span
from bpe.splitting.unicode import Engine, folded, known_names, named_set

IN_USE = ["l", "lu", "ll", "lt", "lm", "lo", "m", "mn", "n", "p", "s", "han", "latin", r"\d", r"\s", r"\w", "[:alpha:]"]
SAMPLE = random.Random(16).sample(sorted(set(known_names("tiktoken")) & set(known_names("tokenizers"))), 16)


@pytest.mark.parametrize("engine", ["tiktoken", "tokenizers"])
@pytest.mark.parametrize("name", [*IN_USE, *(name for name in SAMPLE if name != r"\b")])
def test_a_set_has_the_code_points_that_the_engine_finds(engine: Engine, name: str) -> None:
    """All names that published patterns use, and a sample of the others, over every code point."""
    found = FIND[engine](patterns(engine)[name])
    chars = named_set(engine, name)
    assert chars is not None
    assert tuple(pairs(chars)) == ranges_of(map(ord, found))


@pytest.mark.parametrize("engine", ["tiktoken", "tokenizers"])
def test_characters_that_match_without_regard_to_case(engine: Engine) -> None:
    """A sample of letters, and all of ASCII, whose folding has a path of its own."""
    find = find_tiktoken if engine == "tiktoken" else find_folded
    text = "".join(sorted({*CHARACTERS[33:127], *random.Random(5).sample(CHARACTERS[:0x2200], 150), *"ſKßẞςσΣǅ"}))
    for character in text:
        expected = sorted(set(find(rf"(?i:\x{{{ord(character):X}}})", text)))
        chars = folded(engine, span(ord(character), ord(character)))
        assert [c for c in text if any(low <= ord(c) <= high for low, high in pairs(chars))] == expected

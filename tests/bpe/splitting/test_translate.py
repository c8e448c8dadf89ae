"""A pattern written in another dialect splits in the other engine as it does in its own."""

from __future__ import annotations

import random

import pytest

from bpe.errors import InputError
from bpe.splitting.compile import compile_pattern
from bpe.splitting.translate import translate
from support.pattern_interpreter import pretokens
from support.pattern_references import differ_from_tiktoken, refused_by_tiktoken, tokenizers_pieces
from support.published_patterns import PUBLISHED
from support.random_patterns import PatternMaker, texts


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen2", "o200k"])
def test_a_pattern_that_means_the_same_keeps_its_text(name: str) -> None:
    assert translate(PUBLISHED[name], "tiktoken", "tokenizers") == PUBLISHED[name]


def test_braces_and_line_anchors_are_written_as_oniguruma_needs_them() -> None:
    pattern = r"\p{N}{1,3}+|[$^]|^a|\$|\s++$"
    assert translate(pattern, "tiktoken", "tokenizers") == r"\p{N}{1,3}|[$^]|\Aa|\$|\s++\z"


def _matches_in_tokenizers(pattern: str, text: str) -> list[str]:
    return tokenizers_pieces(pattern, text, invert=True)


@pytest.mark.parametrize("seed", range(4))
def test_patterns_of_tiktoken_match_the_same_in_tokenizers(seed: int) -> None:
    """Both random patterns and published ones."""
    rng = random.Random(seed)
    translated = 0
    for pattern in [*PUBLISHED.values(), *(PatternMaker(rng, "tiktoken").pattern() for _ in range(20))]:
        try:
            program = compile_pattern(pattern, "tiktoken")
            written = translate(pattern, "tiktoken", "tokenizers")
        except InputError:
            continue
        translated += 1
        for text in texts(rng, program, 12):
            try:
                theirs = _matches_in_tokenizers(written, text)
            except BaseException as error:  # a Rust panic
                assert "retry-limit" in str(error)
                continue
            assert theirs == pretokens(program, text), (pattern, written, text)
    assert translated > 18


def test_patterns_of_tokenizers_match_the_same_in_tiktoken() -> None:
    rng = random.Random(9)
    for pattern in [r"^\w+$|\s+", r"\p{N}{1,3}+|(?m:.)", r"(?i:[k-s])\b.", r"[[:punct:]]+|\h{2}?", r"a(?i)b|c\Z"]:
        program = compile_pattern(pattern, "tokenizers")
        written = translate(pattern, "tokenizers", "tiktoken")
        assert refused_by_tiktoken(written) is None
        some = texts(rng, program, 60)
        assert differ_from_tiktoken(written, some, [pretokens(program, text) for text in some]) == []

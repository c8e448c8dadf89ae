"""Compiled patterns, run by a plain interpreter, split random texts as the reference engines do."""

from __future__ import annotations

import random

import pytest

from bpe.errors import InputError
from bpe.splitting.compile import compile_pattern, compile_steps
from bpe.splitting.program import Program
from bpe.splitting.steps import Dialect, Split
from support.pattern_interpreter import pieces, pretokens
from support.pattern_references import (
    differ_from_tiktoken,
    refused_by_tiktoken,
    refused_by_tokenizers,
    tokenizers_pieces,
)
from support.published_patterns import PUBLISHED
from support.random_patterns import PatternMaker, texts


def _compiled(pattern: str, dialect: str) -> Program | None:
    try:
        return compile_pattern(pattern, dialect)  # type: ignore[arg-type]
    except InputError:
        return None


def _differ_from_tokenizers(pattern: str, program: Program, some: list[str]) -> list[str]:
    try:
        theirs = [(tokenizers_pieces(pattern, text, False), tokenizers_pieces(pattern, text, True)) for text in some]
    except BaseException as error:  # a Rust panic
        if "retry-limit" in str(error):
            return []
        raise
    ours = [(pieces(program, text), pretokens(program, text)) for text in some]
    return [text for text, one, two in zip(some, ours, theirs, strict=True) if one != two]


def _differ(pattern: str, dialect: str, program: Program, some: list[str]) -> list[str]:
    if dialect == "tokenizers":
        return _differ_from_tokenizers(pattern, program, some)
    try:
        return [some[i] for i in differ_from_tiktoken(pattern, some, [pretokens(program, text) for text in some])]
    except BaseException as error:  # a Rust panic
        if "BacktrackLimitExceeded" in str(error):
            return []
        raise


@pytest.mark.parametrize("dialect", ["tiktoken", "tokenizers"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_patterns_split_as_the_engine_does(name: str, dialect: str) -> None:
    """Texts are made of the pattern's own characters and the characters beside them."""
    rng = random.Random(f"{name} {dialect}")
    program = compile_pattern(PUBLISHED[name], dialect)  # type: ignore[arg-type]
    assert _differ(PUBLISHED[name], dialect, program, texts(rng, program, 300)) == []


@pytest.mark.parametrize("dialect", ["tiktoken", "tokenizers"])
def test_random_patterns_split_as_the_engine_does_or_are_refused(dialect: str) -> None:
    """What the engine refuses is refused here; what is accepted gives the same pretokens."""
    rng = random.Random(19)
    compared = 0
    refused = refused_by_tiktoken if dialect == "tiktoken" else refused_by_tokenizers
    for _ in range(120):
        pattern = PatternMaker(rng, dialect).pattern()
        program = _compiled(pattern, dialect)
        if program is not None:
            assert refused(pattern) is None, pattern
            assert _differ(pattern, dialect, program, texts(rng, program, 30)) == [], pattern
            compared += 1
    assert compared > 60


@pytest.mark.parametrize("dialect", ["tiktoken", "tokenizers"])
def test_the_core_and_the_interpreter_agree_on_random_patterns(dialect: Dialect) -> None:
    """The programs are valid for the core, and two independent matchers give the same pretokens."""
    rng = random.Random(20)
    for _ in range(150):
        pattern = PatternMaker(rng, dialect).pattern()
        program = _compiled(pattern, dialect)
        if program is None:
            continue
        matches = compile_steps([Split(pattern, dialect, "removed", invert=True)])
        for text in texts(rng, program, 10):
            assert [piece.decode() for piece in matches.split(text)] == pretokens(program, text), (pattern, text)

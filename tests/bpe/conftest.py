"""Vocabularies for the tests of bpe, and tiktoken's encodings of the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import tiktoken
from references import encoding_of

from bpe import Tokenizer, train


@pytest.fixture(scope="session")
def cl100k() -> Tokenizer:
    """cl100k_base, from the package that carries it."""
    if importlib.util.find_spec("bpe_openai") is None:
        pytest.skip("bpe_openai, which carries cl100k_base's ranks, is not installed")
    return Tokenizer.from_name("cl100k_base")


@pytest.fixture(scope="session")
def gpt2(corpora: Path) -> Tokenizer:
    """A vocabulary with GPT-2's split pattern. No published ranks are at hand, so it is trained."""
    return train(str(corpora), vocab_size=4000, pattern="gpt2", name="gpt2")


@pytest.fixture(scope="session")
def llama3_reference(llama3: Tokenizer) -> tiktoken.Encoding:
    return encoding_of(llama3)


@pytest.fixture(scope="session")
def cl100k_reference(cl100k: Tokenizer) -> tiktoken.Encoding:
    return encoding_of(cl100k)


@pytest.fixture(scope="session")
def gpt2_reference(gpt2: Tokenizer) -> tiktoken.Encoding:
    return encoding_of(gpt2)


@pytest.fixture(scope="session", params=["gpt2", "cl100k", "llama3"])
def pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, tiktoken.Encoding]:
    """A tokenizer for each pattern, and its reference."""
    return request.getfixturevalue(request.param), request.getfixturevalue(f"{request.param}_reference")

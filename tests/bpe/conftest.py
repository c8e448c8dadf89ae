"""Fixtures for the tests of bpe: vocabularies, and tiktoken encodings of the same vocabularies."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import tiktoken

from bpe import Tokenizer, _core, train
from support.references import core_encoder, encoding_of


@pytest.fixture(scope="session")
def cl100k() -> Tokenizer:
    """cl100k_base, from the package bpe_openai."""
    return _from_package("bpe_openai", "cl100k_base")


@pytest.fixture(scope="session")
def o200k() -> Tokenizer:
    """o200k_base, from the package bpe_openai."""
    return _from_package("bpe_openai", "o200k_base")


@pytest.fixture(scope="session")
def llama4() -> Tokenizer:
    """Llama 4's tokenizer, from the package llama_models."""
    return _from_package("llama_models", "llama4")


@pytest.fixture(scope="session")
def qwen2(cl100k: Tokenizer) -> Tokenizer:
    """A vocabulary with Qwen 2's split pattern and cl100k's ranks, because no package contains Qwen 2's ranks."""
    return Tokenizer("qwen2", pat_str="qwen2", mergeable_ranks=cl100k.mergeable_ranks, special_tokens={})


@pytest.fixture(scope="session")
def gpt2(corpora: Path) -> Tokenizer:
    """A vocabulary with GPT-2's split pattern, trained on corpora/, because no package contains GPT-2's ranks."""
    return train(str(corpora), vocab_size=4000, pattern="gpt2", name="gpt2")


@pytest.fixture(scope="session")
def smollm(corpora: Path) -> Tokenizer:
    """A vocabulary with SmolLM2's split pattern and tokens for all bytes, which SmolLM2's own vocabulary lacks."""
    return train(str(corpora), vocab_size=4000, pattern="smollm", name="smollm")


def _from_package(package: str, name: str) -> Tokenizer:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package}, which contains {name}'s ranks, is not installed (`make test` installs it)")
    return Tokenizer.from_name(name)


@pytest.fixture(scope="session")
def kernel_encoders(llama3: Tokenizer) -> dict[str, _core.Encoder]:
    """Llama 3's core encoder for each kernel that this processor supports."""
    return {kernel: core_encoder(llama3.mergeable_ranks, "llama3", kernel) for kernel in _core.kernels()}


@pytest.fixture(scope="session")
def llama3_reference(llama3: Tokenizer) -> tiktoken.Encoding:
    """tiktoken with the vocabulary of `llama3`."""
    return encoding_of(llama3)


@pytest.fixture(scope="session")
def cl100k_reference(cl100k: Tokenizer) -> tiktoken.Encoding:
    """tiktoken with the vocabulary of `cl100k`."""
    return encoding_of(cl100k)


@pytest.fixture(scope="session")
def gpt2_reference(gpt2: Tokenizer) -> tiktoken.Encoding:
    """tiktoken with the vocabulary of `gpt2`."""
    return encoding_of(gpt2)


@pytest.fixture(scope="session", params=["gpt2", "cl100k", "llama3", "qwen2", "o200k", "llama4", "smollm"])
def pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, tiktoken.Encoding]:
    """A tokenizer for each split pattern, and tiktoken with the same vocabulary."""
    tokenizer = request.getfixturevalue(request.param)
    return tokenizer, encoding_of(tokenizer)

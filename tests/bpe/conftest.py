"""Fixtures for the tests of bpe: vocabularies, and tiktoken's encodings of the same vocabularies."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import tiktoken

from bpe import Tokenizer, _core, train
from support.references import core_encoder, encoding_of


@pytest.fixture(scope="session")
def cl100k() -> Tokenizer:
    """cl100k_base, from the package that contains it."""
    return _from_package("bpe_openai", "cl100k_base")


@pytest.fixture(scope="session")
def o200k() -> Tokenizer:
    """o200k_base, from the package that contains it."""
    return _from_package("bpe_openai", "o200k_base")


@pytest.fixture(scope="session")
def llama4() -> Tokenizer:
    """Llama 4's tokenizer, from the package that contains it."""
    return _from_package("llama_models", "llama4")


@pytest.fixture(scope="session")
def qwen2(cl100k: Tokenizer) -> Tokenizer:
    """A vocabulary with Qwen 2's split pattern. Its ranks are cl100k's, because no package contains its own."""
    return Tokenizer("qwen2", pat_str="qwen2", mergeable_ranks=cl100k.mergeable_ranks, special_tokens={})


@pytest.fixture(scope="session")
def gpt2(corpora: Path) -> Tokenizer:
    """A vocabulary with GPT-2's split pattern. It is trained, because no package contains published ranks."""
    return train(str(corpora), vocab_size=4000, pattern="gpt2", name="gpt2")


@pytest.fixture(scope="session")
def smollm(corpora: Path) -> Tokenizer:
    """A vocabulary with SmolLM2's split pattern, with a token for each byte, unlike its own vocabulary."""
    return train(str(corpora), vocab_size=4000, pattern="smollm", name="smollm")


def _from_package(package: str, name: str) -> Tokenizer:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package}, which contains the ranks of {name}, is not installed; `make test` installs it")
    return Tokenizer.from_name(name)


@pytest.fixture(scope="session")
def kernel_encoders(llama3: Tokenizer) -> dict[str, _core.Encoder]:
    """The core's encoder of Llama 3's ranks, for each kernel that this processor supports."""
    return {kernel: core_encoder(llama3.mergeable_ranks, "llama3", kernel) for kernel in _core.kernels()}


@pytest.fixture(scope="session")
def llama3_reference(llama3: Tokenizer) -> tiktoken.Encoding:
    return encoding_of(llama3)


@pytest.fixture(scope="session")
def cl100k_reference(cl100k: Tokenizer) -> tiktoken.Encoding:
    return encoding_of(cl100k)


@pytest.fixture(scope="session")
def gpt2_reference(gpt2: Tokenizer) -> tiktoken.Encoding:
    return encoding_of(gpt2)


@pytest.fixture(scope="session", params=["gpt2", "cl100k", "llama3", "qwen2", "o200k", "llama4", "smollm"])
def pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, tiktoken.Encoding]:
    """A tokenizer for each named pattern, and tiktoken with the same."""
    tokenizer = request.getfixturevalue(request.param)
    return tokenizer, encoding_of(tokenizer)

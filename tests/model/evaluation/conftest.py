"""The tokenizer shared by the tests of evaluation."""

from __future__ import annotations

import pytest

from bpe import Tokenizer
from support.letters import LETTERS_SPECIAL, letters_tokenizer


@pytest.fixture
def letters() -> Tokenizer:
    """A tokenizer of bytes and one merge, with a token that begins a text."""
    return letters_tokenizer(LETTERS_SPECIAL)

"""Fixtures of the analysis tests."""

from __future__ import annotations

from typing import Any

import pytest

from bpe import Tokenizer
from bpe.analysis.report import (
    report_of,
)
from bpe.analysis.usage import Usage, usage_of


@pytest.fixture(scope="module")
def found(gpt2: Tokenizer, corpus_texts: dict[str, str]) -> dict[str, Any]:
    """A report on a training text and two other texts."""
    training = Usage("training", usage_of(gpt2, [text.encode() for text in corpus_texts.values()], "x").counts)
    names = ["prose.txt", "sentences/th.txt"]
    return report_of(gpt2, (usage_of(gpt2, [corpus_texts[name].encode()], name) for name in names), training)

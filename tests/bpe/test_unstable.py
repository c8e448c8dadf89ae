"""encode_with_unstable compared with tiktoken."""

from __future__ import annotations

import pytest
import tiktoken

from bpe import Tokenizer

TEXTS = [
    "", "a", "hello fanta", "hello \n", "a  ", "x\n\n ", "日本", "can't", "12", "naï", "  \t", "z é", "привет ми",
    " \u3000",
    "<|eot_id|>", "hi <|eot_id|>", "hi<|eot_id|> th", "x \u00a0", "a\x1c",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_stable_ids_and_completions_are_those_of_tiktoken(
    llama3: Tokenizer, llama3_reference: tiktoken.Encoding, text: str
) -> None:
    stable, completions = llama3.encode_with_unstable(text, allowed_special="all")
    expected, expected_completions = llama3_reference.encode_with_unstable(text, allowed_special="all")
    assert stable == expected
    assert sorted(completions) == sorted(expected_completions)


@pytest.mark.parametrize("text", ["hello fanta", "  \n ", "they'", "日本"])
def test_every_completion_begins_with_the_text(llama3: Tokenizer, text: str) -> None:
    stable, completions = llama3.encode_with_unstable(text)
    assert completions
    assert all(llama3.decode_bytes(stable + each).startswith(text.encode()) for each in completions)

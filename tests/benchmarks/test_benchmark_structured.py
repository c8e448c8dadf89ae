"""Test the benchmark of structured output: every example is allowed token by token, and has its times."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from support.references import byte_tokenizer


def test_every_token_of_every_example_is_allowed(load_script: Callable[[str], ModuleType]) -> None:
    script = load_script("structured")
    tokenizer = byte_tokenizer(special_tokens={"<|end|>": 300}, ab=256)
    result = script.measure("ours", script.ours, tokenizer, repeat=1)
    assert (result["refused"], result["wrong"]) == (0, 0)
    assert result["tokens"] > 1000
    assert 0 < result["mask_us"] <= result["mask_p99_us"] <= result["mask_most_us"]

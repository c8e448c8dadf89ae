from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bpe.errors import InputError
from bpe.streaming import whole_characters
from model import ModelConfig, Transformer, generate, generate_ids
from model.generate import until_stop


class Script(Transformer):
    """A model that writes what it is told: after n tokens read, the n-th of the script comes next."""

    def __init__(self, config: ModelConfig, script: list[int]) -> None:
        super().__init__(config)
        self.script = script
        self.read: list[int] = []

    def forward(self, ids: torch.Tensor, cache: Any = None, *, last_only: bool = False) -> torch.Tensor:
        start = 0 if cache is None else cache.length
        if cache is not None:
            cache.reserve(ids.shape[1])
            cache.advance(ids.shape[1])
        self.read.append(ids.shape[1])
        end = start + ids.shape[1]
        logits = torch.full((1, 1, self.config.vocab_size), -20.0)
        logits[0, 0, self.script[end - 1] if end <= len(self.script) else 0] = 20.0
        return logits


def write(
    text: bytes | list[int], tokenizer: Any, config: ModelConfig, prompt: Any = "", **arguments: Any
) -> list[str]:
    """What is generated when the model writes `text` right after <|begin_of_text|>."""
    model = Script(config, list(text))
    return list(generate(model, tokenizer, prompt, **{"temperature": 0, "max_tokens": 60, **arguments}))


@pytest.mark.parametrize("end", [257, 258])
def test_an_end_token_ends_the_text_and_is_no_part_of_it(end: int, tokenizer: Any, config: ModelConfig) -> None:
    assert "".join(write([*b"done", end, *b"more"], tokenizer, config)) == "done"


def test_other_special_tokens_are_passed_over(tokenizer: Any, config: ModelConfig) -> None:
    assert "".join(write([*b"ab", 256, *b"cd", 257], tokenizer, config)) == "abcd"


def test_pieces_are_whole_characters(tokenizer: Any, config: ModelConfig) -> None:
    pieces = write([*"aé€😀z".encode(), 257], tokenizer, config)
    assert pieces == ["a", "é", "€", "😀", "z"]


def test_bytes_that_are_no_utf_8_become_replacement_characters(tokenizer: Any, config: ModelConfig) -> None:
    assert "".join(write([0x61, 0xFF, 0x62, 0xE2, 0x82, 257], tokenizer, config)) == "a\ufffdb\ufffd"


def test_a_stop_string_ends_the_text_and_never_leaks(tokenizer: Any, config: ModelConfig) -> None:
    pieces = write(b"one\nUse two\nUser: three", tokenizer, config, stop=["\nUser:", "zzz"])
    assert "".join(pieces) == "one\nUse two"
    assert "\n" not in pieces[:4]  # held until it was clear that it began no stop string


def test_a_stop_string_may_be_given_alone(tokenizer: Any, config: ModelConfig) -> None:
    assert "".join(write(b"abcdef", tokenizer, config, stop="de")) == "abc"


def test_held_text_comes_out_when_the_text_ends_before_the_stop_string(tokenizer: Any, config: ModelConfig) -> None:
    assert "".join(write([*b"abcSTO", 257], tokenizer, config, stop=["STOP"])) == "abcSTO"


@given(st.text("abX", max_size=20), st.lists(st.text("abX", min_size=1, max_size=4), max_size=3), st.data())
def test_where_the_text_stops_does_not_depend_on_how_it_is_cut(text: str, stops: list[str], data: Any) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    ends = [(end, stop) for end in range(len(text) + 1) for stop in stops if text[:end].endswith(stop)]
    first = min((end for end, _ in ends), default=None)
    longest = max((len(stop) for end, stop in ends if end == first), default=0)
    expected = text if first is None else text[: first - longest]
    assert "".join(until_stop(pieces, stops)) == expected


@given(st.binary(max_size=40), st.data())
def test_streamed_text_is_the_text_decoded_at_once(raw: bytes, data: Any) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    pieces = [raw[i:j] for i, j in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert "".join(whole_characters(pieces)) == raw.decode("utf-8", "replace")


def test_a_text_is_read_once_and_then_token_by_token(tokenizer: Any, config: ModelConfig) -> None:
    model = Script(config, [0, 0, 0, 0, *b"xyz", 257])
    assert "".join(generate(model, tokenizer, "abcd", temperature=0)) == "xyz"
    assert model.read == [5, 1, 1, 1]  # <|begin_of_text|> and four bytes, then x, y, z


@pytest.mark.parametrize("count", [0, 1, 5])
def test_no_more_than_max_tokens_are_written(count: int, model: Transformer) -> None:
    assert len(list(generate_ids(model, [1, 2, 3], max_tokens=count, seed=0))) == count


@pytest.mark.parametrize("use_cache", [False, True])
def test_generation_stops_at_the_end_of_the_context(use_cache: bool, model: Transformer) -> None:
    prompt = list(range(50))
    assert len(list(generate_ids(model, prompt, max_tokens=1000, seed=0, use_cache=use_cache))) == 64 - 50


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"temperature": 1.0, "top_p": 0.9}, {"top_k": 5}])
def test_with_and_without_a_cache_the_text_is_the_same(arguments: Any, tokenizer: Any, model: Transformer) -> None:
    texts = [
        "".join(generate(model, tokenizer, "Once", max_tokens=50, seed=11, use_cache=use_cache, **arguments))
        for use_cache in (False, True)
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) > 10


def test_the_seed_decides_the_text(model: Transformer) -> None:
    texts = [list(generate_ids(model, [1], max_tokens=30, temperature=1.5, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_without_a_seed_texts_differ(model: Transformer) -> None:
    texts = [tuple(generate_ids(model, [1], max_tokens=30, temperature=1.5)) for _ in range(3)]
    assert len(set(texts)) > 1


def test_ids_without_a_token_are_never_drawn(model: Transformer) -> None:
    ids = list(generate_ids(model, [1], max_tokens=60, temperature=100.0, top_p=None, n_vocab=5, seed=0))
    assert set(ids) == {0, 1, 2, 3, 4}


def test_a_prompt_may_be_given_as_ids(tokenizer: Any, config: ModelConfig) -> None:
    assert "".join(write([0, 0, *b"hi", 257], tokenizer, config, prompt=[5, 6, 7])) == "hi"


def test_pieces_come_while_the_model_writes(tokenizer: Any, config: ModelConfig) -> None:
    model = Script(config, list(b"abc"))
    stream: Iterator[str] = generate(model, tokenizer, "", temperature=0)
    assert next(stream) == "a"
    assert len(model.read) == 1


@pytest.mark.parametrize(
    ("prompt", "arguments", "message"),
    [
        ("x" * 63, {}, r"the prompt has 64 tokens.*holds 64.*to 63 tokens"),
        ([], {}, "the prompt is empty"),
        ([259], {}, r"ids from 259 to 259.*0 to 258"),
        ([-1], {}, "ids from -1"),
        ("a", {"max_tokens": -1}, "max_tokens is -1"),
        ("a", {"temperature": -1}, "temperature is -1"),
        ("a", {"stop": ["a", ""]}, "empty stop string"),
    ],
)
def test_what_cannot_be_generated_is_refused_before_the_first_token(
    prompt: Any, arguments: Any, message: str, tokenizer: Any, model: Transformer
) -> None:
    with pytest.raises(InputError, match=message):
        generate(model, tokenizer, prompt, **arguments)


def test_a_tokenizer_larger_than_the_model_is_refused(tokenizer: Any) -> None:
    model = Transformer(ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=200))
    with pytest.raises(InputError, match="259 tokens and the model 200"):
        generate(model, tokenizer, "a")


def test_weights_that_are_not_numbers_give_a_clear_error(tokenizer: Any, model: Transformer) -> None:
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(InputError, match="the weights may be damaged"):
        list(generate(model, tokenizer, "a"))

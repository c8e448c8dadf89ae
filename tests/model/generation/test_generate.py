from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bpe.errors import InputError
from model import ModelConfig, Transformer, generate, generate_ids
from model.generation.decoding import Session
from model.generation.sampling import Sampling
from model.generation.tensor_sampling import sample


class Script(Transformer):
    """A model that generates a script: after it has read n tokens, the n-th token of the script comes next."""

    def __init__(self, config: ModelConfig, script: list[int]) -> None:
        super().__init__(config)
        self.script = script
        self.read: list[int] = []

    def forward(self, ids: torch.Tensor, cache: Any, *, positions: Any = None, last_only: bool = False) -> torch.Tensor:
        start = cache.length
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
    """Generate with a model that writes `text` directly after <|begin_of_text|>."""
    model = Script(config, list(text))
    return list(generate(model, tokenizer, prompt, **{"temperature": 0, "max_tokens": 60, **arguments}))


@pytest.mark.parametrize("end", [257, 258])
def test_an_end_token_ends_the_text_and_is_not_part_of_it(end: int, tokenizer: Any, config: ModelConfig) -> None:
    assert "".join(write([*b"done", end, *b"more"], tokenizer, config)) == "done"


def test_other_special_tokens_are_skipped(tokenizer: Any, config: ModelConfig) -> None:
    assert "".join(write([*b"ab", 256, *b"cd", 257], tokenizer, config)) == "abcd"


def test_pieces_are_whole_characters(tokenizer: Any, config: ModelConfig) -> None:
    pieces = write([*"aé€😀z".encode(), 257], tokenizer, config)
    assert pieces == ["a", "é", "€", "😀", "z"]


def test_bytes_that_are_not_utf_8_become_replacement_characters(tokenizer: Any, config: ModelConfig) -> None:
    assert "".join(write([0x61, 0xFF, 0x62, 0xE2, 0x82, 257], tokenizer, config)) == "a\ufffdb\ufffd"


def test_a_stop_string_ends_the_text_and_never_leaks(tokenizer: Any, config: ModelConfig) -> None:
    pieces = write(b"one\nUse two\nUser: three", tokenizer, config, stop=["\nUser:", "zzz"])
    assert "".join(pieces) == "one\nUse two"
    assert "\n" not in pieces[:4]  # held back until it could not be the beginning of a stop string


def test_a_stop_string_may_be_given_alone(tokenizer: Any, config: ModelConfig) -> None:
    assert "".join(write(b"abcdef", tokenizer, config, stop="de")) == "abc"


def test_held_back_text_is_yielded_when_the_text_ends_before_the_stop_string(
    tokenizer: Any, config: ModelConfig
) -> None:
    assert "".join(write([*b"abcSTO", 257], tokenizer, config, stop=["STOP"])) == "abcSTO"


def test_a_text_is_read_once_and_then_token_by_token(tokenizer: Any, config: ModelConfig) -> None:
    model = Script(config, [0, 0, 0, 0, *b"xyz", 257])
    assert "".join(generate(model, tokenizer, "abcd", temperature=0)) == "xyz"
    assert model.read == [5, 1, 1, 1]  # <|begin_of_text|> and four bytes, then x, y, z


@pytest.mark.parametrize("count", [0, 1, 5])
def test_at_most_max_tokens_are_generated(count: int, model: Transformer) -> None:
    assert len(list(generate_ids(model, [1, 2, 3], max_tokens=count, seed=0))) == count


def test_generation_stops_at_the_end_of_the_context(model: Transformer) -> None:
    assert len(list(generate_ids(model, list(range(50)), max_tokens=1000, seed=0))) == 64 - 50


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"temperature": 1.0, "top_p": 0.9}, {"top_k": 5}])
def test_ids_match_generation_without_a_cache(arguments: Any, model: Transformer) -> None:
    ids, generator = [5, 6, 7], random.Random(11)
    for _ in range(50):
        ids += sample(model(torch.tensor([ids]))[:, -1].detach(), Sampling(**arguments), [generator.random()]).tolist()
    assert list(generate_ids(model, [5, 6, 7], max_tokens=50, seed=11, **arguments)) == ids[3:]


def test_the_seed_determines_the_text(model: Transformer) -> None:
    texts = [list(generate_ids(model, [1], max_tokens=30, temperature=1.5, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_without_a_seed_texts_differ(model: Transformer) -> None:
    texts = [tuple(generate_ids(model, [1], max_tokens=30, temperature=1.5)) for _ in range(3)]
    assert len(set(texts)) > 1


def test_ids_without_a_token_are_never_drawn(model: Transformer) -> None:
    ids = list(generate_ids(model, [1], max_tokens=60, temperature=100.0, top_p=None, n_vocab=5, seed=0))
    assert set(ids) == {0, 1, 2, 3, 4}


def test_a_session_continues_one_text_at_a_time(tokenizer: Any, model: Transformer) -> None:
    session = Session(model)
    first = generate(model, tokenizer, "ab", temperature=0, session=session)
    next(first)
    second = generate(model, tokenizer, "abcd", temperature=0, session=session)
    next(second)
    with pytest.raises(InputError, match="another generation has used this session since; give each"):
        list(first)
    expected = "".join(generate(model, tokenizer, "abcd", temperature=0, max_tokens=9))
    assert "".join(generate(model, tokenizer, "abcd", temperature=0, max_tokens=9, session=session)) == expected


def test_a_prompt_may_be_given_as_ids(tokenizer: Any, config: ModelConfig) -> None:
    assert "".join(write([0, 0, *b"hi", 257], tokenizer, config, prompt=[5, 6, 7])) == "hi"


def test_pieces_are_yielded_while_the_model_generates(tokenizer: Any, config: ModelConfig) -> None:
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
def test_invalid_arguments_raise_before_the_first_token(
    prompt: Any, arguments: Any, message: str, tokenizer: Any, model: Transformer
) -> None:
    with pytest.raises(InputError, match=message):
        generate(model, tokenizer, prompt, **arguments)


def test_a_tokenizer_larger_than_the_model_raises(tokenizer: Any) -> None:
    model = Transformer(ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=200))
    with pytest.raises(InputError, match="259 tokens, but the model only 200; .* copy the tokenizer"):
        generate(model, tokenizer, "a")


def test_weights_that_are_nan_raise(tokenizer: Any, model: Transformer) -> None:
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(InputError, match="the weights are damaged, or"):
        list(generate(model, tokenizer, "a"))

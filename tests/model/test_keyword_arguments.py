"""The keyword arguments of the public functions: complete, typed, and checked."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import model as package
from bpe.errors import ArgumentError
from bpe.training.settings import TrainOptions, TrainSettings
from model import ModelConfig, Sampling, Transformer
from model.config import ModelConfigOptions
from model.generation.conversation import Conversation
from model.generation.sampling import SamplingOptions
from model.lora import LoraConfig
from model.training.finetune_settings import FinetuneConfig
from model.training.finetuning import finetune
from model.training.settings import TrainConfig, TrainConfigOptions


@pytest.mark.parametrize(
    ("options", "settings", "positional"),
    [
        (SamplingOptions, Sampling, set()),
        (ModelConfigOptions, ModelConfig, set()),
        (TrainConfigOptions, TrainConfig, set()),
        (TrainOptions, TrainSettings, {"vocab_size", "pattern", "special_tokens"}),
    ],
)
def test_the_typed_options_are_the_fields_of_the_settings(options: Any, settings: Any, positional: set[str]) -> None:
    typed = {name: annotation.__forward_arg__ for name, annotation in options.__annotations__.items()}
    assert typed == {field.name: field.type for field in fields(settings) if field.name not in positional}


@pytest.mark.parametrize(
    "function", [package.generate, package.generate_ids, package.complete, package.Completions, Conversation]
)
def test_generation_refuses_a_misspelt_setting_and_a_wrong_type(function: Any) -> None:
    assert inspect.signature(function).parameters["temperature"].default == 0.8
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) .*'temprature'; did you mean temperature\?"):
        function(temprature=0.5)
    for name, value, kind in (
        ("temperature", "hot", "a number"),
        ("max_tokens", 1.5, "a whole number"),
        ("seed", "1", "a whole number or None"),
        ("logit_bias", 3, "a mapping"),
    ):
        with pytest.raises(ArgumentError, match=f"{name} is {value!r}; expected {kind}"):
            function(**{name: value})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: package.load("smollm2", devise="cpu"), r"load\(\) .*'devise'; did you mean device\?"),
        (lambda: package.save("a", format_="gguf"), r"save\(\) .*'format_'; did you mean format\?"),
        (lambda: package.convert("a", "b", quantise="q8_0"), r"convert\(\) .*'quantise'; did you mean quantize\?"),
        (lambda: Sampling(temprature=1), r"Sampling\(\) .*'temprature'; did you mean temperature\?"),
        (lambda: TrainConfig(step=1), r"TrainConfig\(\) .*'step'; did you mean steps\?"),
        (lambda: ModelConfig(dims=1), r"ModelConfig\(\) .*'dims'; did you mean dim\?"),
        (lambda: LoraConfig(rnak=1), r"LoraConfig\(\) .*'rnak'; did you mean rank\?"),
        (lambda: FinetuneConfig(epoch=1), r"FinetuneConfig\(\) .*'epoch'; did you mean epochs\?"),
        (lambda: finetune("a", [], "b", minuets=1), r"finetune\(\) .*'minuets'; did you mean minutes\?"),
    ],
)
def test_other_functions_and_settings_name_the_likeliest_keyword(call: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: package.load(3), "path is 3; expected a string or a path"),
        (lambda: package.load("a", backend="nativ"), "backend is 'nativ'; expected .*; did you mean native?"),
        (lambda: TrainConfig(steps=1.5), "steps is 1.5; expected a whole number or None"),
        (lambda: TrainConfig(steps="1"), "steps is '1'; expected a whole number or None"),
        (lambda: ModelConfig.preset("nano", dim="1"), "dim is '1'; expected a whole number"),
        (lambda: ModelConfig.preset(3), "name is 3; expected a string"),
        (lambda: finetune("a", "b.jsonl", "run"), r"data is 'b.jsonl'; expected a list, such as \['b.jsonl'\]"),
        (lambda: LoraConfig(rank="8"), "rank is '8'; expected a whole number"),
    ],
)
def test_other_functions_and_settings_refuse_values_of_a_wrong_type(call: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()


def test_a_number_of_numpy_becomes_one_of_python(tmp_path: Path) -> None:
    import numpy as np

    config = ModelConfig.preset("nano", dim=np.int64(64), norm_eps=np.float32(0.5))
    assert (type(config.dim), type(config.norm_eps)) == (int, float)
    assert Transformer(config).config.dim == 64

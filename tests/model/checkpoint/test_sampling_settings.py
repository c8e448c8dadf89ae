"""Settings of sampling in generation_config.json and in GGUF: read as transformers does, kept by conversions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bpe import InputError, Tokenizer
from model import ModelConfig, Transformer
from model.checkpoint import convert, open_checkpoint, save
from support.command_line import bpe
from support.references import BYTE_RANKS


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in Hugging Face's format, which asks for nothing."""
    directory = tmp_path_factory.mktemp("plain")
    tokenizer = Tokenizer("bytes", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens={"<|end_of_text|>": 256})
    tokenizer.save(directory / "tokenizer.json")
    config = ModelConfig(dim=16, n_layers=1, n_heads=2, vocab_size=257, max_seq_len=32, hidden_dim=32)
    save(directory / "model", Transformer(config), directory / "tokenizer.json", "huggingface")
    return directory / "model"


def asking(plain: Path, tmp_path: Path, **generation: Any) -> Path:
    """Return a copy of the model with other entries in generation_config.json."""
    convert(plain, tmp_path / "asking")
    (tmp_path / "asking" / "generation_config.json").write_text(json.dumps({"eos_token_id": 256} | generation))
    return tmp_path / "asking"


CASES: list[dict[str, Any]] = [
    {},
    {"do_sample": True},
    {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05},
    {"do_sample": True, "top_k": 0, "min_p": 0.05},
    {"do_sample": True, "temperature": None, "top_p": None},
    {"do_sample": False, "temperature": 0.7, "repetition_penalty": 1.5},
    {"repetition_penalty": 1.3, "temperature": 0.7},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("generation", CASES)
def test_settings_are_those_that_transformers_samples_with(
    generation: dict[str, Any], plain: Path, tmp_path: Path
) -> None:
    from transformers import GenerationConfig

    directory = asking(plain, tmp_path, **generation)
    theirs = GenerationConfig.from_pretrained(directory)
    found = open_checkpoint(directory).sampling
    defaults = GenerationConfig._get_default_generation_params()

    def used(name: str) -> Any:
        value = getattr(theirs, name)
        return defaults.get(name) if value is None else value

    assert found.get("repetition_penalty", 1.0) == (used("repetition_penalty") or 1.0)
    if generation.get("do_sample") is None:
        assert found.keys() <= {"repetition_penalty"}
    elif generation["do_sample"]:
        assert found["temperature"] == used("temperature")
        assert (found["top_k"] or 0) == used("top_k")
        assert found["top_p"] == used("top_p")
        assert found.get("min_p") == used("min_p")
    else:
        assert found["temperature"] == 0 and found.keys() <= {"temperature", "repetition_penalty"}


@pytest.mark.parametrize("generation", CASES)
def test_settings_survive_conversions(generation: dict[str, Any], plain: Path, tmp_path: Path) -> None:
    expected = open_checkpoint(asking(plain, tmp_path, **generation)).sampling
    place = tmp_path / "asking"
    for number, format in enumerate(("gguf", "huggingface", "bpe-llama", "gguf", "meta")):
        convert(place, tmp_path / f"{number}.{format}", format)
        place = tmp_path / f"{number}.{format}"
        assert open_checkpoint(place).sampling == expected, format


def test_info_prints_the_settings(plain: Path, tmp_path: Path) -> None:
    directory = asking(plain, tmp_path, do_sample=True, temperature=0.7, top_k=0, num_beams=4)
    lines = bpe("info", directory).stdout.splitlines()
    assert "sampling    temperature 0.7, top_k none, top_p 1.0, as the model asks" in lines
    assert "not used    num_beams, which the model asks for" in lines
    assert not any(line.startswith(("sampling", "not used")) for line in bpe("info", plain).stdout.splitlines())


def test_settings_that_are_not_implemented_are_named(plain: Path, tmp_path: Path) -> None:
    directory = asking(plain, tmp_path, num_beams=4, no_repeat_ngram_size=0, suppress_tokens=[3], max_length=20)
    assert open_checkpoint(directory).unused_settings == ("num_beams", "suppress_tokens")


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"do_sample": "yes"}, "do_sample is 'yes'; expected true or false"),
        ({"do_sample": True, "temperature": "hot"}, "temperature is 'hot'; expected a number"),
        ({"repetition_penalty": True}, "repetition_penalty is True; expected a number"),
        ({"do_sample": True, "top_p": [0.9]}, r"top_p is \[0.9\]; expected a number"),
    ],
)
def test_a_setting_that_is_no_number_is_refused(
    generation: dict[str, Any], message: str, plain: Path, tmp_path: Path
) -> None:
    directory = asking(plain, tmp_path, **generation)
    with pytest.raises(InputError, match=f"generation_config.json: {message}"):
        open_checkpoint(directory)

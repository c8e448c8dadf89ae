"""What we write opens in transformers: the same logits, and the same ids whatever the family's own tokenizer is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from bpe import Tokenizer
from bpe.errors import InputError
from model import load
from model.checkpoint import convert, huggingface, open_checkpoint
from support.model_families import FAMILIES, write

TEXT = "In 2024, 123456 llamas' wool   cost $1,000.50!\n\n  It's été naïve 日本語\r\n\t x"
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}
ONE_EACH = sorted({kind: name for name, (kind, _) in reversed(FAMILIES.items())}.values())
"""A model of each model type."""


def write_tokenizer(path: Path, pattern: str) -> None:
    """Write a tokenizer.json of 300 byte-level tokens, which knows numbers of several digits."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=299, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([TEXT * 3, "12 34 567 2024 1999 123456" * 5], trainer)
    library.add_special_tokens(["<|end|>"])
    library.save(str(path / "tokenizer.json"))


def theirs_of(path: Path) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.set_attn_implementation("eager")
    return model.eval()


def logits(model: Any) -> Any:
    return model(torch.randint(1, 300, (2, 24), generator=torch.Generator().manual_seed(2))).logits


@torch.inference_mode()
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_model_through_our_formats_has_equal_logits_in_transformers(name: str, tmp_path: Path) -> None:
    theirs = write(name, tmp_path / "in")
    write_tokenizer(tmp_path / "in", "llama3")
    convert(tmp_path / "in", tmp_path / "ours", "bpe-llama")
    convert(tmp_path / "ours", tmp_path / "out", "huggingface")
    assert open_checkpoint(tmp_path / "ours").config == open_checkpoint(tmp_path / "in").config
    assert float((logits(theirs_of(tmp_path / "out")) - logits(theirs)).abs().max()) < 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("name", ["llama", "phi3", "mixtral", "qwen2"])
def test_shards_have_equal_logits_in_transformers(name: str, tmp_path: Path) -> None:
    theirs = write(name, tmp_path / "in")
    write_tokenizer(tmp_path / "in", "llama3")
    huggingface.write(open_checkpoint(tmp_path / "in"), tmp_path / "out", shard_bytes=60_000)
    assert len([*(tmp_path / "out").glob("*.safetensors")]) > 2
    assert float((logits(theirs_of(tmp_path / "out")) - logits(theirs)).abs().max()) < 1e-5


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ONE_EACH)
def test_auto_tokenizer_keeps_the_split_pattern(name: str, pattern: str, tmp_path: Path) -> None:
    write(name, tmp_path / "in")
    write_tokenizer(tmp_path / "in", pattern)
    convert(tmp_path / "in", tmp_path / "out")
    try:
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    except ModuleNotFoundError as error:  # the mistral-common of some installations needs more packages than it names
        pytest.skip(str(error))
    ids = Tokenizer.from_file(tmp_path / "in").encode(TEXT)
    assert theirs.encode(TEXT) == ids
    assert theirs.decode(ids) == TEXT


def test_biases_of_queries_keep_another_pattern_by_the_model_type_llama(tmp_path: Path) -> None:
    write("qwen2", tmp_path / "in")
    write_tokenizer(tmp_path / "in", "gpt2")
    convert(tmp_path / "in", tmp_path / "out")
    data = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (data["model_type"], data["attention_bias"]) == ("llama", True)
    assert open_checkpoint(tmp_path / "out").config == open_checkpoint(tmp_path / "in").config
    load(tmp_path / "out")


def test_a_bias_that_the_configuration_denies_must_be_zero(tmp_path: Path) -> None:
    write("llama, biases", tmp_path)
    write_tokenizer(tmp_path, "gpt2")
    data = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**data, "attention_out_bias": False}))
    with pytest.raises(InputError, match="o_proj.bias is not zero.*attention_out_bias"):
        load(tmp_path)


@torch.inference_mode()
def test_windows_with_biases_of_queries_keep_another_pattern(tmp_path: Path) -> None:
    theirs = write("qwen2, windows", tmp_path / "in")
    write_tokenizer(tmp_path / "in", "gpt2")
    convert(tmp_path / "in", tmp_path / "out")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").encode(TEXT) == Tokenizer.from_file(
        tmp_path / "in"
    ).encode(TEXT)
    assert open_checkpoint(tmp_path / "out").config == open_checkpoint(tmp_path / "in").config
    assert float((logits(theirs_of(tmp_path / "out")) - logits(theirs)).abs().max()) < 1e-5

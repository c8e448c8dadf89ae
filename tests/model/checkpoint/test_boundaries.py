"""What begins and ends a text survives every conversion, and other programs read it the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from bpe import Tokenizer
from bpe.boundaries import Boundaries
from model import ModelConfig, Transformer, convert, load, save
from support.references import BYTE_RANKS

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

IDS = {text: 256 + i for i, text in enumerate(("<s>", "</s>", "<|turn_end|>", "<|eot_id|>"))}
CONFIG = ModelConfig(dim=32, n_layers=1, n_heads=4, n_kv_heads=2, hidden_dim=32, vocab_size=260, max_seq_len=32)
TEXT = "Hello, world"


@pytest.fixture(params=["in front", "not in front", "no bos"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model of Hugging Face's format with a list of end tokens that no name would find."""
    tokenizer = Tokenizer("x", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=IDS)
    if request.param != "in front":
        tokenizer = tokenizer.with_boundaries(bos=False)
    tokenizer.save(tmp_path / "tokenizer.json")
    torch.manual_seed(0)
    save(tmp_path / "source", Transformer(CONFIG), tmp_path / "tokenizer.json", format="huggingface")
    bos = None if request.param == "no bos" else "<s>"
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": "<|turn_end|>"}
    (tmp_path / "source" / "tokenizer_config.json").write_text(json.dumps(names))
    ends = {"eos_token_id": [257, 258], "temperature": 0.5}
    (tmp_path / "source" / "generation_config.json").write_text(json.dumps(ends))
    return tmp_path / "source"


def ids_of(said: Boundaries) -> tuple[Any, ...]:
    return said.eos_ids, said.eos_id, said.prefix_ids, said.suffix_ids


@pytest.mark.parametrize(
    "formats",
    [
        ("huggingface", "gguf", "huggingface", "meta", "bpe-llama", "huggingface"),
        ("gguf", "gguf", "meta", "gguf", "bpe-llama", "gguf", "huggingface"),
        ("meta", "huggingface"),
    ],
)
def test_conversions_keep_what_begins_and_ends_a_text(source: Path, formats: tuple[str, ...], tmp_path: Path) -> None:
    _, first = load(source)
    said = first.vocabulary.boundaries
    assert (said.eos_ids, said.eos_id) == ((257, 258), 258)
    path = source
    for number, format in enumerate(formats):
        target = tmp_path / f"{number}{'.gguf' if format == 'gguf' else ''}"
        convert(path, target, format=format)
        _, tokenizer = load(target)
        again = tokenizer.vocabulary.boundaries
        assert ids_of(again) == ids_of(said), format
        assert said.bos_id is None or again.bos_id == said.bos_id, format
        if format == "huggingface":
            theirs = transformers.AutoTokenizer.from_pretrained(target)
            assert theirs(TEXT)["input_ids"] == [*tokenizer.prefix_ids, *tokenizer.encode_ordinary(TEXT)]
            assert theirs.eos_token_id == said.eos_id
            assert transformers.GenerationConfig.from_pretrained(target).eos_token_id == [257, 258]
        if format == "gguf":
            fields = {key: field.contents() for key, field in gguf.GGUFReader(target).fields.items()}
            assert fields["tokenizer.ggml.add_bos_token"] is first.add_bos
            assert (fields["tokenizer.ggml.eos_token_id"], fields["tokenizer.ggml.eot_token_id"]) == (258, 257)
        path = target

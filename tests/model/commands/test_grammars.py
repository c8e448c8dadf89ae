"""The options --json-schema, --regex and --grammar of `bpe generate` and `bpe chat`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from bpe import Tokenizer
from model import ModelConfig, Transformer, save
from support.command_line import bpe, fails_with
from support.references import BYTE_RANKS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    special = {name: 256 + place for place, name in enumerate(names)}
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special).save(
        directory / "tokenizer.json"
    )
    config = ModelConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=264, max_seq_len=2000)
    save(directory, Transformer(config), directory / "tokenizer.json")
    return directory


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text('{"type": "array", "items": {"enum": ["yes", "no"]}, "minItems": 2, "maxItems": 2}')
    return path


@pytest.fixture
def grammar(tmp_path: Path) -> Path:
    path = tmp_path / "sum.gbnf"
    path.write_text('root ::= [0-9] ("+" [0-9]){2}\n')
    return path


def generate(model: Path, *options: Any) -> Result:
    return bpe("generate", model, "-p", "x", "--threads", 1, "--seed", 1, *options)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_generated_texts_follow_a_schema(model: Path, schema: Path, backend: str) -> None:
    result = generate(model, "--backend", backend, "--json-schema", schema, "--samples", 3, "--json")
    assert result.exit_code == 0, result.output
    for line in result.stdout.splitlines():
        text = json.loads(line)
        assert text["finish"] == "end" and "end" not in text
        assert len(json.loads(text["text"])) == 2


def test_generated_texts_follow_a_regular_expression_or_a_grammar(model: Path, grammar: Path, tmp_path: Path) -> None:
    assert generate(model, "--regex", " (yes|no)!").stdout.strip() in ("x yes!", "x no!")
    text = generate(model, "--grammar", grammar).stdout.strip().removeprefix("x")
    assert text[1::2] == "++" and text[::2].isdecimal()
    lark = tmp_path / "a.lark"
    lark.write_text('start: "a"~3 b\nb: "!"')
    assert generate(model, "--grammar", lark).stdout.strip() == "xaaa!"


def test_each_answer_of_a_chat_follows_the_schema(model: Path, schema: Path) -> None:
    result = bpe("chat", model, "-p", "One?", "-p", "Two?", "--json-schema", schema, "--no-save", "--threads", 1)
    assert result.exit_code == 0, result.output
    answers = [line for line in result.stdout.splitlines() if line.startswith("[")]
    whole = json.loads(f"[{','.join(result.stdout.split(chr(10) * 2))}]")
    assert len(whole) == 2 and all(len(answer) == 2 for answer in whole), answers


def test_without_llguidance_the_message_names_the_extra(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    fails_with(generate(model, "--regex", "a"), 1, "structured output needs", "pip install 'bpe-llama[serve]'")
    assert generate(model, "--max-tokens", 1).exit_code == 0


def test_wrong_options_are_refused(model: Path, schema: Path, grammar: Path, tmp_path: Path) -> None:
    fails_with(generate(model, "--json-schema", schema, "--regex", "a"), 2, "--json-schema and --regex exclude each")
    fails_with(generate(model, "--json-schema", tmp_path / "no.json"), 1, "no.json", "No such file")
    fails_with(generate(model, "--regex", "a("), 1, "--regex", "unclosed group at character 2")
    fails_with(generate(model, "--json-schema", grammar), 1, "sum.gbnf", "the JSON schema is not JSON", "line 1")
    schema.write_text('{"properties": {"a": {"not": {}}}}')
    fails_with(generate(model, "--json-schema", schema), 1, "schema.json", "at /properties/a/not", "remove it")
    grammar.write_text('root ::= "a" |\n  b\n')
    fails_with(generate(model, "--grammar", grammar), 1, "sum.gbnf", "line 2: there is no rule b")
    grammar.write_bytes(b"\xff\xfe\x00")
    fails_with(generate(model, "--grammar", grammar), 1, "sum.gbnf", "not UTF-8")
    chat = ("chat", model, "-p", "Hi", "--no-save", "--threads", 1)
    fails_with(bpe(*chat, "--regex", "a", "--prefill", "b"), 2, "--regex", "--prefill", "give only one")
    fails_with(bpe(*chat, "--regex", "a", "--grammar", "b"), 2, "--regex and --grammar exclude each other")

"""`bpe generate` and `bpe chat` with proposals: the same texts, a line on the gain, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from bpe import InputError, Tokenizer
from model import Completions, ModelConfig, Speculation, Transformer, load, save
from support.command_line import bpe, fails_with
from support.references import BYTE_RANKS

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LINE = r"speculation by {}: [\d,]+ tokens? proposed, \d+% accepted; [\d.]+ tokens per call; about [\d.]+ times the rate"


def write_model(directory: Path, seed: int, context: int = 4096, special: tuple[str, ...] = SPECIAL) -> Path:
    """Write a model that generates letters and soon repeats itself."""
    directory.mkdir()
    torch.manual_seed(seed)
    ids = {name: 256 + number for number, name in enumerate(special)}
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=ids)
    tokenizer.save(directory / "tokenizer.json")
    model = Transformer(
        ModelConfig(dim=16, n_layers=2, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=264, max_seq_len=context)
    )
    with torch.no_grad():
        model.output.weight[97:123] *= 20
    save(directory, model, directory / "tokenizer.json")
    return directory


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "model", 1)


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "draft", 2)


def generate(model: Path, *options: Any) -> Result:
    return bpe("generate", model, "-p", "abcabc", "--threads", "1", "--max-tokens", "60", *options)


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize(
    "options",
    [
        ("--temperature", "0"),
        ("--temperature", "0.7", "--seed", "3", "--repetition-penalty", "1.1"),
        ("--temperature", "1", "--seed", "4", "--samples", "3", "-p", "xyzxy", "--stop", "a"),
        ("--temperature", "0.5", "--seed", "3", "--regex", "[a-f]{9,20}"),
    ],
)
def test_texts_are_the_same_with_proposals(model: Path, draft: Path, backend: str, options: tuple[str, ...]) -> None:
    plain = generate(model, "--backend", backend, *options)
    assert plain.exit_code == 0, plain.output
    for name, proposing in {
        "n-grams": ("--speculate", "ngram"),
        "the draft model": ("--draft", draft),
        "the first layers": ("--speculate", "layers", "--draft-layers", "1"),
    }.items():
        speculated = generate(model, "--backend", backend, *options, *proposing)
        assert speculated.stdout == plain.stdout
        last = speculated.stderr.splitlines()[-1]
        assert re.match(LINE.format(name), last) or last == f"speculation by {name}: nothing proposed"


def test_the_gain_is_part_of_the_json(model: Path) -> None:
    options = ("--json", "--logprobs", "2", "--temperature", "0", "--max-tokens", "300")
    plain, speculated = (json.loads(generate(model, *options, *more).stdout) for more in ((), ("--speculate", "ngram")))
    figures = speculated.pop("speculation")
    assert figures["by"] == "ngram"
    assert 0 < figures["accepted"] <= figures["proposed"]
    assert figures["accepted_share"] == figures["accepted"] / figures["proposed"]
    assert figures["tokens_per_call"] == pytest.approx(299 / figures["calls"])
    assert figures["gain"] > 0
    assert speculated["ids"] == plain["ids"]
    assert speculated["logprobs"] == pytest.approx(plain["logprobs"], abs=1e-4)
    assert "speculation" not in plain


def test_each_answer_of_a_chat_has_its_line(model: Path) -> None:
    options = ("--temperature", "0", "--threads", "1", "--max-tokens", "40", "--no-save", "-p", "one", "-p", "two")
    plain, speculated = (bpe("chat", model, *options, *more) for more in ((), ("--speculate", "ngram")))
    assert speculated.exit_code == 0, speculated.output
    assert speculated.stdout == plain.stdout
    lines = [line for line in speculated.stderr.splitlines() if line.startswith("speculation by n-grams: ")]
    assert len(lines) == 2


def test_wrong_drafts_are_refused(model: Path, draft: Path, tmp_path: Path) -> None:
    fails_with(generate(model, "--draft", tmp_path / "missing"), 1, "missing: no such file")
    fails_with(generate(model, "--draft", model), 1, "--draft", "this is the model itself")
    other = write_model(tmp_path / "other", 3, special=(*SPECIAL[:4], "<|other|>"))
    fails_with(generate(model, "--draft", other), 1, "--draft", "id 260", "<|other|>", "<|eot_id|>", "same vocabulary")
    fewer = write_model(tmp_path / "fewer", 3, special=SPECIAL[:4])
    fails_with(generate(model, "--draft", fewer), 1, "--draft", "260 tokens", "261", "same vocabulary")
    both = generate(model, "--draft", draft, "--speculate", "ngram")
    assert both.exit_code == 2
    assert "exclude each other" in both.stderr


def test_completions_compare_the_tokens_of_a_draft(model: Path, draft: Path) -> None:
    (llm, tokenizer), (small, _) = load(model), load(draft)
    with pytest.raises(InputError, match="draft_tokenizer is missing; give the tokenizer of the draft model"):
        Completions(llm, tokenizer, ["a"], speculation=Speculation(draft=small))
    other = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens={})
    with pytest.raises(InputError, match="the draft model has 256 tokens and the model 261"):
        Completions(llm, tokenizer, ["a"], speculation=Speculation(draft=small, draft_tokenizer=other))


def test_a_draft_with_a_shorter_context_is_said(model: Path, tmp_path: Path) -> None:
    short = write_model(tmp_path / "short", 2, context=32)
    plain, speculated = (generate(model, "--temperature", "0", *more) for more in ((), ("--draft", short)))
    assert speculated.stdout == plain.stdout
    assert "its context holds 32 tokens, that of the model 4,096" in speculated.stderr


def test_wrong_numbers_of_layers_are_refused(model: Path) -> None:
    alone = generate(model, "--draft-layers", "1")
    assert alone.exit_code == 2
    assert "--draft-layers needs --speculate layers" in alone.stderr
    many = generate(model, "--speculate", "layers", "--draft-layers", "2")
    assert many.exit_code == 2
    assert "--draft-layers 2: the model has 2 layers; give fewer" in many.stderr

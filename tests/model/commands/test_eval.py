"""`bpe eval`: what it reads, prints and refuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from bpe import Tokenizer
from model import ModelConfig, Transformer, load, save
from model.evaluation.texts import evaluate_texts, read_text
from support.command_line import bpe, fails_with
from support.references import BYTE_RANKS

QUESTION = {"question": "The sea is", "choices": ["blue", "a hat"], "answer": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of bytes whose context is 32."""
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    special = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257}
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special).save(
        directory / "tokenizer.json"
    )
    config = ModelConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=260, max_seq_len=32)
    save(directory, Transformer(config), directory / "tokenizer.json")
    return directory


def evaluate(model: Path, *options: Any, input: bytes | None = None) -> Result:
    return bpe("eval", model, "--threads", "1", "--samples", "100", *options, input=input)


def test_each_text_and_their_sum_have_a_row(model: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_bytes(b"the sea\xff\n" * 30)
    records = "".join(json.dumps({"body": f"tale {number}"}) + "\n" for number in range(3))
    (tmp_path / "tales.jsonl.gz").write_bytes(gzip.compress(records.encode()))
    texts = [tmp_path / "plain.txt", tmp_path / "tales.jsonl.gz"]
    result = evaluate(model, *texts, "--field", "body", "--window", "16", "--stride", "4")
    assert result.exit_code == 0, result.output
    header, *rows = (line.split("  ") for line in result.stdout.splitlines())
    assert [row[0] for row in rows] == [*map(str, texts), "all texts"]
    assert result.stderr.startswith("288 tokens in 4 documents, window 16, stride 4; on the CPU, float32, 1 thread; ")
    assert result.stderr.count("\n") == 1

    found = json.loads(evaluate(model, *texts, "--field", "body", "--window", "16", "--stride", "4", "--json").stdout)
    loaded = load(model)
    documents = {"plain.txt": [b"the sea\xff\n" * 30], "tales.jsonl.gz": [b"tale 0", b"tale 1", b"tale 2"]}
    for row, text in zip(found["texts"], texts, strict=True):
        read = read_text(loaded[1], documents[text.name], str(text))
        (expected,) = evaluate_texts(*loaded, [read], window=16, stride=4, samples=100)["texts"]
        assert row["nats"] == pytest.approx(expected["nats"], rel=1e-5)
        assert (row["name"], row["documents"], row["bytes"]) == (str(text), expected["documents"], expected["bytes"])
    assert (found["window"], found["stride"], found["dtype"], found["choices"]) == (16, 4, "float32", [])
    assert found["all_texts"]["bytes"] == 288


def test_the_window_defaults_to_the_context_and_the_stride_to_half_of_it(model: Path) -> None:
    found = json.loads(evaluate(model, "-", "--json", input=b"the sea " * 20).stdout)
    assert (found["window"], found["stride"]) == (32, 16)
    assert found["texts"][0]["name"] == "-"
    assert found["texts"][0]["tokens"] == 160
    same = json.loads(evaluate(model, "-", "--json", "--batch-tokens", "1", input=b"the sea " * 20).stdout)
    assert same["texts"][0]["nats"] == pytest.approx(found["texts"][0]["nats"], rel=1e-6)


def test_a_separator_splits_a_file_into_documents(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("one\n###\ntwo\n###\nthree")
    found = json.loads(evaluate(model, tmp_path / "text", "--separator", "###", "--json").stdout)
    assert (found["texts"][0]["documents"], found["texts"][0]["bytes"]) == (3, 11)


def test_questions_are_evaluated_with_and_without_texts(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text((json.dumps(QUESTION) + "\n") * 12)
    alone = evaluate(model, "--choices", file)
    assert alone.exit_code == 0, alone.output
    header, row = alone.stdout.splitlines()
    assert header.split()[:4] == ["choices", "questions", "chance", "accuracy"]
    assert row.split()[:3] == [str(file), "12", "50.0%"]
    assert alone.stderr.startswith("12 questions; on the CPU, float32, 1 thread; ")
    both = evaluate(model, "-", "--choices", file, "--choices", file, input=b"the sea")
    blocks = both.stdout.split("\n\n")
    assert [len(block.splitlines()) for block in blocks] == [2, 3]
    found = json.loads(evaluate(model, "--choices", file, "--json", "--delimiter", "").stdout)
    assert found["choices"][0]["answers"][0]["tokens"] == [4, 5]
    assert "texts" not in found


def test_wrong_input_is_reported_in_one_line(model: Path, tmp_path: Path) -> None:
    (tmp_path / "nil.txt").write_bytes(b"")
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (tmp_path / "bad.json").write_text(json.dumps({**QUESTION, "answer": 2}) + "\n")
    fails_with(evaluate(model, tmp_path / "nil.txt"), 1, "nil.txt: no text to measure")
    fails_with(evaluate(model, tmp_path / "bad.jsonl"), 1, "bad.jsonl: line 2 is not JSON")
    fails_with(evaluate(model, tmp_path / "gone.txt"), 1, "gone.txt: no such file")
    fails_with(evaluate(model, "--choices", tmp_path / "bad.json"), 1, 'bad.json: line 1: "answer" is 2')
    fails_with(evaluate(model, "--choices", tmp_path / "gone.jsonl"), 1, "gone.jsonl: no such file")
    fails_with(evaluate(model, "-", "--window", "33", input=b"sea"), 1, "window is 33", "1 to 32")
    fails_with(evaluate(model, "-", "--window", "8", "--stride", "9", input=b"sea"), 1, "stride is 9", "1 to 8")
    fails_with(evaluate(tmp_path / "nowhere", "-", input=b"sea"), 1, "nowhere")
    fails_with(evaluate(model), 2, "missing FILE, -c / --text TEXT or --choices FILE")


def test_options_without_effect_are_refused(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some text")
    for option in ("--separator", "--field", "--exclude", "--window", "--stride"):
        fails_with(evaluate(model, "--choices", "q.jsonl", option, "3"), 2, f"{option} has no effect without a text")
    fails_with(evaluate(model, str(text), "--delimiter", ":"), 2, "--delimiter has no effect without --choices")

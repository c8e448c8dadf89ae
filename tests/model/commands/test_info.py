"""`bpe info`: tokenizers, reports on texts, presets and models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bpe import Tokenizer
from model import ModelConfig, Transformer
from model.checkpoint import save
from model.presets import PRESETS
from support.command_line import ROOT, bpe, fails_with


def test_info_describes_tokenizers_and_presets(my_json: Path, tmp_path: Path) -> None:
    assert "1,024 tokens" in bpe("info", my_json).stdout
    assert "8,030,261,248" in bpe("info", "llama3-8b").stdout
    custom = tmp_path / "custom.json"
    bpe("train", ROOT / "corpora" / "prose.txt", "-o", custom, "--vocab-size", "600", "--pattern", r"\w+|\W")
    assert r"pattern            \w+|\W" in bpe("info", custom).stdout


def test_info_measures_a_tokenizer_on_texts(my_json: Path, tmp_path: Path) -> None:
    prose, thai = ROOT / "corpora" / "prose.txt", ROOT / "corpora" / "sentences" / "th.txt"
    result = bpe("info", my_json, prose, thai, "--report", tmp_path / "found")
    assert result.exit_code == 0, result.output
    counted = [row.split()[:2] for row in bpe("count", "-t", my_json, prose, thai).stdout.splitlines()]
    for (tokens, size), file in zip(counted, (prose, thai), strict=False):
        row = next(line for line in result.stdout.splitlines() if line.startswith(str(file)))
        assert row.split()[1:3] == [f"{int(size):,}", f"{int(tokens):,}"]
    assert result.stdout.startswith(bpe("info", my_json).stdout)
    assert "growth.png" in result.stderr
    as_json = bpe("info", my_json, prose, thai, "--json")
    assert json.loads(as_json.stdout) == json.loads((tmp_path / "found" / "report.json").read_text())
    assert json.loads(bpe("info", my_json, "--json").stdout)["texts"] == []


def test_info_splits_documents_as_the_other_commands_do(my_json: Path) -> None:
    text = "one two<|end_of_text|>three"
    cut = json.loads(bpe("info", my_json, "-", "--json", "--separator", "<|end_of_text|>", input=text).stdout)
    assert (cut["texts"][0]["documents"], cut["texts"][0]["bytes"]) == (2, 12)
    whole = json.loads(bpe("info", my_json, "-", "--json", input=text).stdout)
    assert whole["texts"][0]["tokens"] == len(bpe("encode", "-t", my_json, "-c", text).stdout.split())


def test_info_reports_wrong_input_in_one_line(my_json: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    fails_with(bpe("info", my_json, tmp_path / "empty.txt"), 1, "empty.txt", "no text", prints=True)
    fails_with(bpe("info", my_json, tmp_path / "none.txt"), 1, "none.txt", "no such file", prints=True)
    fails_with(bpe("info", "llama3.2-1b", tmp_path / "empty.txt"), 1, "llama3.2-1b: a preset", "no tokenizer")
    fails_with(bpe("info", my_json, "--report", my_json), 1, "my.json: a file is in the way", prints=True)


def test_info_without_matplotlib_writes_everything_but_the_plots(
    my_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = bpe("info", my_json, "--report", tmp_path / "found")
    assert result.exit_code == 0, result.output
    first, second = result.stderr.splitlines()
    assert first == (
        f"bpe: {tmp_path / 'found'}: the plots are left out; they need matplotlib, which is not installed:"
        " pip install 'bpe-llama[report]'"
    )
    assert second.endswith("report.json, report.md")
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"report.json", "report.md"}
    asked = bpe("info", my_json, "--report", tmp_path / "other", "--format", "svg")
    fails_with(asked, 1, "other", "matplotlib", "bpe-llama[report]")
    assert not (tmp_path / "other").exists()


def test_info_draws_the_plots_in_other_formats(my_json: Path, tmp_path: Path) -> None:
    result = bpe("info", my_json, "--report", tmp_path / "found", "--format", "svg,pdf", "--format", "svg", "--dark")
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "found").iterdir()}
    assert names == {"report.json", "report.md", "lengths.svg", "lengths.pdf", "scripts.svg", "scripts.pdf"}
    fails_with(bpe("info", my_json, "--report", tmp_path / "found", "--format", "gif"), 2, "gif", "png, svg, pdf")


def test_info_computes_costs_for_a_batch_and_a_length() -> None:
    def row(label: str, *options: str) -> str:
        lines = bpe("info", "llama3-8b", *options).stdout.splitlines()
        return next(line.removeprefix(label).strip() for line in lines if line.startswith(label))

    # 128 KiB a token: 2 (key, value) * 32 layers * 8 heads * 128 numbers * 2 bytes
    assert row("KV cache") == "131 kB a token, 1.07 GB for 8,192 tokens, in bfloat16"
    eight = row("KV cache", "--batch", "8", "--length", "1000")
    assert eight == "131 kB a token, 1.05 GB for 8 sequences of 1,000 tokens, in bfloat16"
    assert row("prefill", "--length", "1000").startswith("14.2 TFLOP for 1,000 tokens, 14.2 GFLOP a token")
    assert row("decode", "--length", "1000") == "15 GFLOP for the first token, 15.5 GFLOP for token 1,000"
    assert row("parameters").startswith("8,030,261,248: embedding 525,336,576, attention 1,342,177,280, feed-forward")
    fails_with(bpe("info", "llama3-8b", "--length", "9000"), 1, "--length is 9,000", "8,192")


@pytest.mark.parametrize("name", ["llama3.1-405b", "mixtral-8x7b", "smollm3-3b"])
def test_info_has_units_for_the_largest_numbers(name: str) -> None:
    """The operations of a token, times the length of the text, are those of the text."""
    (line,) = (line for line in bpe("info", name).stdout.splitlines() if line.startswith("prefill"))
    units = {"GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15}
    _, whole, unit, _, length, _, each, unit_of_each, *_ = line.split()
    of_each = float(each) * units[unit_of_each] * int(length.replace(",", ""))
    assert float(whole) * units[unit] == pytest.approx(of_each, rel=0.01)


def test_info_fits_the_sizes_of_a_cache_into_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in PRESETS:
        lines = [line for line in bpe("info", name).stdout.splitlines() if "a token, " in line and "head" in line]
        assert all(len(line) <= 80 for line in lines), name


def test_info_compares_key_value_heads_and_says_what_only_relatives_of_llama_have() -> None:
    grouped = bpe("info", "llama3-8b").stdout
    assert [line.strip() for line in grouped.splitlines() if line.startswith(" ")] == [
        "multi-head (32 key-value heads): 524 kB a token, 4.29 GB",
        "grouped (8 key-value heads): 131 kB a token, 1.07 GB, as here",
        "multi-query (1 key-value head): 16.4 kB a token, 134 MB",
    ]
    assert "norms " not in grouped.split("parameters")[0]
    gemma = bpe("info", "gemma2-2b").stdout
    for line in (
        "attention   window of 4,096 tokens in 13 of 26 layers, scores capped at 50",
        "norms       before and after attention and feed-forward, times 1 + weight",
        "scales      embeddings times 48, logits capped at 30",
    ):
        assert line in gemma.splitlines()
    assert "12,879,925,248 parameters active for a token" in bpe("info", "mixtral-8x7b").stdout
    assert "positions   none in 9 of 36 layers" in bpe("info", "smollm3-3b").stdout
    assert "norms       after attention and feed-forward, not before, of all q" in bpe("info", "olmo2-7b").stdout


def test_info_needs_no_torch_for_presets_and_unknown_names() -> None:
    program = "import sys; sys.modules['torch'] = None; from bpe.cli import main; main()"

    def info(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, "info", name]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    preset = info("llama3.2-1b")
    assert (preset.returncode, preset.stderr) == (0, "")
    assert "parameters  1,235,814,400" in preset.stdout
    unknown = info("typo.json")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("bpe: typo.json: no such file, and not a known name")
    fails_with(bpe("info", "typo.gguf"), 1, "typo.gguf: no such file, and not a known name")
    assert unknown.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("llama3.2-1b", "--pattern", "gpt2"), "--pattern has no effect on a model or on shards"),
        (("llama3.2-1b", "--separator", "x"), "--separator has no effect without a text"),
        (("{tokenizer}", "--length", "3"), "--length has no effect on a tokenizer"),
        (("{tokenizer}", "--exclude", "x", "--json"), "--exclude has no effect without a text"),
        (("{tokenizer}", "--format", "svg"), "--format has no effect without --report DIR"),
        (("llama3.2-1b", "--dark"), "--dark has no effect without --report DIR"),
    ],
)
def test_info_refuses_options_without_effect(my_json: Path, arguments: tuple[str, ...], message: str) -> None:
    fails_with(bpe("info", *(argument.format(tokenizer=my_json) for argument in arguments)), 2, message)


def test_a_misspelt_preset_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fails_with(bpe("info", "lama3.2-1b"), 1, "lama3.2-1b: no such file, and not a", "did you mean llama3.2-1b?\n")
    fails_with(bpe("info", "lama3"), 1, "lama3: no such file, and not a known name or a preset; did you mean llama3?\n")
    fails_with(
        bpe("info", "llama3.2-1b", "--json"), 1, "llama3.2-1b: a preset is the shape of a model and has no tokenizer"
    )
    fails_with(bpe("info", "micr"), 1, "micr: no such file", "did you mean micro?\n")
    (tmp_path / "micr").mkdir()
    assert "micro" not in bpe("info", "micr").stderr


def test_info_says_that_a_tokenizer_does_not_fit_the_model(my_json: Path, tmp_path: Path) -> None:
    size = Tokenizer.from_file(my_json).n_vocab
    model = Transformer(ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=size - 1))
    save(tmp_path / "model", model, my_json)
    output = bpe("info", tmp_path / "model").output
    assert f"the tokenizer has {size} tokens, but the model only {size - 1}; they do not belong" in " ".join(
        output.split()
    )
    fails_with(bpe("convert", tmp_path / "model", tmp_path / "out"), 1, "copy the tokenizer that came with the model")

"""Test the quantization benchmark: it runs, and its measures equal their definitions."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from bpe import Tokenizer
from model import ModelConfig, Transformer, load, save
from support.references import BYTE_RANKS

CONFIG = ModelConfig(
    dim=64, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=96, vocab_size=300, max_seq_len=128, tied_embeddings=True
)


@pytest.fixture
def benchmark(load_script: Callable[[str], ModuleType]) -> ModuleType:
    """The benchmark as a module."""
    return load_script("quantize")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A tiny model in a directory."""
    torch.manual_seed(0)
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens={"<s>": 256}).save(
        tmp_path / "tokenizer.json"
    )
    save(tmp_path / "model", Transformer(CONFIG), tmp_path / "tokenizer.json")
    return tmp_path / "model"


def test_each_type_is_measured_with_every_reader_and_compared_with_the_original(
    benchmark: ModuleType,
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, output = tmp_path / "text.txt", tmp_path / "results.json"
    text.write_text("An old man lived at the end of the village, and he had a dog." * 2)
    monkeypatch.setattr(benchmark, "run_worker", lambda script, job, threads: benchmark.work(job))
    monkeypatch.setattr(
        sys, "argv", ["quantize.py", str(directory), "--types", "as it is,q8_0,q4_0", "--texts", str(text), "--steps",
                      "3", "--window", "40", "--threads", "1", "--readers", "float32,native,native int8 cache",
                      "--json", str(output)]
    )  # fmt: skip
    benchmark.main()
    results = json.loads(output.read_text())["results"]
    assert list(results) == ["q8_0", "q4_0"]  # "as it is" needs a GGUF
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[-6:]] == ["q8_0,"] * 3 + ["q4_0,"] * 3
    for kind, readers in ((kind, found["readers"]) for kind, found in results.items()):
        assert list(readers) == ["float32", "native", "native int8 cache"]
        assert readers["float32"]["from float32"] == {"largest": 0, "mean": 0, "same id": 1}
        native, narrow = (readers[name]["from float32"]["mean"] for name in ("native", "native int8 cache"))
        assert 0 < native < narrow < readers["native"]["from the original"]["mean"], kind
        assert readers["native"]["tokens/s"] > 0
    eight, four = results["q8_0"], results["q4_0"]
    assert (eight["bits"] > 8.5) & (four["bits"] > 4.5) & (eight["MB"] > four["MB"])
    errors = [found["readers"]["native"]["from the original"]["mean"] for found in (eight, four)]
    assert errors[0] < errors[1]
    # Perplexity by its definition, for a text that fits into one window.
    original, tokenizer = load(directory, torch.float32)
    ids = torch.tensor([tokenizer.encode_ordinary(text.read_text())[:40]])
    job = {"original": str(directory), "file": str(directory), "ids": ids[0].tolist(), "bytes": 39, "window": 40,
           "steps": 1, "threads": 1, "readers": ["float32"]}  # fmt: skip
    found = benchmark.work(job)["float32"]
    with torch.inference_mode():
        shares = original(ids)[0, :-1].log_softmax(-1)
    nats = -float(shares[torch.arange(39), ids[0, 1:]].sum())
    assert found["perplexity"] == pytest.approx(math.exp(nats / 39))
    assert found["bits per byte"] == pytest.approx(nats / math.log(2) / 39)

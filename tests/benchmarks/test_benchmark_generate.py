"""Test the generation benchmark: it measures a file, a converted file or a random model, and compares greedy ids."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bpe import Tokenizer
from bpe.formats.gguf_container import Container
from model import ModelConfig, Transformer, load, save
from support.references import BYTE_RANKS

CONFIG = ModelConfig(
    dim=64, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=96, vocab_size=300, max_seq_len=128, tied_embeddings=True
)
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def benchmark(load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module, with short prompts."""
    script = load_script("generate")
    for name, length in {"PROMPT": 8, "LONG": 24, "FAR": 40, "FIRST": 6}.items():
        monkeypatch.setattr(script, name, length)
    return script


@pytest.fixture
def run(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs the benchmark in this process.

    It returns the results and, under "types", the weight types of the matrices in the measured file.
    """

    def run(*arguments: str) -> dict[str, Any]:
        types: set[str] = set()

        def work(script: str, job: Mapping[str, Any], threads: int) -> Any:
            types.update(info.type for info in Container.open(job["path"]).tensors.values() if len(info.shape) > 1)
            return benchmark.work(job)

        output = tmp_path / "results.json"
        common = ("--threads", "1", "--tokens", "2", "--repeat", "1", "--json", str(output))
        monkeypatch.setattr(benchmark, "run_worker", work)
        monkeypatch.setattr(sys, "argv", ["generate.py", *arguments, *common])
        benchmark.main()
        return json.loads(output.read_text()) | {"types": types}

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tiny model in a GGUF file."""
    torch.manual_seed(0)
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens={"<s>": 256}).save(
        tmp_path / "tokenizer.json"
    )
    save(tmp_path / "tiny.gguf", Transformer(CONFIG), tmp_path / "tokenizer.json")
    return tmp_path / "tiny.gguf"


@pytest.mark.parametrize(
    ("arguments", "types"),
    [((), {"F32"}), (("--quantize", "bf16"), {"BF16"}), (("--quantize", "q4_0"), {"Q4_0", "Q8_0"})],
)
def test_a_file_is_measured_unchanged_or_converted_to_a_weight_type(
    run: Run, file: Path, arguments: tuple[str, ...], types: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(str(file), *arguments, "--peers", "ours native,ours float32")
    assert found["types"] == types
    ((native,), (float32,)) = found["results"].values()
    assert all(each[column] > 0 for each in (native, float32) for column in ("decode 1", "decode 8", "prefill", "load"))
    assert native["share of a pure read"] > 0
    assert "share of a pure read" not in float32
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2].endswith("the same")
    assert printed[-1].startswith("ours native decodes at ")


def test_greedy_ids_equal_the_model_s_and_are_compared_with_the_reference(
    run: Run, benchmark: ModuleType, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(str(file), "--peers", "ours float32", "--reference", "ours native")
    model, tokenizer = load(file, torch.float32)
    ids = tokenizer.encode_ordinary(benchmark.TEXT)[: benchmark.PROMPT]
    with torch.inference_mode():
        for _ in range(benchmark.FIRST):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    ((float32,),) = found["results"].values()
    assert float32["greedy"] == ids[benchmark.PROMPT :]
    assert capsys.readouterr().out.splitlines()[-1].endswith("the same")
    benchmark.table(found["results"], [*ids[benchmark.PROMPT : -1], -1])
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"differs from {benchmark.FIRST}")


def test_a_preset_shape_is_measured_with_random_weights(
    run: Run, benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("--shape", "nano", "--quantize", "q4_1", "--peers", "ours native", "--reference", "ours native")
    assert (found["model"], found["quantize"], found["types"]) == ("nano", "q4_1", {"Q4_1", "Q8_0"})
    assert capsys.readouterr().out.splitlines()[-2].endswith("the same")
    files = [tmp_path / name for name in ("one.gguf", "two.gguf")]
    for file in files:
        benchmark.write_file(benchmark.random_checkpoint("nano", tmp_path), "q8_0", file)
    assert files[0].read_bytes() == files[1].read_bytes()
    model, _ = load(files[0], torch.float32)
    assert model.config.dim == ModelConfig.preset("nano").dim
    assert float(model.layers[2].feed_forward.w2.weight.std()) == pytest.approx(0.02, rel=0.02)


def test_exactly_one_of_a_model_and_a_shape_is_required(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("smollm2", "--shape", "nano"), ()):
        with pytest.raises(SystemExit):
            run(*arguments)
    assert "--shape" in capsys.readouterr().err

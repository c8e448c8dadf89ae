"""`bpe convert`: each format, and extended vocabularies."""

from __future__ import annotations

from pathlib import Path

from support.command_line import ROOT, bpe, fails_with


def test_convert_writes_each_format_and_info_describes_it(run: Path, tmp_path: Path) -> None:
    expected = bpe("generate", run, "-p", "Once upon", "--max-tokens", "8", "--temperature", "0").stdout
    for name, dtype in (("huggingface", None), ("meta", None), ("bpe-llama", None), ("huggingface", "bfloat16")):
        out = tmp_path / f"{name}-{dtype}"
        options = ["--dtype", dtype] if dtype else []
        result = bpe("convert", run, out, "--format", name, *options)
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        assert result.stderr.startswith(f"{out}: {name}, ")
        assert result.stderr.endswith(" MB\n")
        rows = dict(line.split(maxsplit=1) for line in bpe("info", out).stdout.splitlines())
        assert rows["format"] == f"{name}, weights in {dtype or 'float32'}"
        assert rows["parameters"].startswith("684,928: embedding 131,072,")
        if dtype is None:
            shown = bpe("generate", out, "-p", "Once upon", "--max-tokens", "8", "--temperature", "0")
            assert shown.stdout == expected
        for file in out.iterdir():  # a tokenizer is a tokenizer, also beside a model
            if file.name in ("tokenizer.json", "model.safetensors", "config.json"):
                assert ("merges" in bpe("info", file).stdout) == (file.name == "tokenizer.json")
    fails_with(bpe("convert", run, tmp_path / "meta-None"), 1, "meta-None", "already exists")
    fails_with(bpe("convert", run, tmp_path / "new", "--format", "onnx"), 1, "onnx", "huggingface")
    fails_with(bpe("convert", tmp_path, tmp_path / "new"), 1, "no model here")
    assert not (tmp_path / "new").exists()


def test_convert_resizes_a_model_for_an_extended_vocabulary(run: Path, my_json: Path, tmp_path: Path) -> None:
    grown = tmp_path / "grown.json"
    assert bpe("train", ROOT / "corpora", "-o", grown, "--base", my_json, "--vocab-size", "1100").exit_code == 0
    result = bpe("convert", run, tmp_path / "out", "--resize-vocab", grown)
    assert result.exit_code == 0, result.output
    assert "vocabulary  1,100" in bpe("info", tmp_path / "out").stdout
    assert bpe("generate", tmp_path / "out", "-p", "Once upon", "--max-tokens", "4").exit_code == 0
    back = bpe("convert", tmp_path / "out", tmp_path / "no", "--resize-vocab", my_json)
    fails_with(back, 1, f"{my_json}: does not extend the vocabulary", "no token", "trained with --base")

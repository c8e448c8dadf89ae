"""`bpe convert`: each format, and extended vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
import tokenizers
import torch

from bpe import Tokenizer
from model import load
from support.command_line import ROOT, bpe, fails_with
from support.pieces import trained


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
    fails_with(bpe("convert", run, tmp_path / "new", "--format", "onnx"), 2, "onnx", "huggingface")
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


def test_convert_adds_special_tokens_to_a_tokenizer_and_a_model_follows(
    run: Path, my_json: Path, tmp_path: Path
) -> None:
    before = Tokenizer.from_file(my_json)
    grown = tmp_path / "grown.json"
    result = bpe("convert", my_json, grown, "--special", "<|turn|>", "--special", "a", "--special", "<|x|>")
    assert result.exit_code == 0, result.output
    after = Tokenizer.from_file(grown)
    reference = tokenizers.Tokenizer.from_file(str(my_json))
    reference.add_special_tokens(["<|turn|>", "a", "<|x|>"])
    text = "over<|turn|> the top of the<|x|>other"
    assert after.encode(text, allowed_special="all") == reference.encode(text, add_special_tokens=False).ids
    assert after.n_vocab == before.n_vocab + 2
    assert after.mergeable_ranks == before.mergeable_ranks
    assert after.special_tokens.items() >= before.special_tokens.items()
    assert f"'<|turn|>' is {before.n_vocab}, 'a' is 97, '<|x|>' is {before.n_vocab + 1}\n" in result.stderr

    assert bpe("convert", run, tmp_path / "out", "--resize-vocab", grown).exit_code == 0
    old, new = (load(path)[0].tok_embeddings.weight for path in (run, tmp_path / "out"))
    assert new.shape[0] == after.n_vocab
    assert torch.equal(new[: before.n_vocab], old[: before.n_vocab])
    torch.testing.assert_close(new[before.n_vocab], old[before.encode_ordinary("<|turn|>")].mean(0))
    assert load(tmp_path / "out")[1].special_tokens == after.special_tokens


def test_convert_writes_a_tokenizer_alone_in_each_format(my_json: Path, tmp_path: Path) -> None:
    before = Tokenizer.from_file(my_json)
    for name in ("a.gguf", "a.json", "a.model"):
        assert bpe("convert", my_json, tmp_path / name).exit_code == 0
        assert (
            Tokenizer.from_file(tmp_path / name, pattern=before.pattern.text).mergeable_ranks == before.mergeable_ranks
        )
    assert bpe("convert", tmp_path / "a.gguf", tmp_path / "b.json", "--special", "<|x|>").exit_code == 0
    assert Tokenizer.from_file(tmp_path / "b.json").special_tokens["<|x|>"] == before.n_vocab


def test_convert_adds_special_tokens_to_a_sentencepiece_model(tmp_path: Path) -> None:
    before, after = tmp_path / "before.model", tmp_path / "after.model"
    before.write_bytes(trained("bytes"))
    result = bpe("convert", before, after, "--special", "<|x|>")
    assert result.exit_code == 0, result.output
    library = sentencepiece.SentencePieceProcessor(model_file=str(after))
    assert library.is_control(Tokenizer.from_file(after).special_tokens["<|x|>"])
    refused = bpe("convert", before, tmp_path / "ranks.tiktoken", "--special", "<|x|>")
    fails_with(refused, 1, "merges characters instead of bytes, which tiktoken's format cannot express")


def test_convert_refuses_special_tokens_that_cannot_be_added(run: Path, my_json: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    no_room = bpe("convert", run, tmp_path / "out", "--special", "<|x|>")
    fails_with(no_room, 1, str(run), "a model", "--special '<|x|>'", "--resize-vocab")
    fails_with(bpe("convert", tmp_path / "none", out, "--special", "<|x|>"), 1, "none")
    fails_with(bpe("convert", my_json, tmp_path / "x.model", "--special", "<|x|>"), 1, "x.model", "no special", ".json")
    fails_with(bpe("convert", my_json, out, "--special", "<|x|>", "--special", "<|x|>"), 1, "given twice")
    fails_with(bpe("convert", my_json, out, "--special", ""), 1, "empty")
    fails_with(bpe("convert", my_json, tmp_path / "x.txt", "--special", "<|x|>"), 1, "x.txt", "'.txt'")
    for option, value in (
        ("--dtype", "float16"),
        ("--quantize", "q8_0"),
        ("--resize-vocab", my_json),
        ("--format", "meta"),
    ):
        fails_with(bpe("convert", my_json, out, option, value), 1, "without a model", option)
    out.write_text("mine")
    fails_with(bpe("convert", my_json, out), 1, "out.json", "already exists")
    assert out.read_text() == "mine"
    assert [*tmp_path.iterdir()] == [out]


def test_the_output_is_named_by_the_format(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, format in ((f"{run.name}.gguf", "gguf"), (f"{run.name}-meta", "meta")):
        result = bpe("convert", run, "--format", format)
        assert result.exit_code == 0, result.output
        assert result.stderr.startswith(f"bpe: by default: OUT {name}\n")
        assert (tmp_path / name).exists()
    again = bpe("convert", f"{run.name}.gguf", "--format", "meta")
    assert again.exit_code == 1
    assert again.stderr.endswith(f"bpe: {run.name}-meta: already exists; remove it, or give another name\n")
    fails_with(bpe("convert", run), 2, "missing OUT (or --format NAME)\n")
    fails_with(bpe("convert"), 2, "missing IN, OUT (or --format NAME)\n")
    fails_with(bpe("convert", "x", "--special", "<s>", "--format", "gguf"), 2, "missing OUT, the tokenizer file")


def test_ignore_unknown_passes_over_keys_with_a_warning(run: Path, tmp_path: Path) -> None:
    assert bpe("convert", run, tmp_path / "hf", "--format", "huggingface").exit_code == 0
    config = tmp_path / "hf" / "config.json"
    config.write_text(config.read_text().replace("{", '{"novelty": 3,', 1))
    for command in (["info"], ["generate", "-p", "Once", "--max-tokens", "1"]):
        name, *options = command
        fails_with(bpe(name, tmp_path / "hf", *options), 1, "config.json: novelty (value 3)", "--ignore-unknown")
        with pytest.warns(UserWarning, match="passed over keys that .*novelty"):
            assert bpe(name, tmp_path / "hf", *options, "--ignore-unknown").exit_code == 0
    fails_with(bpe("convert", tmp_path / "hf", tmp_path / "new"), 1, "novelty", "--ignore-unknown")
    with pytest.warns(UserWarning, match="passed over keys that .*novelty"):
        assert bpe("convert", tmp_path / "hf", tmp_path / "new", "--ignore-unknown").exit_code == 0
    assert bpe("info", tmp_path / "new").exit_code == 0

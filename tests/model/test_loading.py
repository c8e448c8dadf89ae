"""`model.load`, with a real tokenizer."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Literal

import pytest
import torch

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.formats.gguf_container import Container
from model import ModelConfig, Transformer, generate, load, save
from model.checkpoint import convert
from support.references import BYTE_RANKS

SPECIAL = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257}


@pytest.fixture
def directory(tmp_path: Path, model: Transformer) -> Path:
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=SPECIAL).save(
        tmp_path / "tokenizer.json"
    )
    save(tmp_path / "model", model, tmp_path / "tokenizer.json")
    return tmp_path / "model"


def test_load_accepts_a_directory_or_a_file_in_it(directory: Path, model: Transformer) -> None:
    for path in (directory, str(directory), directory / "model.safetensors"):
        loaded, tokenizer = load(path)
        # Weights mapped from a file have other alignments, which changes the order of sums.
        torch.testing.assert_close(loaded(torch.tensor([[1]])), model(torch.tensor([[1]])), rtol=1e-5, atol=1e-5)
        assert tokenizer.n_vocab == 258
        assert "".join(generate(loaded, tokenizer, "Once", max_tokens=5, seed=0))


def test_the_header_of_a_gguf_is_parsed_once(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(directory, tmp_path / "model.gguf")
    parsed: list[int] = []
    parse = Container.__init__

    def counted(self: Container, content: bytes | mmap.mmap) -> None:
        parsed.append(len(content))
        parse(self, content)

    monkeypatch.setattr(Container, "__init__", counted)
    tokenizer = load(tmp_path / "model.gguf")[1]
    assert parsed == [(tmp_path / "model.gguf").stat().st_size]
    again = Tokenizer.from_file(tmp_path / "model.gguf")
    assert (tokenizer.name, tokenizer.mergeable_ranks, tokenizer.special_tokens, tokenizer.pattern) == (
        *(again.name, again.mergeable_ranks, again.special_tokens, again.pattern),
    )


def test_a_gguf_with_an_unsupported_tokenizer_raises_with_the_file_name(directory: Path, tmp_path: Path) -> None:
    convert(directory, tmp_path / "model.gguf")
    content = (tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(content.replace(b"llama-bpe", b"llama-bqe"))
    with pytest.raises(InputError, match=r"^\S*model\.gguf: tokenizer\.ggml\.pre is 'llama-bqe'.*mean llama-bpe"):
        load(tmp_path / "model.gguf")


def test_a_native_model_is_packed_while_its_tokenizer_is_read(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    convert(directory, path)
    loaded, tokenizer = load(path, backend="native")
    ids = torch.tensor([tokenizer.encode("Once upon a time")])
    torch.testing.assert_close(loaded(ids), load(path)[0](ids), rtol=1e-4, atol=1e-5)
    content = bytearray(path.read_bytes())
    content[-64:] = b"\xff" * 64  # not finite
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.gguf: \S+ contains numbers.*not finite"):
        load(path, backend="native")
    path.write_bytes(content.replace(b"llama-bpe", b"llama-bqe"))
    with pytest.raises(InputError, match=r"tokenizer\.ggml\.pre is 'llama-bqe'"):  # the first error
        load(path, backend="native")


def test_a_tokenizer_larger_than_the_model_raises(directory: Path, tmp_path: Path) -> None:
    small = Transformer(ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=257))
    save(tmp_path / "small", small, directory / "tokenizer.json")
    refusal = r"small: the tokenizer has 258 tokens, but the model only 257; .* copy the tokenizer that came with"
    with pytest.raises(InputError, match=refusal):
        load(tmp_path / "small")
    with pytest.raises(InputError, match=refusal):
        convert(tmp_path / "small", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_image_token_of_gemma_3_needs_no_row_in_a_model_of_text(directory: Path, tmp_path: Path) -> None:
    tokenizer_file = directory / "tokenizer.json"
    Tokenizer.from_file(tokenizer_file).with_special_tokens(["<|pad|>", "<image_soft_token>"]).save(tokenizer_file)
    for path in (directory, tmp_path / "huggingface", tmp_path / "model.gguf"):
        if path != directory:
            convert(directory, path)
        model, tokenizer = load(path)
        assert tokenizer.n_vocab == model.config.vocab_size == 259
        assert "<image_soft_token>" not in tokenizer.special_tokens_set
        assert tokenizer.decode(tokenizer.encode("a<image_soft_token>")) == "a<image_soft_token>"


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("threads", [0, 1_000_000])
def test_a_number_of_threads_that_no_machine_can_run_raises(
    directory: Path, backend: Literal["native", "torch"], threads: int
) -> None:
    with pytest.raises(InputError, match=f"^threads is {threads:,}"):
        load(directory, backend=backend, threads=threads)


def test_a_directory_without_a_model_raises_with_the_known_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"params\.json with model\.safetensors, or params\.json with consolidated"):
        load(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "nowhere")

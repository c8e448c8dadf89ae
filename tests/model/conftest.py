"""A byte-level tokenizer and small models shared by all tests of `model`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bpe.shards import Shards, write_shards
from model import ModelConfig, Transformer

# The models are so small that threads mostly wait for each other, a hundred times as long on a busy machine.
torch.set_num_threads(1)


class ByteTokenizer:
    """The smallest tokenizer for generation: ids 0 to 255 are bytes, 256 to 258 are special tokens."""

    n_vocab = 259

    def __init__(self) -> None:
        self.special = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257, "<|eot_id|>": 258}
        self.special_tokens_set = set(self.special)

    def encode_ordinary(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        if isinstance(text_or_bytes, str) and text_or_bytes in self.special:
            return self.special[text_or_bytes]
        (token,) = text_or_bytes.encode() if isinstance(text_or_bytes, str) else text_or_bytes
        return token

    def decode_single_token_bytes(self, token: int) -> bytes:
        if token < 256:
            return bytes([token])
        return {number: text.encode() for text, number in self.special.items()}[token]

    def token_sizes(self) -> npt.NDArray[np.uint32]:
        return (np.arange(self.n_vocab) < 256).astype(np.uint32)

    def encode_flat(
        self, documents: list[bytes | str], *, num_threads: int | None = None
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        encoded = [document.encode() if isinstance(document, str) else document for document in documents]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return np.frombuffer(b"".join(encoded), np.uint8).astype(np.uint32), offsets


@pytest.fixture
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture
def config() -> ModelConfig:
    """Two layers, grouped queries, a context of 64."""
    return ModelConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=48, vocab_size=259, max_seq_len=64, tied_embeddings=True
    )


@pytest.fixture
def make_model() -> Callable[[ModelConfig], Transformer]:
    """Returns models whose weights are large enough that every part changes the logits."""

    def make(config: ModelConfig, seed: int = 0) -> Transformer:
        model = Transformer(config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                spread = 0.3 if parameter.dim() > 1 else 0.1
                offset = 0.0 if parameter.dim() > 1 else 1.0
                parameter.copy_(offset + spread * torch.randn(parameter.shape, generator=generator))
        return model

    return make


@pytest.fixture
def model(config: ModelConfig, make_model: Callable[[ModelConfig], Transformer]) -> Transformer:
    return make_model(config)


@pytest.fixture
def data(tmp_path: Path, tokenizer: ByteTokenizer) -> Path:
    """A shard directory of forty short documents."""
    tokenizer_file = tmp_path / "tokenizer.json"
    tokenizer_file.write_text('{"kind": "bytes"}')
    documents = [f"The {animal} has {count} {thing}." for animal in ("cat", "dog", "hen", "cow") for count in range(5)
                 for thing in ("eggs", "toys")]  # fmt: skip
    shards: Shards = write_shards(documents, tokenizer, tmp_path / "data", tokenizer_file=tokenizer_file, held_out=0.2)
    return shards.directory

from __future__ import annotations

from pathlib import Path

import pytest

from bpe import Tokenizer
from bpe.chat import Llama3Chat
from model import PRESETS, Completion, Generation, ModelConfig, Sampling, Session, Transformer, generate_ids, quantize
from model.generation.conversation import Conversation


@pytest.mark.parametrize("name", PRESETS)
def test_the_repr_of_a_configuration_makes_an_equal_one(name: str) -> None:
    config = ModelConfig.preset(name)
    assert eval(repr(config)) == config
    assert len(repr(config)) < (450 if config.unlike_llama() else 250)


def test_the_repr_of_a_configuration_leaves_out_defaults_and_derived_sizes() -> None:
    config = ModelConfig(dim=32, n_layers=1, n_heads=4, vocab_size=100, hidden_dim=64, n_kv_heads=2)
    assert repr(config) == "ModelConfig(dim=32, n_layers=1, n_heads=4, vocab_size=100, n_kv_heads=2, hidden_dim=64)"


def test_objects_of_generation_have_short_telling_reprs(tmp_path: Path) -> None:
    model = Transformer(ModelConfig.preset("nano", vocab_size=300))
    session = Session(model)
    assert len(list(generate_ids(model, [1, 2], max_tokens=3, session=session))) == 3
    assert repr(session) == "<Session: 4 tokens in the cache>"
    assert repr(session.cache).startswith("<KVCache: 4 of ")
    generation = Generation(model, [[1], [2]], max_tokens=5, sampling=Sampling(seed=1))
    assert repr(generation).startswith("<Generation: 2 prompts, samples=1, max_tokens=5, Sampling(temperature=0.8,")
    completion = Completion(1, "a" * 100, ids=[1] * 100, finish="end")
    assert repr(completion) == f"<Completion of prompt 1: '{'a' * 57}...', 100 tokens, finish 'end'>"
    small = repr(quantize(model, "q8_0"))
    assert small.startswith(f"<NativeModel: {model.config.n_parameters:,} parameters in Q8_0, F32, kernels for ")
    ranks = {bytes([byte]): byte for byte in range(256)}
    names = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    special = {name: 256 + place for place, name in enumerate(names)}
    tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens=special)
    assert repr(Conversation(model, tokenizer, Llama3Chat(tokenizer))) == "<Conversation: 0 messages>"

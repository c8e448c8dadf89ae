from __future__ import annotations

import gc
import weakref

import pytest
import torch

from bpe.errors import InputError
from model import KVCache, ModelConfig, Transformer


def test_memory_grows_on_demand_and_never_beyond_the_context(model: Transformer) -> None:
    config = model.config
    cache = KVCache(config)
    assert cache.bytes == 0
    with torch.no_grad():
        model(torch.zeros(1, 3, dtype=torch.long), cache)
    assert cache.capacity == 64 == config.max_seq_len
    assert cache.bytes == config.kv_cache_bytes(batch=1, length=64, bytes_per_number=4)


def test_growing_keeps_keys_and_values() -> None:
    config = ModelConfig(dim=8, n_layers=2, n_heads=2, vocab_size=10, max_seq_len=200)
    cache = KVCache(config, capacity=2)
    read = torch.randn(1, 2, 150, 4)
    for position in range(150):
        cache.reserve(1)
        for layer in range(2):
            one = read[:, :, position : position + 1] + layer
            keys, values = cache.update(layer, one, -one)
            assert torch.equal(keys, read[:, :, : position + 1] + layer)
            assert torch.equal(values, -keys)
        cache.advance(1)
    assert cache.capacity == 256


def test_reading_beyond_the_context_raises_with_both_lengths(model: Transformer) -> None:
    cache = KVCache(model.config)
    with torch.no_grad():
        model(torch.zeros(1, 60, dtype=torch.long), cache)
        with pytest.raises(InputError, match=r"65 tokens.*holds 64"):
            model(torch.zeros(1, 5, dtype=torch.long), cache)
    assert cache.length == 60


def test_a_truncated_cache_continues_as_if_the_removed_tokens_were_never_read(model: Transformer) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    cache = KVCache(model.config)
    with torch.no_grad():
        model(torch.tensor([[5, 6, 100, 101, 102]]), cache)
        cache.truncate(2)
        logits = model(ids[:, 2:], cache)
    torch.testing.assert_close(logits, model(ids)[:, 2:], atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="cannot truncate a cache of 4 slots to 5"):
        cache.truncate(5)


def test_an_interrupted_forward_pass_leaves_the_cache_unchanged(model: Transformer) -> None:
    ids = torch.tensor([[5, 6, 7]])
    cache = KVCache(model.config)
    with torch.no_grad():
        model(ids[:, :2], cache)
        attend = model.layers[1].attention.attend

        def interrupted(*_: torch.Tensor) -> torch.Tensor:
            raise KeyboardInterrupt

        model.layers[1].attention.attend = interrupted
        with pytest.raises(KeyboardInterrupt):
            model(torch.tensor([[99]]), cache)
        model.layers[1].attention.attend = attend
        torch.testing.assert_close(model(ids[:, 2:], cache), model(ids)[:, 2:], atol=1e-5, rtol=1e-5)


def test_deleting_the_cache_frees_its_memory(model: Transformer) -> None:
    cache = KVCache(model.config)
    with torch.no_grad():
        model(torch.tensor([[1, 2]]), cache)
    kept = weakref.ref(cache._keys[0])
    del cache
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize(("batch", "capacity"), [(0, 0), (1, -1)])
def test_invalid_sizes_raise(config: ModelConfig, batch: int, capacity: int) -> None:
    with pytest.raises(InputError):
        KVCache(config, batch, capacity=capacity)


def test_a_wrong_number_of_sequences_raises(model: Transformer) -> None:
    with pytest.raises(InputError, match="holds 1 sequences, but ids has 2"):
        model(torch.tensor([[1], [2]]), KVCache(model.config))

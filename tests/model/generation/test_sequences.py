"""Texts that are read in any combination: their logits are those of each text alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bpe.errors import InputError
from model import Transformer
from model.config import ModelConfig
from model.generation.native import kernels
from model.generation.sequences import Part, Sequences, new_sequences
from support.native_models import native, quantized

MakeModel = Callable[[ModelConfig], Transformer]
BASE = ModelConfig(
    dim=256, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=288, vocab_size=96, max_seq_len=700, tied_embeddings=True
)
CONFIGS = {
    "heads of 64": BASE,
    "heads of 128": dataclasses.replace(BASE, n_heads=2, n_kv_heads=1, head_dim=128),
    "heads of 32, one key-value head": dataclasses.replace(BASE, n_heads=8, n_kv_heads=1),
    "windows": dataclasses.replace(BASE, windows=(40, 300)),
}
TEXT = np.random.default_rng(0).integers(0, 96, 600).tolist()


def read_in_parts(texts: Sequences, sequence: int, sizes: list[int]) -> npt.NDArray[np.float32]:
    start, found = 0, []
    for size in sizes:
        found.append(texts.read([Part(sequence, TEXT[start : start + size], size)]))
        start += size
    return np.concatenate(found)


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "Q6_K"])
@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("name", CONFIGS)
def test_quantized_logits_are_the_same_in_all_company(name: str, kernel: str, kind: str, make_model: MakeModel) -> None:
    """To the last bit: alone or beside others, token by token or in parts of any size, on any number of threads."""
    if kind == "Q6_K":
        if name != "heads of 64":
            pytest.skip("hidden_dim is not a multiple of 256")
        model = make_model(dataclasses.replace(BASE, hidden_dim=512))
    else:
        model = make_model(CONFIGS[name])
    count = 120 if kernel == "plain" else 530  # slices of attention have 256 positions
    ours = quantized(model, kind, kernel, threads=2)
    texts = new_sequences(ours, 4)
    whole = read_in_parts(texts, 0, [count])
    for sizes in ([100, 7, 13], [64, 36, 1, 1, 1, 2, 15]) if kernel == "plain" else ([300, 229, 1], [64] * 8 + [18]):
        texts.free(1)
        assert np.array_equal(read_in_parts(texts, 1, sizes), whole)
    # Token by token, at the end of a text, beside others that begin and grow.
    first = count - 24
    texts.truncate(0, first)
    for step in range(24):
        parts = [Part(0, [TEXT[first + step]]), Part(2, TEXT[step : step + 1 + step % 3], 0)]
        if step % 5 == 0:
            parts.insert(0, Part(3, TEXT[:20], 20))
        found = texts.read(parts)
        assert np.array_equal(found[20 if step % 5 == 0 else 0], whole[first + step])
    alone = new_sequences(quantized(model, kind, kernel, threads=5), 1)
    assert np.array_equal(read_in_parts(alone, 0, [count - 2, 1, 1]), whole)


KINDS: dict[str, Callable[[Transformer], Any]] = {
    "native": native,
    "quantized": lambda model: quantized(model, "Q8_0"),
    "torch": lambda model: model,
}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, make_model: MakeModel) -> Any:
    return KINDS[request.param](make_model(CONFIGS["heads of 64"]))


def test_texts_are_copied_truncated_and_freed(model: Any) -> None:
    texts = new_sequences(model, 3)
    assert (texts.count, texts.bytes, texts.length(1)) == (3, 0, 0)
    whole = read_in_parts(texts, 0, [50])
    texts.copy(0, 2, 30)
    assert (texts.length(0), texts.length(2)) == (50, 30)
    found = texts.read([Part(2, TEXT[30:40], 10), Part(1, TEXT[:9], 0)])
    np.testing.assert_allclose(found, whole[30:40], atol=1e-5 * float(np.abs(whole).max()))
    texts.truncate(0, 30)
    np.testing.assert_allclose(texts.read([Part(0, TEXT[30:40], 10)]), found, atol=1e-4)
    texts.copy(0, 0, 35)
    assert texts.length(0) == 35
    size = texts.bytes
    texts.reserve(1, 600)
    assert texts.bytes - size >= texts.bytes_for(600) - texts.bytes_for(64)
    for sequence in range(3):
        texts.free(sequence)
    assert texts.bytes == 0 and texts.length(2) == 0
    np.testing.assert_array_equal(texts.read([Part(0, TEXT[:50], 50)]), whole)


def test_texts_of_a_transformer_do_not_depend_on_each_other(make_model: MakeModel) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = make_model(CONFIGS["heads of 64"]).to(dtype)
        texts = new_sequences(model, 9)
        alone = [texts.read([Part(0, TEXT[:40])])] + [texts.read([Part(0, [id])]) for id in TEXT[40:60]]
        beside = [texts.read([Part(k, TEXT[: 40 if k == 3 else 7 * k]) for k in range(1, 9)])[2]]
        for id in TEXT[40:60]:
            beside.append(texts.read([Part(k, [id]) for k in range(1, 9)])[2])
        assert np.array_equal(np.concatenate(alone), np.stack(beside))


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_layers_guess_as_a_model_without_the_others(kind: str, make_model: MakeModel) -> None:
    """Their keys and values are those of the whole model, and what all layers read after that is not changed."""
    whole = make_model(CONFIGS["heads of 64"])
    first = Transformer(dataclasses.replace(whole.config, n_layers=1))
    first.load_state_dict({name: whole.state_dict()[name] for name in first.state_dict()})
    texts, alone = (new_sequences(KINDS[kind](made), 2) for made in (whole, first))
    expected = read_in_parts(texts, 1, [40])
    texts.read([Part(0, TEXT[:20])])
    guesses = texts.read([Part(0, TEXT[20:30], 10)], 1)
    np.testing.assert_allclose(guesses, alone.read([Part(0, TEXT[:30], 10)]), atol=1e-4)
    texts.truncate(0, 20)
    np.testing.assert_allclose(texts.read([Part(0, TEXT[20:40], 20)]), expected[20:], atol=1e-4)


def test_wrong_parts_are_refused_and_nothing_is_read(model: Any) -> None:
    texts = new_sequences(model, 2)
    texts.read([Part(0, TEXT[:10])])
    good = Part(1, TEXT[:5])
    for bad, words in [
        (Part(1, TEXT[:5]), "twice"),
        (Part(2, TEXT[:5]), "none of the 2"),
        (Part(0, []), "at least one"),
        (Part(0, TEXT[:2], 3), "3 of 2"),
        (Part(0, [1, 96]), "0 to 95"),
        (Part(0, [-1]), "0 to 95"),
        (Part(0, TEXT + TEXT), "context holds 700"),
    ]:
        with pytest.raises(InputError, match=words):
            texts.read([good, bad])
    assert (texts.length(0), texts.length(1)) == (10, 0)
    for wrong in (lambda: texts.truncate(0, 11), lambda: texts.copy(0, 1, 11)):
        with pytest.raises(InputError, match="11"):
            wrong()
    with pytest.raises(InputError, match="positive"):
        new_sequences(model, 0)

"""Native kernels against float64 on the dequantized weights, and whole models against `Transformer` in float64."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from bpe import InputError, train_from_iterator
from model import Generation, ModelConfig, NativeModel, Sampling, Transformer, _core, generate_ids, load, save
from model.checkpoint import open_checkpoint
from model.checkpoint.block_formats import QUANTIZED
from model.generation.native import kernels
from model.generation.native_decoder import NativeDecoder
from model.loading import backend_of
from support.native_models import close, native, nearly_close, reference

MakeModel = Callable[[ModelConfig], Transformer]
KERNELS = kernels()
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
HALVES = ("scale", "offset")  # the float16 fields of blocks


def stored(kind: str, rows: int, columns: int, seed: int = 0) -> Tensor:
    """Return random stored rows of a type, with all bit patterns of its integers."""
    if kind in PLAIN:
        numbers = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
        return numbers.to(PLAIN[kind]).flatten().view(torch.uint8)
    generator = np.random.default_rng(seed)
    block, per_block, _ = QUANTIZED[kind]
    blocks = np.frombuffer(generator.bytes(rows * columns // per_block * block.itemsize), block).copy()
    for name in set(HALVES) & set(block.names or ()):
        blocks[name] = generator.normal(0, 0.1, len(blocks)).astype(np.float16)
    return torch.from_numpy(blocks.view(np.uint8))


def dequantized(kind: str, data: Tensor, columns: int) -> Tensor:
    if kind in PLAIN:
        return data.view(PLAIN[kind]).view(-1, columns).float()
    numbers = gguf.dequantize(data.numpy(), gguf.GGMLQuantizationType[kind])
    return torch.from_numpy(numbers.copy()).view(-1, columns)


@pytest.mark.parametrize("rows", [1, 16, 37])
@pytest.mark.parametrize("kind", sorted(_core.KINDS))
def test_packing_is_lossless(kind: str, rows: int) -> None:
    data = stored(kind, rows, 512)
    numbers = torch.empty(rows, 512)
    _core.Matrix(kind, rows, 512, data.numpy(), threads=3).read(numbers.numpy())
    assert torch.equal(numbers, dequantized(kind, data, 512))


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("kind", sorted(_core.KINDS))
@pytest.mark.parametrize("kernel", KERNELS)
def test_products_match_float64(kernel: str, kind: str, count: int) -> None:
    rows, columns = 37, 512
    if count > {"plain": 4, "amx": 16 if kind.startswith("Q") else 64}.get(kernel, 16):
        pytest.skip("not that many at once")
    data = stored(kind, rows, columns)
    vectors = torch.randn(count, columns, generator=torch.Generator().manual_seed(1))
    vectors[0, 5], vectors[-1, 64:128] = 300.0, 0.0  # a number that dwarfs its neighbours, and zeros
    results = torch.empty(count, rows)
    _core.Matrix(kind, rows, columns, data.numpy()).multiply(vectors.numpy(), results.numpy(), kernel)
    weights = dequantized(kind, data, columns).double()
    expected = vectors.double() @ weights.T
    # Activations have 16 bits relative to the largest of 32 neighbours, sums 24 bits relative to their terms.
    errors = vectors.view(count, -1, 32).abs().amax(-1, keepdim=True).expand(-1, -1, 32).flatten(1).double() / 32639
    bound = errors @ weights.abs().T + 1e-6 * (vectors.abs().double() @ weights.abs().T + 1) * 8
    assert bool(((results - expected).abs() <= bound).all())


def test_plain_types_may_have_any_number_of_columns() -> None:
    for kind in PLAIN:
        data, vectors, results = stored(kind, 5, 13), torch.randn(2, 13), torch.empty(2, 5)
        for kernel in KERNELS:
            _core.Matrix(kind, 5, 13, data.numpy()).multiply(vectors.numpy(), results.numpy(), kernel)
            torch.testing.assert_close(results, vectors @ dequantized(kind, data, 13).T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(_core.KINDS))
def test_scales_that_are_not_finite_raise(kind: str) -> None:
    data = stored(kind, 4, 256)
    block = 256 if kind in PLAIN else QUANTIZED[kind][1]
    if kind in PLAIN:
        data.view(PLAIN[kind])[block] = float("nan")
    else:
        data.numpy().view(QUANTIZED[kind][0])["scale"][-1] = np.float16("inf")
    with pytest.raises(ValueError, match="not finite"):
        _core.Matrix(kind, 4, 256, data.numpy())


def test_partial_blocks_and_data_of_a_wrong_size_raise() -> None:
    with pytest.raises(ValueError, match="rows of 48 numbers, not a multiple of the Q4_1 block size 32"):
        _core.Matrix("Q4_1", 2, 48, np.zeros(60, np.uint8))
    with pytest.raises(ValueError, match="bytes"):
        _core.Matrix("Q4_1", 2, 64, np.zeros(79, np.uint8))
    with pytest.raises(ValueError, match="IQ4_XS"):
        _core.Matrix("IQ4_XS", 2, 64, np.zeros(80, np.uint8))


# --- whole models ---

BASE = ModelConfig(
    dim=64, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=96, vocab_size=300, max_seq_len=256, rope_theta=10_000.0
)
CONFIGS = {
    "grouped queries": BASE,
    "one key-value head, tied": dataclasses.replace(BASE, n_kv_heads=1, tied_embeddings=True),
    "heads of an odd size": dataclasses.replace(BASE, n_kv_heads=4, head_dim=22),
    "biases": dataclasses.replace(BASE, qkv_bias=True, wo_bias=True),
    "scaled rotations": dataclasses.replace(BASE, rope_scaling="llama3", rope_original_length=32),
}


@pytest.fixture
def make_model(make_model: MakeModel) -> MakeModel:
    """Returns models in which every part changes the logits, but rounding differences do not grow a hundredfold."""

    def make(config: ModelConfig) -> Transformer:
        model = make_model(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.4 if parameter.dim() > 1 else 1)
        return model

    return make


def ids_of(batch: int, count: int, seed: int = 0) -> Tensor:
    return torch.randint(300, (batch, count), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_logits_match_the_transformer(name: str, kernel: str, threads: int, make_model: MakeModel) -> None:
    model = make_model(CONFIGS[name])
    ours, ids = native(model, kernel, threads), ids_of(2, 90)
    expected = reference(model, ids)
    cache = ours.new_cache(2)
    pieces = [ours(ids[:, :70], cache)] + [ours(ids[:, i : i + 1], cache) for i in range(70, 90)]
    close(torch.cat(pieces, dim=1), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("kernel", KERNELS)
@torch.inference_mode()
def test_caches_of_all_types_hold_rounded_keys_and_values(
    kernel: str, dtype: torch.dtype, make_model: MakeModel
) -> None:
    model = make_model(BASE)
    ours, ids = native(model, kernel), ids_of(3, 50)
    cache = ours.new_cache(3, dtype=dtype)
    nearly_close(
        torch.cat((ours(ids[:, :40], cache), ours(ids[:, 40:], cache)), dim=1),
        reference(model, ids, dtype),
        8 if dtype in (torch.bfloat16, torch.int8) else 1,
    )


@pytest.mark.parametrize("head_dim", [32, 64, 160])
@pytest.mark.parametrize("kernel", KERNELS)
@torch.inference_mode()
def test_many_queries_attend_to_all_tokens_before_them(kernel: str, head_dim: int, make_model: MakeModel) -> None:
    model = make_model(dataclasses.replace(BASE, head_dim=head_dim, n_kv_heads=1, max_seq_len=512))
    ours, ids = native(model, kernel, threads=2), ids_of(1, 331)
    cache = ours.new_cache(1)
    pieces = [ours(ids[:, start:end], cache) for start, end in ((0, 290), (290, 311), (311, 331))]
    close(torch.cat(pieces, dim=1), reference(model, ids))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", KERNELS)
@torch.inference_mode()
def test_weights_of_plain_types_lose_nothing_to_kernels_or_cache(
    kernel: str, dtype: torch.dtype, make_model: MakeModel
) -> None:
    config = dataclasses.replace(BASE, dim=256, hidden_dim=512, max_seq_len=512)
    model = make_model(config).to(dtype)
    kind = {exact: name for name, exact in PLAIN.items()}[dtype]
    ours = NativeModel(config, dict.fromkeys(model.state_dict(), kind), kernel, threads=2)
    for name, weight in model.state_dict().items():
        ours.put(name, weight if weight.dim() > 1 else weight.float())
    assert ours.cache_dtype == "float32"
    ids, cache = ids_of(1, 300), ours.new_cache()
    # 64 at a time, 32, fewer, one
    pieces = [
        ours(ids[:, start:end], cache) for start, end in ((0, 200), (200, 232), (232, 240), (240, 241), (241, 300))
    ]
    expected = reference(model, ids)
    found = torch.cat(pieces, dim=1)
    close(found, expected)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("kernel", KERNELS)
@torch.inference_mode()
def test_a_long_prompt_and_wide_rows_are_read_in_several_parts(kernel: str, make_model: MakeModel) -> None:
    model = make_model(dataclasses.replace(BASE, hidden_dim=2592, max_seq_len=512))
    ours, ids = native(model, kernel, threads=2), ids_of(1, _core.MOST_TOKENS + 41)
    expected = reference(model, ids)
    cache = ours.new_cache()
    close(ours(ids, cache), expected)
    cache.truncate(0)
    close(ours(ids, cache, last_only=True), expected[:, -1:])
    cache.truncate(len(ids[0]) - 1)  # the keys and values are those of all tokens
    close(ours(ids[:, -1:], cache), expected[:, -1:])


@pytest.mark.parametrize("head_dim", [6, 32, 80, 128, 512])
@pytest.mark.parametrize("kernel", KERNELS)
@torch.inference_mode()
def test_a_cache_of_bytes_is_read_as_it_was_rounded(kernel: str, head_dim: int, make_model: MakeModel) -> None:
    model = make_model(dataclasses.replace(BASE, head_dim=head_dim, n_layers=1, max_seq_len=512))
    ours, ids = native(model, kernel, threads=2), ids_of(1, 300)
    cache = ours.new_cache(dtype="int8")
    pieces = [ours(ids[:, start:end], cache) for start, end in ((0, 131), (131, 290), (290, 299), (299, 300))]
    nearly_close(torch.cat(pieces, dim=1), reference(model, ids, torch.int8), 8)


def test_heads_too_wide_for_bytes_are_cached_in_halves(make_model: MakeModel) -> None:
    config = dataclasses.replace(BASE, head_dim=544, n_layers=1)
    wide = NativeModel(config, dict.fromkeys(make_model(config).state_dict(), "Q8_0"))
    assert wide.cache_dtype == "float16"
    with pytest.raises(InputError, match="heads have 544 dimensions, but a cache of int8 holds at most 512"):
        wide.new_cache(dtype="int8")
    with pytest.raises(ValueError, match="heads of 544 numbers, only up to 512"):
        _core.Cache("int8", 1, 1, 544, 1)


@torch.inference_mode()
def test_a_cache_can_be_truncated_grown_and_selected_from(make_model: MakeModel) -> None:
    model = make_model(BASE)
    ours, ids = native(model), ids_of(2, 60)
    cache = ours.new_cache(2)
    ours(ids, cache)
    cache.truncate(30)
    cache.select(torch.tensor([1, 0, 1]))
    assert (cache.length, cache.batch, cache.filled) == (30, 3, [30, 30, 30])
    following = ids_of(3, 40, seed=5)
    whole = torch.cat((ids[[1, 0, 1], :30], following), dim=1)
    close(ours(following, cache), reference(model, whole)[:, 30:])
    with pytest.raises(InputError, match="cannot truncate"):
        cache.truncate(99)


def texts(model: Any, prompts: list[list[int]], samples: int, sampling: Sampling) -> list[list[int]]:
    written: list[list[int]] = [[] for _ in range(len(prompts) * samples)]
    for tokens in Generation(model, prompts, samples=samples, max_tokens=12, sampling=sampling, logprobs=2):
        for token in tokens:
            written[token.row].append(token.id)
    return written


@pytest.mark.parametrize("samples", [1, 2])
def test_ragged_prompts_give_the_same_texts_as_alone(samples: int, make_model: MakeModel) -> None:
    model = make_model(BASE)
    ours, prompts = native(model), [[1, 2, 3], [*range(70)], [9]]
    greedy, drawn = Sampling(temperature=0), Sampling(seed=3)
    assert texts(ours, prompts, samples, greedy) == texts(model, prompts, samples, greedy)
    alone = [text for prompt in prompts for text in texts(ours, [prompt], samples, drawn)]
    assert texts(ours, prompts, samples, drawn) == alone


def test_a_long_prompt_is_read_in_small_parts(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = native(make_model(BASE))
    expected = texts(model, [[*range(20)]], 1, Sampling(temperature=0))
    monkeypatch.setattr("model.generation.decoding.NATIVE_PREFILL", 8)
    read, parts = NativeDecoder.read, list[tuple[int, int]]()

    def recorded(self: NativeDecoder, ids: Any, positions: Any = None) -> None:
        parts.append(ids.shape)
        read(self, ids, positions)

    monkeypatch.setattr(NativeDecoder, "read", recorded)
    assert texts(model, [[*range(20)]], 1, Sampling(temperature=0)) == expected
    assert [shape for shape in parts if shape[1] > 1] == [(1, 8), (1, 8), (1, 4)]


def test_a_cache_of_another_model_and_positions_out_of_order_raise(make_model: MakeModel) -> None:
    ours = native(make_model(BASE))
    other = native(make_model(dataclasses.replace(BASE, n_layers=1)))
    with pytest.raises(ValueError, match="another model"):
        ours(ids_of(1, 2), other.new_cache())
    with pytest.raises(InputError, match="continue"):
        ours(ids_of(1, 2), positions=torch.tensor([[0, 2]]))
    with pytest.raises(InputError, match="context"):
        ours(ids_of(1, 257))
    with pytest.raises(InputError, match="ids range from"):
        ours(torch.tensor([[300]]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_two_models_work_in_turn_and_after_a_fork(make_model: MakeModel) -> None:
    model = make_model(BASE)
    one, two, ids = native(model, threads=2), native(model, threads=3), ids_of(1, 5)
    expected = one(ids)
    assert torch.equal(two(ids), expected)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(one(ids), expected) and torch.equal(two(ids), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(one(ids), expected)


# --- checkpoints ---


@torch.inference_mode()
def test_smollm2_generates_the_same_text_as_in_float32(smollm2_file: Path) -> None:
    reference, tokenizer = load(smollm2_file, torch.float32)
    ours, _ = load(smollm2_file, backend="native")
    ours.cache_dtype = "float16"
    prompt = tokenizer.encode("The history of writing begins with marks on clay, and")
    written = [*generate_ids(ours, prompt, max_tokens=40, temperature=0)]
    whole = torch.tensor([prompt + written])
    expected = reference(whole)
    assert (ours(whole) - expected).abs().max() < 0.05
    assert expected[0, len(prompt) - 1 : -1].argmax(-1).tolist() == written


@torch.inference_mode()
def test_bytes_are_the_default_cache_of_quantized_weights_and_keep_the_perplexity(smollm2_file: Path) -> None:
    model, tokenizer = load(smollm2_file, backend="native")
    ids = torch.tensor([tokenizer.encode_ordinary(Path("corpora/prose.txt").read_text(encoding="utf-8"))[:384]])
    losses = {}
    for dtype in ("float16", None):
        cache = model.new_cache(dtype=dtype)
        losses[dtype] = torch.nn.functional.cross_entropy(model(ids, cache)[0, :-1], ids[0, 1:])
    assert model.cache_dtype == "int8"
    assert cache.bytes < 0.6 * model.new_cache(capacity=cache.capacity, dtype="float16").bytes
    # On 8,000 tokens of it, the perplexity differs by less than 0.1%; on so few, by chance, by somewhat more.
    assert abs(losses[None] - losses["float16"]) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_checkpoints_of_plain_types_are_used_as_stored(
    dtype: torch.dtype, make_model: MakeModel, tmp_path: Path
) -> None:

    train_from_iterator(["a text to learn from, and more of it"], vocab_size=280, special_tokens=[]).save(
        tmp_path / "tokenizer.json"
    )
    model = make_model(BASE).to(dtype)
    save(tmp_path / "model", model, tmp_path / "tokenizer.json")
    checkpoint = open_checkpoint(tmp_path / "model")
    assert backend_of(checkpoint)[0] == ("native" if len(KERNELS) > 1 else "torch")
    assert backend_of(checkpoint, torch.float64)[0] == "torch"
    ours, _ = load(tmp_path / "model", backend="native")
    assert isinstance(ours, NativeModel)
    with torch.inference_mode():
        close(ours(ids_of(1, 20)), reference(model, ids_of(1, 20)))


def test_types_and_rows_without_kernels_raise_with_their_names(smollm2_file: Path) -> None:
    checkpoint = open_checkpoint(smollm2_file)
    name = "layers.0.attention.wq.weight"
    other = dataclasses.replace(checkpoint, kinds={**checkpoint.kinds, name: "IQ4_NL"})
    assert backend_of(other) == ("torch", "there are no kernels for IQ4_NL")
    with pytest.raises(InputError, match="no kernels for IQ4_NL"):
        NativeModel.of(other)
    other = dataclasses.replace(checkpoint, kinds={**checkpoint.kinds, name: "Q4_K"})
    with pytest.raises(InputError, match=r"blk\.0\.attn_q\.weight has rows of 576 numbers"):
        NativeModel.of(other)
    other = dataclasses.replace(checkpoint, kinds={k: v for k, v in checkpoint.kinds.items() if k != name})
    with pytest.raises(InputError, match=r"missing blk\.0\.attn_q\.weight"):
        NativeModel.of(other)

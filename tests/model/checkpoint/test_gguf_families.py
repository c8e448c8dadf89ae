"""GGUF of the relatives of Llama: round trips, transformers and the gguf package as readers, and what is refused."""

from __future__ import annotations

import dataclasses
from array import array
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf.tensor_mapping import get_tensor_name_map

from bpe import InputError, Tokenizer
from bpe.formats.gguf_container import Container
from model import ModelConfig, Transformer, convert, load
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.checkpoint.config_json import config_of
from model.checkpoint.gguf import open_checkpoint as open_gguf
from model.checkpoint.gguf_families import described, differences_in_llama_cpp
from model.checkpoint.opened import read_json
from support import model_families
from support.command_line import bpe
from support.gguf_files import change, split
from support.references import BYTE_RANKS

pytestmark = pytest.mark.filterwarnings("ignore:model.gguf. llama.cpp:UserWarning")
CPU = torch.device("cpu")
CASES = {
    # The name of a model, the changes to it, and the architecture that it is written as.
    "llama": ("llama", {}, "llama"),
    "llama, biases": ("llama, biases", {}, "llama"),
    "llama, linear": ("llama, linear", {}, "llama"),
    "llama, yarn": ("llama, yarn", {}, "llama"),
    "llama, llama3": ("llama, llama3", {}, "llama"),
    "mistral": ("mistral", {}, "llama"),
    "mistral, window": ("mistral, window", {}, "llama"),
    "mixtral": ("mixtral", {}, "llama"),
    "qwen2": ("qwen2", {}, "qwen2"),
    "qwen3": ("qwen3", {"head_dim": 128}, "qwen3"),
    "qwen3 moe": ("qwen3 moe", {"mlp_only_layers": [], "moe_intermediate_size": 768}, "qwen3moe"),
    "smollm3": ("smollm3", {}, "smollm3"),
    "gemma": ("gemma", {}, "gemma"),
    "gemma2": ("gemma2", {"head_dim": 256, "query_pre_attn_scalar": 256}, "gemma2"),
    "gemma3": (
        "gemma3",
        {"head_dim": 256, "query_pre_attn_scalar": 256, "num_hidden_layers": 7, "sliding_window_pattern": 6},
        "gemma3",
    ),
    "gemma3, pattern": ("gemma3", {"query_pre_attn_scalar": 16}, "gemma3"),
    "gemma3, scaled": ("gemma3, scaled", {"query_pre_attn_scalar": 24, "rope_local_base_freq": 5000.0}, "gemma3"),
    "phi3, longrope, partial": ("phi3, longrope, partial", {}, "phi3"),
    "granite": ("granite", {}, "granite"),
    "olmo2": ("olmo2", {}, "olmo2"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any, Path]]:
    """Return a place for the models that were made in this module, by name."""
    return {}


@pytest.fixture
def case(request: pytest.FixtureRequest, made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the directory of a model in transformers' form, the model of transformers, and its GGUF."""
    if request.param not in made:
        made[request.param] = make(request.param, tmp_path_factory.mktemp("family"))
    return made[request.param]


def make(case: str, path: Path) -> tuple[Path, Any, Path]:
    name, changes, _ = CASES[case]
    model = model_families.write(name, path / "hf", **changes)
    tokenizer().save(path / "hf" / "tokenizer.json")
    convert(path / "hf", path / "model.gguf")
    return path / "hf", model, path / "model.gguf"


def tokenizer() -> Tokenizer:
    special = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257, "<|eot_id|>": 258}
    return Tokenizer("bytes", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens=special)


def ours_of(path: Path) -> Transformer:
    return assemble(open_checkpoint(path), torch.float32, CPU).eval()


def some_ids() -> torch.Tensor:
    return torch.randint(1, 300, (2, 20), generator=torch.Generator().manual_seed(5))


@torch.inference_mode()
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_written_model_reads_back_with_its_configuration_and_logits(case: Any, request: Any) -> None:
    directory, theirs, file = case
    assert open_checkpoint(file).config == open_checkpoint(directory).config
    assert float((ours_of(file)(some_ids()) - theirs(some_ids()).logits).abs().max()) < 1e-5
    architecture = Container.open(file).metadata["general.architecture"]
    assert architecture == CASES[request.node.callspec.params["case"]][2]


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_names_and_shapes_are_those_of_llama_cpps_converter(case: Any) -> None:
    _, theirs, file = case
    reader = gguf.GGUFReader(file)
    name = reader.fields["general.architecture"].contents()
    arch = next(arch for arch, arch_name in gguf.MODEL_ARCH_NAMES.items() if arch_name == name)
    layers = theirs.config.num_hidden_layers
    names = get_tensor_name_map(arch, layers)
    expected: dict[str, list[int]] = {}
    for theirs_name, tensor in theirs.state_dict().items():
        if theirs_name == "lm_head.weight" and theirs.config.tie_word_embeddings:
            continue
        module, _, suffix = theirs_name.rpartition(".")
        if module.endswith("mlp.experts"):  # transformers keeps the experts' matrices in stacks of its own
            block = module.split(".")[2]
            parts = ("gate", "up") if suffix == "gate_up_proj" else ("down",)
            shape = [len(tensor), tensor.shape[1] // len(parts), tensor.shape[2]]
            expected |= {f"blk.{block}.ffn_{part}_exps.weight": shape for part in parts}
        else:
            known = names.get_name(module)
            assert known is not None, theirs_name
            expected[f"{known}.{suffix}"] = [*tensor.shape]
    found = {tensor.name: tensor.shape.tolist()[::-1] for tensor in reader.tensors if "rope_f" not in tensor.name}
    assert found == expected


TRANSFORMERS_OPENS = ["llama", "mistral", "qwen2", "qwen3", "qwen3 moe", "gemma2", "gemma3"]
"""Models whose keys transformers reads from a GGUF. It passes over scalings of RoPE, biases and patterns of windows."""


@torch.inference_mode()
@pytest.mark.parametrize("case", TRANSFORMERS_OPENS, indirect=True)
def test_transformers_computes_the_same_from_our_file(case: Any) -> None:
    _, theirs, file = case
    opened = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
    )
    assert float((opened.eval()(some_ids()).logits - theirs(some_ids()).logits).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("name", "changes", "architecture", "message"),
    [
        ("llama, dynamic", {}, "llama", "rope_scaling 'dynamic'"),
        ("llama, mlp bias, gelu", {}, "llama", "activation 'gelu': llama.cpp computes with 'silu'"),
        ("llama, yarn, all keys", {}, "llama", "rope_beta_fast 16.0"),
        ("ministral", {}, "llama", "windows (9, 0, 9, 0)"),
        ("qwen2, windows", {}, "qwen2", "windows (0, 0, 7, 7)"),
        ("qwen3, biases", {}, "qwen3", "wo_bias True"),
        ("qwen3 moe", {}, "qwen3moe", "dense_layers (1,)"),
        ("qwen3 moe, step", {}, "qwen3moe", "normalize_experts False"),
        ("smollm3, windows", {}, "llama", "unrotated_layers (1, 2)"),
        ("gemma2", {}, "gemma2", "attention_multiplier 0.204"),
        ("gemma2", {"query_pre_attn_scalar": 16, "attn_logit_softcapping": None}, "gemma2", "attention_softcap 0.0"),
        ("gemma", {"tie_word_embeddings": False}, "gemma", "tied_embeddings False"),
        ("olmo2, biases", {}, "olmo2", "wo_bias True"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused_by_name(
    name: str, changes: dict[str, Any], architecture: str, message: str, tmp_path: Path
) -> None:
    model_families.config_of(name, **changes).save_pretrained(tmp_path)
    config = config_of({"architectures": None} | read_json(tmp_path / "config.json"))
    with pytest.raises(InputError) as caught:
        described(config)
    assert f"architecture {architecture}, the closest, cannot hold {message}" in str(caught.value)
    assert "use the format huggingface or bpe-llama" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mistral, window", {}, r"llama\.attention\.sliding_window: in texts of more than 11 tokens"),
        ("phi3", {}, r"llama\.attention\.sliding_window: in texts of more than 13 tokens"),
        ("phi3, longrope, partial", {}, "longrope by the size of its context, .*: up to 24 tokens, give it -c 24"),
    ],
)
def test_what_llama_cpp_computes_otherwise_in_long_texts_is_said(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model_families.write(name, tmp_path / "hf", **changes)
    tokenizer().save(tmp_path / "hf" / "tokenizer.json")
    with pytest.warns(UserWarning, match=rf"model\.gguf: llama\.cpp .*{message}"):
        convert(tmp_path / "hf", tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mistral", {}),
        ("mistral, window", {"sliding_window": 128}),
        ("gemma2", {"query_pre_attn_scalar": 16}),
        ("qwen3", {}),
    ],
)
def test_what_llama_cpp_computes_alike_is_not_warned_about(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model_families.config_of(name, **changes).save_pretrained(tmp_path)
    config = config_of({"architectures": None} | read_json(tmp_path / "config.json"))
    assert differences_in_llama_cpp(described(config)[0], config) == []


@pytest.mark.parametrize("name", ["qwen3", "qwen3 moe"])
def test_llama_cpp_rotates_whole_heads_of_qwen_3(name: str, tmp_path: Path) -> None:
    changes = {"mlp_only_layers": []} if "moe" in name else {}
    model_families.config_of(name, **changes).save_pretrained(tmp_path)
    config = config_of({"architectures": None} | read_json(tmp_path / "config.json"))
    described(config)
    with pytest.raises(InputError, match=f"{name.replace(' ', '')}, the closest, cannot hold rotary_dim 8"):
        described(dataclasses.replace(config, rotary_dim=8))


# --- metadata ---

METADATA: dict[str, dict[str, Any]] = {
    # What llama.cpp's converter writes for these models beside the sizes.
    "mixtral": {"expert_count": 4, "expert_used_count": 2, "rope.dimension_count": 12},
    "mistral, window": {"attention.sliding_window": 11},
    "llama, yarn": {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 32,
    },
    "llama, linear": {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    "llama, llama3": {"rope.scaling.original_context_length": 32},
    "qwen3 moe": {"expert_count": 5, "expert_used_count": 3, "expert_feed_forward_length": 768},
    "gemma2": {
        "attention.key_length": 256,
        "attention.sliding_window": 10,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3": {"attention.sliding_window": 8, "rope.freq_base": 1e6, "rope.freq_base_swa": 10000.0},
    "gemma3, pattern": {"attention.sliding_window_pattern": 3},
    "gemma3, scaled": {"rope.freq_base_swa": 5000.0, "rope.scaling.factor": 8.0, "final_logit_softcapping": 20.0},
    "phi3, longrope, partial": {
        "rope.dimension_count": 6,
        "rope.scaling.type": "longrope",
        "rope.scaling.original_context_length": 24,
        "rope.scaling.attn_factor": 1.2356091,
    },
    "granite": {"logit_scale": 8.0, "embedding_scale": 12.0, "residual_scale": 0.22, "attention.scale": 0.2},
}


@pytest.mark.parametrize("case", METADATA, indirect=True)
def test_metadata_is_that_of_llama_cpps_converter(case: Any, request: Any) -> None:
    metadata = Container.open(case[2]).metadata
    prefix = metadata["general.architecture"]
    for key, value in METADATA[request.node.callspec.params["case"]].items():
        found = metadata[f"{prefix}.{key}"]
        assert found == (value if isinstance(value, str) else pytest.approx(value, rel=1e-6)), key


def test_norms_of_gemma_are_stored_with_one_added(made: dict[str, Any], tmp_path: Path) -> None:
    directory, theirs, file = made.get("gemma3, pattern") or make("gemma3, pattern", tmp_path)
    weights = {tensor.name: tensor.data for tensor in gguf.GGUFReader(file).tensors}
    layer = theirs.model.layers[2]
    assert np.array_equal(weights["blk.2.attn_k_norm.weight"], (layer.self_attn.k_norm.weight + 1).detach().numpy())
    assert np.array_equal(weights["output_norm.weight"], (theirs.model.norm.weight + 1).detach().numpy())


@pytest.mark.parametrize("pattern", [[1, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
def test_any_pattern_of_windows_of_gemma_3_is_kept(pattern: list[int]) -> None:
    config = dataclasses.replace(SMALL_GEMMA, n_layers=6, windows=tuple(8 * slides for slides in pattern))
    name, metadata = described(config)
    assert name == "gemma3"
    assert [*metadata["gemma3.attention.sliding_window_pattern"]] == pattern


SMALL_GEMMA = ModelConfig(
    dim=32, n_layers=2, n_heads=2, vocab_size=300, hidden_dim=64, max_seq_len=64, rope_theta=1e6,
    local_rope_theta=10000.0, windows=(8, 0), activation="gelu_tanh", norm_offset=True, post_norm=True,
    qk_norm="head", embedding_multiplier=32**0.5, tied_embeddings=True,
)  # fmt: skip


@pytest.mark.parametrize(("changes", "attention_multiplier"), [({"n_layers": 62}, 12**-0.5), ({"n_layers": 61}, 0.0)])
def test_the_largest_gemma_scales_attention_by_the_share_of_a_head(
    changes: dict[str, Any], attention_multiplier: float
) -> None:
    config = dataclasses.replace(
        SMALL_GEMMA, dim=24, embedding_multiplier=24**0.5, head_dim=16, windows=(), **changes,
        attention_multiplier=attention_multiplier, local_rope_theta=10000.0,
    )  # fmt: skip
    assert described(config)[0] == "gemma3"
    with pytest.raises(InputError, match="attention_multiplier"):
        described(dataclasses.replace(config, attention_multiplier=0.3))


def test_a_soft_cap_of_the_attention_of_gemma_3_is_refused() -> None:
    with pytest.raises(InputError, match=r"gemma3, the closest, cannot hold attention_softcap 9\.0"):
        described(dataclasses.replace(SMALL_GEMMA, attention_softcap=9.0))


# --- conversion ---

ONE_OF_EACH = [
    *("mixtral", "qwen2", "qwen3 moe", "gemma3, pattern", "gemma2", "phi3, longrope, partial", "granite", "olmo2"),
    *("smollm3", "gemma"),
]


@torch.inference_mode()
@pytest.mark.parametrize("case", ONE_OF_EACH, indirect=True)
def test_the_command_converts_between_all_formats(case: Any, tmp_path: Path) -> None:
    directory, theirs, file = case
    for source, output, format in [
        (file, "own", "bpe-llama"),
        (tmp_path / "own", "again.gguf", "gguf"),
        (tmp_path / "again.gguf", "back", "huggingface"),
    ]:
        result = bpe("convert", source, tmp_path / output, "--format", format)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()
    for path in (tmp_path / "own", tmp_path / "back"):
        assert open_checkpoint(path).config == open_checkpoint(directory).config
        assert Tokenizer.from_file(path).encode("Hello, world") == tokenizer().encode("Hello, world")
    opened = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "back",
        attn_implementation="eager",
        pad_token_id=0,  # the default of some families is the id of a large vocabulary
    )
    assert float((opened.eval()(some_ids()).logits - theirs(some_ids()).logits).abs().max()) < 1e-5


QUANTIZED = ["mixtral", "llama, biases", "gemma3, pattern", "phi3, longrope, partial"]


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["q8_0", "q4_k"])
@pytest.mark.parametrize(
    "case", ["mixtral", "llama, biases", "gemma3, pattern", "phi3, longrope, partial"], indirect=True
)
def test_quantized_files_keep_norms_biases_and_routers(case: Any, kind: str, tmp_path: Path) -> None:
    directory, _, _ = case
    result = bpe("convert", directory, tmp_path / "small.gguf", "--quantize", kind)
    assert result.exit_code == 0, result.output
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "small.gguf").tensors}
    for name, stored in kinds.items():
        plain = "norm" in name or name.endswith("bias") or "ffn_gate_inp" in name or name.startswith("rope")
        assert (stored == "F32") == plain, name
    quantized, expected = (
        load(tmp_path / "small.gguf", torch.float32)[0],
        load(directory, torch.float32, quantize=kind)[0],
    )
    assert torch.equal(quantized(some_ids()), expected(some_ids()))


@torch.inference_mode()
@pytest.mark.parametrize("case", ["mixtral", "phi3, longrope, partial"], indirect=True)
def test_a_family_in_several_files_opens_by_any_of_them(case: Any, tmp_path: Path) -> None:
    _, theirs, file = case
    for path in split(file, tmp_path / "parts"):
        assert float((ours_of(path)(some_ids()) - theirs(some_ids()).logits).abs().max()) < 1e-5


# --- what other programs write ---


def tensors_of(file: Path) -> dict[str, torch.Tensor]:
    return {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in gguf.GGUFReader(file).tensors}


@torch.inference_mode()
def test_one_tensor_for_each_expert_is_read(tmp_path: Path) -> None:
    _, theirs, file = make("mixtral", tmp_path)
    stacks = {name: tensor for name, tensor in tensors_of(file).items() if "_exps" in name}
    single = {
        name.replace("_exps", f".{number}").replace(f".{number}.weight", f".{number}.weight"): expert
        for name, stack in stacks.items()
        for number, expert in enumerate(stack)
    }
    change(file, tensors={**dict.fromkeys(stacks), **single})
    assert float((ours_of(file)(some_ids()) - theirs(some_ids()).logits).abs().max()) < 1e-5


@torch.inference_mode()
def test_joined_queries_keys_and_values_are_read_for_any_architecture(tmp_path: Path) -> None:
    _, theirs, file = make("qwen2", tmp_path)
    found, changed = tensors_of(file), {}
    for block in range(4):
        for suffix in ("weight", "bias"):
            names = [f"blk.{block}.attn_{part}.{suffix}" for part in "qkv"]
            changed |= {**dict.fromkeys(names), f"blk.{block}.attn_qkv.{suffix}": torch.cat([found[n] for n in names])}
    change(file, tensors=changed)
    assert float((ours_of(file)(some_ids()) - theirs(some_ids()).logits).abs().max()) < 1e-5


@torch.inference_mode()
def test_separate_queries_keys_and_values_of_phi_3_are_read(tmp_path: Path) -> None:
    _, theirs, file = make("phi3, longrope, partial", tmp_path)
    found, changed = tensors_of(file), {}
    for block in range(4):
        whole = f"blk.{block}.attn_qkv.weight"
        parts = found[whole].split([48, 24, 24])
        changed |= {whole: None, **{f"blk.{block}.attn_{n}.weight": p for n, p in zip("qkv", parts, strict=True)}}
    change(file, tensors=changed)
    assert float((ours_of(file)(some_ids()) - theirs(some_ids()).logits).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("case", "metadata"),
    [
        ("llama, yarn", {"llama.rope.scaling.yarn_beta_fast": 32.0, "llama.rope.scaling.finetuned": True}),
        ("llama, linear", {"llama.rope.scaling.type": None}),
        ("llama, linear", {"llama.rope.scaling.factor": None, "llama.rope.scale_linear": 4.0}),
        ("mixtral", {"llama.expert_weights_norm": True, "llama.expert_gating_func": 1}),
        ("gemma3, pattern", {"gemma3.attention.sliding_window_pattern": memoryview(array("i", [1, 1, 0, 1]))}),
        ("gemma2", {"gemma2.attn_logit_softcapping": None, "gemma2.final_logit_softcapping": None}),
        ("granite", {"granite.rope.scaling.finetuned": True}),
        ("granite", {"granite.feed_forward_length": memoryview(array("i", [80] * 4))}),
    ],
)
def test_other_words_for_the_same_are_read(case: str, metadata: dict[str, Any], tmp_path: Path) -> None:
    directory, _, file = make(case, tmp_path)
    assert open_checkpoint(change(file, metadata)).config == open_checkpoint(directory).config


def test_unknown_keys_are_passed_over_only_on_request(tmp_path: Path) -> None:
    _, _, file = make("qwen3", tmp_path)
    change(file, {"qwen3.some.novelty": 3})
    with pytest.raises(InputError, match=r"qwen3\.some\.novelty \(value 3\) is not a known key"):
        open_checkpoint(file)
    assert open_gguf(file, ignore_unknown=True).config.qk_norm == "head"
    change(file, {"qwen3.attention.causal": False})
    with pytest.raises(InputError, match=r"qwen3\.attention\.causal is False"):
        open_gguf(file, ignore_unknown=True)


# --- wrong input ---

GONE = None


@pytest.mark.parametrize(
    ("case", "metadata", "tensors", "message"),
    [
        ("mixtral", {}, {"blk.2.ffn_up_exps.weight": GONE}, "missing blk.2.ffn_up_exps.weight; the file is incomplete"),
        ("mixtral", {}, {"blk.1.ffn_gate_inp.weight": GONE}, "missing blk.1.ffn_gate_inp.weight"),
        (
            "mixtral", {}, {"blk.2.ffn_up_exps.weight": torch.zeros(3, 80, 48)},
            "blk.2.ffn_up_exps.weight has the shape [3, 80, 48], expected [4, 80, 48]; expert_count is 4",
        ),
        (
            "mixtral", {}, {"blk.2.ffn_down_exps.weight": torch.zeros(4, 80, 48)},
            "blk.2.ffn_down_exps.weight has the shape [4, 80, 48], expected [4, 48, 80]",
        ),
        ("mixtral", {"llama.expert_count": 5}, {}, "expected [5, "),
        ("mixtral", {"llama.expert_count": 0}, {}, "n_experts_per_token is 2; it must be from 1 to n_experts (0)"),
        ("mixtral", {"llama.expert_count": 2**32 - 1}, {}, "n_experts is 4294967295; it must be at most 4096"),
        ("mixtral", {"llama.expert_used_count": 9}, {}, "n_experts_per_token is 9"),
        ("mixtral", {"llama.expert_gating_func": 2}, {}, "llama.expert_gating_func is 2, which is not supported"),
        ("qwen3", {"qwen3.block_count": 5}, {}, "missing blk.4.attn_q.weight, blk.4.attn_k.weight"),
        ("qwen3", {"qwen3.attention.sliding_window": 9}, {}, "qwen3.attention.sliding_window is 9, less than"),
        ("qwen3", {"qwen3.vocab_size": 250}, {}, "qwen3.vocab_size is 250, but token_embd.weight has 300 rows"),
        ("qwen3", {"tokenizer.ggml.tokens": ["x"] * 301}, {}, "tokens has 301 tokens, but token_embd.weight has 300"),
        ("qwen3", {}, {"blk.0.attn_output.bias": torch.zeros(48)}, "unknown tensor 'blk.0.attn_output.bias'"),
        ("qwen2", {"qwen2.attention.key_length": 16, "qwen2.attention.value_length": 16,
                   "qwen2.rope.dimension_count": 16}, {}, "4 heads must have qwen2.embedding_length (48) numbers"),
        ("qwen2", {}, {"rope_freqs.weight": torch.ones(6)}, "rope_freqs.weight scales RoPE, which"),
        ("gemma2", {"gemma2.attention.sliding_window_pattern": "x"}, {}, "sliding_window_pattern is 'x'"),
        ("gemma2", {"gemma2.final_logit_softcapping": "x"}, {}, "logits_softcap is 'x'"),
        (
            "gemma2", {"gemma2.attention.sliding_window_pattern": memoryview(array("i", [1, 0]))}, {},
            "gemma2.attention.sliding_window_pattern has 2 values; expected one for each layer",
        ),
        (
            "gemma2", {"gemma2.attention.sliding_window_pattern": memoryview(array("i", [1, 0, 2, 0]))}, {},
            "gemma2.attention.sliding_window_pattern is [1, 0, 2, 0]; expected 1 or 0 for each layer",
        ),
        ("llama, llama3", {}, {"rope_freqs.weight": GONE}, "rope.scaling.original_context_length is 32, but the"),
        ("gemma3", {"gemma3.rope.scaling.type": "yarn", "gemma3.rope.scaling.factor": 4.0}, {}, "'yarn', which is not"),
        ("granite", {"granite.rope.scaling.finetuned": False}, {}, "a model without positions"),
        ("gemma3", {"gemma3.rope.freq_base_swa": 0.0}, {}, "gemma3.rope.freq_base_swa is 0.0; it must be a positive"),
        ("granite", {"granite.block_count": 0}, {}, "n_layers is 0; it must be positive"),
        ("granite", {"granite.residual_scale": -1.0}, {}, "residual_multiplier is -1.0"),
        (
            "phi3, longrope, partial", {}, {"rope_factors_short.weight": GONE},
            "the tensor rope_factors_short.weight is missing",
        ),
        (
            "phi3, longrope, partial", {}, {"rope_factors_short.weight": torch.ones(6)},
            "rope_factors_short.weight has the shape [6], expected [3]",
        ),
        ("phi3, longrope, partial", {"phi3.rope.scaling.factor": 2.0}, {}, "scales RoPE already"),
        (
            "phi3, longrope, partial", {}, {"blk.3.attn_qkv.weight": torch.zeros(95, 48)},
            "blk.3.attn_qkv.weight has the shape [95, 48], expected [96, 48]",
        ),
        ("phi3, longrope, partial", {}, {"blk.3.ffn_up.weight": GONE}, "missing blk.3.ffn_up.weight;"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_with_the_place(
    case: str, metadata: dict[str, Any], tensors: dict[str, Any], message: str, tmp_path: Path, made: dict[str, Any]
) -> None:
    if case not in made:
        made[case] = make(case, tmp_path)
    file = tmp_path / "changed.gguf"
    file.write_bytes(made[case][2].read_bytes())
    with pytest.raises(InputError) as caught:
        ours_of(change(file, metadata, tensors))
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1

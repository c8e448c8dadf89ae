"""GGUF of the relatives of Llama: round trips, transformers and the gguf package as readers, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from gguf.tensor_mapping import get_tensor_name_map

from bpe import InputError, Tokenizer
from bpe.formats.gguf_container import Container
from model import Transformer, convert
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.checkpoint.families import config_of
from model.checkpoint.gguf_families import described
from model.checkpoint.opened import read_json
from support import model_families
from support.references import BYTE_RANKS

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
        ("gemma3", {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 9.0}, "gemma3", "attention_softcap 9.0"),
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

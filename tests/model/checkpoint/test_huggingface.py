"""Hugging Face's format against transformers: each reads what the other writes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bpe import Tokenizer
from bpe.errors import InputError
from model import ModelConfig, Transformer, generate_ids, save
from model.checkpoint import convert, families, huggingface, open_checkpoint
from model.checkpoint.assemble import assemble
from model.checkpoint.companions import read_tokenizer
from model.checkpoint.config_json import config_of
from model.checkpoint.huggingface import NAMES
from model.checkpoint.names import halved, interleaved
from support.references import BYTE_RANKS

MakeModel = Callable[[ModelConfig], Transformer]

SPECIAL = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257, "<|eot_id|>": 258}
SMALL: dict[str, Any] = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
# All supported settings of the three model types.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "grouped queries": ("llama", {}),
    "one key-value head": ("llama", {"num_key_value_heads": 1}),
    "a key-value head for each head": ("llama", {"num_key_value_heads": 4}),
    "heads wider than dim / n_heads": ("llama", {"head_dim": 12}),
    "heads narrower than dim / n_heads": ("llama", {"head_dim": 6, "num_key_value_heads": 4}),
    "tied embeddings": ("llama", {"tie_word_embeddings": True}),
    "biases": ("llama", {"attention_bias": True}),
    "biases, wide heads, tied": ("llama", {"attention_bias": True, "head_dim": 16, "tie_word_embeddings": True}),
    "scaled rotary embeddings": ("llama", {"rope_parameters": ROPE}),
    "scaled by 32 from a short context": (
        "llama",
        {"rope_parameters": {**ROPE, "factor": 32.0, "original_max_position_embeddings": 16, "rope_theta": 5e5}},
    ),
    "another theta": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "another epsilon": ("llama", {"rms_norm_eps": 1e-2}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 16}),
    "mistral, a window of the context": ("mistral", {"sliding_window": 256}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied, one key-value head": ("qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
}


@pytest.fixture(scope="module")
def transformers() -> Iterator[Any]:
    module = pytest.importorskip("transformers")
    module.logging.set_verbosity_error()
    module.logging.disable_progress_bar()
    yield module


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=SPECIAL).save(path)
    return path


def theirs(transformers: Any, family: str) -> Any:
    kind, changes = FAMILIES[family]
    config = transformers.AutoConfig.for_model(kind, **{**SMALL, **changes})
    torch.manual_seed(sum(map(ord, family)))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that every part changes the logits
            parameter.copy_((parameter.dim() == 1) * 0.5 + 0.3 * torch.randn_like(parameter))
    return model


def read(path: Path, dtype: torch.dtype | None = None) -> Transformer:
    return assemble(open_checkpoint(path), dtype, torch.device("cpu"))


def assert_same_logits(ours: Transformer, theirs: Any, length: int = 200, tolerance: float = 1e-4) -> None:
    ids = torch.randint(259, (2, length), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_models_saved_by_transformers_give_the_same_logits_and_greedy_text(
    family: str, transformers: Any, tmp_path: Path
) -> None:
    model = theirs(transformers, family)
    model.save_pretrained(tmp_path)
    ours = read(tmp_path)
    assert_same_logits(ours, model)  # 200 positions: beyond the original lengths 64 and 16 of scaled RoPE
    prompt = [3, 1, 4, 1, 5, 92, 65]
    written = list(generate_ids(ours, prompt, max_tokens=64, temperature=0))
    with torch.inference_mode():  # the greedy choice after each prefix, in one pass
        chosen = model(torch.tensor([prompt + written])).logits[0].argmax(-1)
    assert chosen[len(prompt) - 1 : -1].tolist() == written
    if family == "grouped queries":
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            result = model.generate(ids, max_new_tokens=64, min_new_tokens=64, do_sample=False, eos_token_id=None)
        assert result[0].tolist() == prompt + written


@pytest.mark.parametrize("family", FAMILIES)
def test_written_models_give_the_same_logits_in_transformers(
    family: str, transformers: Any, tmp_path: Path, tokenizer_file: Path
) -> None:
    theirs(transformers, family).save_pretrained(tmp_path / "theirs")
    ours = read(tmp_path / "theirs")
    save(tmp_path / "ours", ours, tokenizer_file, format="huggingface")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert model.dtype == torch.float32
    assert_same_logits(ours, model, tolerance=1e-5)
    again = read(tmp_path / "ours")
    assert again.config == ours.config
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_shards_are_read_and_written(transformers: Any, tmp_path: Path, tokenizer_file: Path) -> None:
    model = theirs(transformers, "grouped queries")
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 3
    checkpoint = dataclasses.replace(open_checkpoint(tmp_path / "theirs"), tokenizer=tokenizer_file)
    assert_same_logits(assemble(checkpoint, None, torch.device("cpu")), model)

    huggingface.write(checkpoint, tmp_path / "ours", shard_bytes=20_000)
    files = sorted((tmp_path / "ours").glob("*.safetensors"))
    assert len(files) > 3
    largest = max(tensor.nbytes for _, tensor in checkpoint.tensors(checkpoint.dtype))
    assert all(file.stat().st_size < max(20_000, largest) + 2_000 for file in files)
    index = json.loads((tmp_path / "ours" / huggingface.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for _, tensor in checkpoint.tensors(checkpoint.dtype))
    assert_same_logits(read(tmp_path / "ours"), model)
    assert_same_logits(read(tmp_path / "theirs"), transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours"))


def test_written_tokenizers_give_the_same_ids_in_transformers(
    transformers: Any, tmp_path: Path, tokenizer_file: Path, model: Transformer
) -> None:
    save(tmp_path / "ours", model, tokenizer_file, format="huggingface")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    text = "Hé, wörld! 你好 <|eot_id|>"
    expected = Tokenizer.from_file(tmp_path / "ours").encode(text, allowed_special="all")
    assert tokenizer.encode(text, add_special_tokens=False) == expected
    assert tokenizer.decode(expected) == text
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin_of_text|>", "<|end_of_text|>")
    settings = transformers.GenerationConfig.from_pretrained(tmp_path / "ours")
    assert (settings.bos_token_id, settings.eos_token_id) == (256, [257, 258])


def test_the_chat_template_and_companion_files_are_copied_with_the_model(
    transformers: Any, tmp_path: Path, tokenizer_file: Path, model: Transformer
) -> None:
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    save(tmp_path / "one", model, tokenizer_file, format="huggingface")
    (tmp_path / "one" / "generation_config.json").write_text('{"eos_token_id": 258, "temperature": 0.6}')
    settings = json.loads((tmp_path / "one" / "tokenizer_config.json").read_text())
    (tmp_path / "one" / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    checkpoint = open_checkpoint(tmp_path / "one")
    assert (checkpoint.chat_template, read_tokenizer(checkpoint).eos_ids) == (template, (258,))

    for format in ("bpe-llama", "huggingface"):
        save(tmp_path / format, read(tmp_path / "one"), tmp_path / "one", format=format)
        again = open_checkpoint(tmp_path / format)
        assert (again.chat_template, read_tokenizer(again).eos_ids) == (template, (258,))
        assert json.loads((tmp_path / format / "generation_config.json").read_text())["temperature"] == 0.6
    # A template from another source, such as GGUF metadata, is written beside the weights.
    tokenizer = read_tokenizer(checkpoint)
    told = dataclasses.replace(checkpoint, tokenizer=tokenizer_file, make_tokenizer=lambda: tokenizer)
    huggingface.write(told, tmp_path / "told")
    again = open_checkpoint(tmp_path / "told")
    read_again = read_tokenizer(again)
    assert (again.chat_template, read_again.bos_id, read_again.eos_ids) == (template, 256, (258,))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "told")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "user: Hi\n"


def test_named_chat_templates_survive_every_conversion(
    transformers: Any, tmp_path: Path, tokenizer_file: Path, model: Transformer
) -> None:
    templates = {"default": "plain", "tool_use": "with tools", "rag": "with documents"}
    save(tmp_path / "one", model, tokenizer_file, format="huggingface")
    settings = json.loads((tmp_path / "one" / "tokenizer_config.json").read_text())
    named = [{"name": name, "template": text} for name, text in templates.items()]
    (tmp_path / "one" / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": named}))
    convert(tmp_path / "one", tmp_path / "two.gguf")
    convert(tmp_path / "two.gguf", tmp_path / "three", "huggingface")
    convert(tmp_path / "three", tmp_path / "four", "bpe-llama")
    convert(tmp_path / "four", tmp_path / "five.gguf")
    for name in ("one", "two.gguf", "three", "four", "five.gguf"):
        assert dict(open_checkpoint(tmp_path / name).chat_templates) == templates, name
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "three")
    assert tokenizer.chat_template == templates
    from gguf import GGUFReader

    names = GGUFReader(tmp_path / "two.gguf").get_field("tokenizer.chat_templates").contents()
    assert sorted(names) == ["rag", "tool_use"]


def test_a_chat_template_whose_name_is_a_path_is_not_written(
    tmp_path: Path, tokenizer_file: Path, model: Transformer
) -> None:
    save(tmp_path / "one", model, tokenizer_file, format="huggingface")
    told = dataclasses.replace(open_checkpoint(tmp_path / "one"), chat_templates={"../../default": "x"})
    with pytest.raises(InputError, match="cannot be the name of a file"):
        huggingface.write(told, tmp_path / "told")


# --- without transformers ---


def test_the_row_order_of_queries_and_keys_round_trips() -> None:
    six = ModelConfig(dim=12, n_layers=1, n_heads=2, vocab_size=1, hidden_dim=1)
    rows = torch.arange(12)  # two heads of six
    assert interleaved(rows, six).tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    for tensor in (rows, torch.randn(12, 5)):
        assert torch.equal(halved(interleaved(tensor, six), six), tensor)


def test_tensor_names_round_trip(config: ModelConfig) -> None:
    biased = dataclasses.replace(config, tied_embeddings=False, qkv_bias=True, wo_bias=True)
    names = list(Transformer(biased).state_dict())
    assert [NAMES.to_meta(NAMES.from_meta(name)) for name in names] == names
    assert not {NAMES.from_meta(name) for name in names} & set(names)


DATA = {**SMALL, "model_type": "llama"}
SHAPE: dict[str, Any] = {
    "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 259, "max_seq_len": 256,
    "norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 5e5, "rope_scaling": {**ROPE, "rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **{key: ROPE[key] for key in list(ROPE)[2:]}}},
        {"rope_parameters": {**ROPE, "rope_theta": 5e5}},
    ],
)
def test_rotary_embeddings_are_read_in_every_spelling(spelling: dict[str, Any]) -> None:
    scaled = {"rope_scaling": "llama3", "rope_scaling_factor": 8.0, "rope_original_length": 64, "rope_theta": 5e5}
    assert config_of({**DATA, **spelling}) == ModelConfig(**{**SHAPE, **scaled})


def test_keys_without_an_effect_in_transformers_are_passed_over() -> None:
    linear = {"rope_type": "linear", "factor": 4.0}
    yarn = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 64}
    for rope, more in ((linear, {"original_max_position_embeddings": 64}), (yarn, {"finetuned": True})):
        expected = config_of({**DATA, "rope_scaling": rope})
        assert config_of({**DATA, "rope_scaling": {**rope, **more}, "is_decoder": True}) == expected


def test_missing_keys_have_the_defaults_of_transformers(transformers: Any) -> None:
    required = {key: DATA[key] for key in ("model_type", *families.REQUIRED)}
    elsewhere = {"rope_theta", "rope_local_base_freq", "partial_rotary_factor", "sliding_window_pattern"}
    alias = {"num_experts", "num_local_experts"}
    for kind, family in families.FAMILIES.items():
        full = transformers.AutoConfig.for_model(kind).to_dict()
        for key, value in {**families.COMMON, **family.keys}.items():
            if key not in elsewhere | alias and value is not None and key in full:
                windowless = key == "sliding_window" and not family.keys.get("use_sliding_window", True)
                assert full[key] == (None if windowless else value), (kind, key)
        theta = family.keys.get("rope_theta", families.COMMON["rope_theta"])
        rope = full["rope_parameters"]
        assert rope.get("full_attention", rope)["rope_theta"] == theta, kind
    assert config_of(required) == ModelConfig(**{**SHAPE, "n_kv_heads": 4, "max_seq_len": 2048, "norm_eps": 1e-6})


def test_a_published_config_is_read() -> None:
    smollm2 = {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
        "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False,
        "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
        "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
        "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "transformers_version": "4.42.3",
        "use_cache": True, "vocab_size": 49152,
    }  # fmt: skip
    assert config_of(smollm2) == ModelConfig.preset("smollm2-135m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; supported are llama, mistral, ministral, qwen2, "),
        ({"model_type": ["llama"]}, "model_type is"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures is"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; supported are silu, "),
        ({"model_type": "mistral", "mlp_bias": True}, "mlp_bias is True"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_interleaved": True}, "rope_interleaved is True"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor is 0.5, which a llama model does not have",
        ),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling: missing factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": "2"}}, "rope_scaling: factor is '2'; expected a number"),
        ({"rope_parameters": {"rope_type": "mrope", "factor": 2.0}}, "rope_parameters is of type 'mrope'"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_scaling: short_factor must be a list"),
        (
            {"rope_parameters": {**ROPE, "attention_factor": 2.0}},
            r"rope_parameters: attention_factor \(value 2.0\) is not a key of the type llama3",
        ),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: missing factor"),
        ({"rope_parameters": 3}, "rope_parameters is 3; expected an object"),
        (
            {"quantization_config": {"bits": 4}},
            "quantization_config: weights quantized are not read; download the",
        ),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config: weights quantized by gptq are not"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps is 10+; expected a number"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps is -1.0; it must be a positive number"),
        ({"rope_parameters": {"rope_theta": 10**400}}, "rope_parameters: rope_theta is 10+; expected a number"),
        (
            {"model_type": "mixtral", "num_experts_per_tok": 9},
            r"num_experts_per_tok is 9; it must be from 1 to num_local_experts \(8\)",
        ),
        ({"model_type": "qwen3_moe", "num_experts": 9999}, "^num_experts is 9999; it must be at most 4096"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0, which is not supported"),
        ({"hidden_size": None}, "missing hidden_size"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide'; expected a positive whole number"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; expected a whole number from 1 to 1024"),
        ({"attention_bias": "yes"}, "attention_bias is 'yes'; expected true or false"),
        ({"sliding_window": 512}, "sliding_window is 512, which a model of type llama does not have"),
        ({"model_type": "mistral", "sliding_window": "x"}, "sliding_window is 'x'; expected a positive whole number"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window is 0; expected a positive whole number"),
        ({"model_type": "qwen2", "layer_types": ["full_attention"] * 9}, "layer_types must be a list with one of 2"),
        ({"model_type": "qwen2", "layer_types": ["full_attention", "chunked_attention"]}, "has 'chunked_attention'"),
        (
            {"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]},
            "layer_types has sliding_attention, but sliding_window is not set",
        ),
        ({"model_type": "mistral", "layer_types": ["full_attention"] * 2}, "layer_types is .*, but a mistral model"),
        (
            {"model_type": "qwen2", "attention_bias": True},
            "attention_bias is True, which is not supported; only False is",
        ),
    ],
)
def test_unsupported_settings_raise_with_their_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config_of({**DATA, "max_position_embeddings": 100_000, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wo_bias": True}, "no Hugging Face model type .*wo_bias=True.* use the format bpe-llama"),
        ({"dim": 34, "head_dim": 8}, r"dim \(34\) to be divisible by n_heads"),
    ],
)
def test_a_model_that_fits_no_model_type_is_not_written(
    changes: dict[str, Any], message: str, config: ModelConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        save(tmp_path / "out", make_model(dataclasses.replace(config, **changes)), tmp_path, format="huggingface")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def saved(tmp_path: Path, model: Transformer, tokenizer_file: Path) -> Path:
    """A directory in Hugging Face's format with one file of weights."""
    save(tmp_path / "model", model, tokenizer_file, format="huggingface")
    return tmp_path / "model"


@pytest.fixture
def sharded(saved: Path) -> Path:
    """The same model in several files."""
    huggingface.write(open_checkpoint(saved), saved.parent / "sharded", shard_bytes=20_000)
    return saved.parent / "sharded"


def change(directory: Path, changes: dict[str, torch.Tensor | None]) -> None:
    weights = {**load_file(directory / huggingface.WEIGHTS), **changes}
    kept = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_file(kept, directory / huggingface.WEIGHTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.norm.weight": None}, r"model\.safetensors: missing model\.norm\.weight"),
        ({"extra": torch.zeros(3)}, r"model\.safetensors: unknown tensor 'extra'"),
        ({"layers.0.attention.wq.weight": torch.zeros(32, 32)}, r"unknown tensor 'layers\.0\.attention\.wq\.weight'"),
        (
            {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)},
            r"unknown tensor 'model\.layers\.0\.self_attn\.q_proj\.b",
        ),
        (
            {"model.layers.1.self_attn.k_proj.weight": torch.zeros(15, 32)},
            r"1\.self_attn\.k_proj\.weight has the shape",
        ),
        ({"model.layers.1.self_attn.k_proj.weight": torch.tensor(1.0)}, r"k_proj\.weight has the shape \[\]"),
        ({"model.norm.weight": torch.ones(32, dtype=torch.float8_e4m3fn)}, r"model\.norm\.weight holds torch\.float8"),
        ({"lm_head.weight": torch.zeros(259, 32)}, r"lm_head\.weight differs from model\.embed_tokens\.weight"),
    ],
)
def test_an_invalid_tensor_raises_with_its_name_in_the_file(changes: Any, message: str, saved: Path) -> None:
    change(saved, changes)
    with pytest.raises(InputError, match=message):
        read(saved)


def test_inverse_frequencies_in_older_files_are_ignored(saved: Path, model: Transformer) -> None:
    change(saved, {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert torch.equal(read(saved).norm.weight, model.norm.weight)


def test_an_incomplete_download_raises_with_the_remedy(sharded: Path) -> None:
    files = sorted(sharded.glob("*.safetensors"))
    content = files[1].read_bytes()
    files[1].write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"{files[1].name}: not a complete safetensors file .* download it again"):
        open_checkpoint(sharded)
    files[1].rename(files[1].with_suffix(".safetensors.incomplete"))
    with pytest.raises(InputError, match=rf"1 of {len(files)} weight files are missing, such as {files[1].name}"):
        open_checkpoint(sharded)
    (sharded / huggingface.INDEX).unlink()
    with pytest.raises(InputError, match=r"neither model\.safetensors nor .*; the download is incomplete"):
        open_checkpoint(sharded)


@pytest.mark.parametrize("places", [{}, {"a": "../b.safetensors"}, {"a": "b.bin"}, {"a": 3}, [1]])
def test_an_index_with_paths_outside_the_directory_raises(places: Any, sharded: Path) -> None:
    (sharded / huggingface.INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises(InputError, match=r"index\.json: no weight_map"):
        open_checkpoint(sharded)


def test_pickled_or_missing_weights_raise_with_the_remedy(saved: Path) -> None:
    (saved / huggingface.WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"model: contains config\.json, but no weights; expected model\.safetensors"):
        open_checkpoint(saved)
    (saved / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(InputError, match=r"pytorch_model\.bin: pickled weights.*safetensors"):
        open_checkpoint(saved)


def test_a_file_of_a_model_directory_opens_the_model(saved: Path, sharded: Path) -> None:
    for path in (saved / "config.json", saved / "model.safetensors", sharded / huggingface.INDEX):
        assert open_checkpoint(path).config == open_checkpoint(saved).config
    assert not huggingface.recognises(saved / "some.gguf")
    shutil.copy(saved / "config.json", saved.parent)
    assert huggingface.recognises(saved.parent)
    (saved.parent / "some.gguf").write_bytes(b"GGUF")
    assert not huggingface.recognises(saved.parent)  # since the directory has no weights besides the GGUF file


def test_a_failed_write_leaves_the_files_unchanged(saved: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    checkpoint = open_checkpoint(saved)
    tensors = list(checkpoint.tensors(checkpoint.dtype))[:-1]
    with pytest.raises(InputError, match="missing "):
        huggingface.write(dataclasses.replace(checkpoint, computed=lambda dtype: tensors), saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def mapped_ranges(directory: Path) -> list[tuple[int, int]]:
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    spans = [line[0].split("-") for line in lines if line[-1].startswith(f"{directory}/")]
    return [(int(start, 16), int(end, 16)) for start, end in spans]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="/proc/self/maps is Linux only")
def test_loaded_weights_are_mapped_except_reordered_ones(sharded: Path) -> None:
    loaded = read(sharded)
    ranges = mapped_ranges(sharded)
    copied = {
        name
        for name, tensor in loaded.state_dict().items()
        if not any(start <= tensor.data_ptr() < end for start, end in ranges)
    }
    assert copied == {f"layers.{layer}.attention.{w}.weight" for layer in (0, 1) for w in ("wq", "wk")}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="/proc/self/maps is Linux only")
def test_the_file_of_converted_weights_is_unmapped(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.checkpoint.tensor_files.MAPPED_AT_ONCE", 1)
    mappings = []
    for _, tensor in open_checkpoint(saved).tensors(torch.float32):
        tensor.double()
        mappings.append(len(mapped_ranges(saved)))
    assert max(mappings) <= 2
    del tensor
    assert not mapped_ranges(saved)


def test_writing_makes_one_tensor_at_a_time(saved: Path) -> None:
    checkpoint = open_checkpoint(saved)
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def tensors(dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal most
        for name, tensor in checkpoint.tensors(checkpoint.dtype):
            made = tensor.double()
            alive.append(weakref.ref(made))
            del tensor
            yield name, made
            del made
            most = max(most, sum(reference() is not None for reference in alive))

    wide = dataclasses.replace(checkpoint, dtype="float64", computed=tensors)
    huggingface.write(wide, saved.parent / "out")
    assert most <= 3  # the current, the previous, and the embeddings, which are kept to compare an output matrix
    with safe_open(saved.parent / "out" / huggingface.WEIGHTS, framework="pt") as file:
        assert file.get_tensor("model.norm.weight").dtype == torch.float64

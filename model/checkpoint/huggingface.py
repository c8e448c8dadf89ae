"""Hugging Face's format: a directory with config.json, safetensors (one file, or several and an index) and a tokenizer.

Tensors have the names of transformers' modules. In queries and keys, the two rows that are rotated together are half a
head apart; in Meta's order they are neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bpe.errors import InputError
from bpe.files import write_json
from model.checkpoint.companions import complete_for_transformers, read_companions, write_companions
from model.checkpoint.names import TensorNames, halved, interleaved_bytes, is_rotated
from model.checkpoint.opened import Checkpoint, config_from, read_json
from model.checkpoint.tensor_files import read_header, read_weights, write_tensors
from model.checkpoint.weights import DTYPES, EMBEDDINGS, StoredTensor, expected_shapes, size_of
from model.config import ModelConfig
from model.dtypes import SIZES, DType, dtype_name

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
DESCRIPTION = f"{CONFIG} with {WEIGHTS}"
SHARD_BYTES = 5 * 10**9
_PICKLES = "pytorch_model*.bin"

NAMES = TensorNames(
    "model.layers",
    {
        "tok_embeddings": "model.embed_tokens",
        "norm": "model.norm",
        "output": "lm_head",
        "attention.wq": "self_attn.q_proj",
        "attention.wk": "self_attn.k_proj",
        "attention.wv": "self_attn.v_proj",
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    },
)
_DERIVED = "rotary_emb.inv_freq"  # in older files; computed from the configuration


# --- configuration ---

# The supported model types, each with the values that transformers uses for keys that the file leaves out.
_LLAMA: dict[str, Any] = {
    "num_key_value_heads": None, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "tie_word_embeddings": False, "attention_bias": False,
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
    "qwen2": {
        **_LLAMA, "num_key_value_heads": 32, "max_position_embeddings": 32768, "sliding_window": 4096,
        "use_sliding_window": False,
    },
}  # fmt: skip
REQUIRED = {
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "vocab_size": "vocab_size",
}
_READ = {
    *_LLAMA, *REQUIRED, "model_type", "architectures", "head_dim", "rope_scaling", "rope_parameters",
    "sliding_window", "use_sliding_window", "layer_types", "max_window_layers",
}  # fmt: skip
_NEUTRAL: dict[str, Any] = {
    "hidden_act": "silu", "mlp_bias": False, "partial_rotary_factor": 1.0, "rope_interleaved": False,
    "is_encoder_decoder": False, "is_decoder": False, "add_cross_attention": False, "tie_encoder_decoder": False,
    "pruned_heads": {},
}  # fmt: skip
"""Keys that change the result unless they have this value, the only supported one."""
_HARMLESS = {
    # about the file and about training
    "transformers_version", "torch_dtype", "dtype", "initializer_range", "attention_dropout", "hidden_dropout",
    "resid_pdrop", "embd_pdrop", "pretraining_tp", "use_cache", "gradient_checkpointing", "is_llama_config",
    "transformers.js_config", "unsloth_version", "unsloth_fixed", "name_or_path", "model_name",
    # about classification and return values
    "id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params", "return_dict",
    "output_attentions", "output_hidden_states", "use_return_dict", "torchscript", "chunk_size_feed_forward",
    "tokenizer_class", "prefix",
    # about generation, which takes its options from generation_config.json and from the caller
    "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "max_length", "min_length", "max_new_tokens", "do_sample", "temperature", "top_k",
    "top_p", "typical_p", "num_beams", "num_beam_groups", "num_return_sequences", "diversity_penalty",
    "length_penalty", "repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "early_stopping", "bad_words_ids", "begin_suppress_tokens", "suppress_tokens",
    "exponential_decay_length_penalty", "remove_invalid_values", "output_scores", "return_dict_in_generate",
    "cross_attention_hidden_size", "tf_legacy_loss", "use_bfloat16",
}  # fmt: skip
_ROPE = {
    "factor": "rope_scaling_factor",
    "low_freq_factor": "rope_low_freq_factor",
    "high_freq_factor": "rope_high_freq_factor",
    "original_max_position_embeddings": "rope_original_length",
}


def config_of(data: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration that the content of a config.json describes.

    Raises:
        InputError: When the model is not supported, or a key is unknown, since an unknown key may change the result.
            The message names the key.
    """
    data = {key: value for key, value in data.items() if value is not None or key == "sliding_window"}
    kind = data.get("model_type")
    if not isinstance(kind, str) or kind not in DEFAULTS:
        raise InputError(f"model_type is {kind!r}; supported are {', '.join(DEFAULTS)}")
    architectures = data.get("architectures", ["ForCausalLM"])
    if not isinstance(architectures, list) or not any(str(name).endswith("ForCausalLM") for name in architectures):
        raise InputError(f"architectures is {architectures!r}; expected a name that ends with ForCausalLM")
    _refuse_others(data, {*_READ, *_HARMLESS}, "")
    missing = [key for key in REQUIRED if key not in data]
    if missing:
        raise InputError(f"missing {', '.join(missing)}")
    values = {**DEFAULTS[kind], **data}
    _refuse_sliding_window(values)
    if kind != "llama" and values["attention_bias"]:
        raise InputError(f"attention_bias is {values['attention_bias']!r}, which {kind} does not have")
    fields = {
        "n_kv_heads": values["num_key_value_heads"],
        "head_dim": values.get("head_dim"),
        "norm_eps": values["rms_norm_eps"],
        "max_seq_len": values["max_position_embeddings"],
        "tied_embeddings": values["tie_word_embeddings"],
        "qkv_bias": kind == "qwen2" or values["attention_bias"],
        "wo_bias": values["attention_bias"],
        **{field: values[key] for key, field in REQUIRED.items()},
        **_rope_fields(values),
    }
    return ModelConfig(**{field: value for field, value in fields.items() if value is not None})


def _refuse_others(data: Mapping[str, Any], known: set[str], prefix: str) -> None:
    for key, value in data.items():
        if key in _NEUTRAL:
            if value != _NEUTRAL[key]:
                raise InputError(f"{prefix}{key} is {value!r}, which is not supported; only {_NEUTRAL[key]!r} is")
        elif key not in known and not key.startswith("_"):
            raise InputError(
                f"{prefix}{key} (value {value!r}) is not a known key and may change what the model computes"
            )


def _refuse_sliding_window(values: Mapping[str, Any]) -> None:
    window = values.get("sliding_window") if values.get("use_sliding_window", True) else None
    context = values["max_position_embeddings"]
    if window is not None and not (isinstance(window, int) and isinstance(context, int) and window >= context):
        raise InputError(
            f"sliding_window is {window!r}, less than the context of {context!r} tokens, which is not supported;"
            " set max_position_embeddings to sliding_window to use the model within its window"
        )
    kinds = values.get("layer_types", [])
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise InputError("layer_types contains types other than full_attention, which are not supported")


def _rope_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the RoPE fields, from rope_theta and rope_scaling or from transformers 5's rope_parameters."""
    key = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    rope = values.get(key, {})
    if not isinstance(rope, dict):
        raise InputError(f"{key} is {rope!r}; expected an object")
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = {"rope_theta": rope.get("rope_theta", values["rope_theta"])}
    if kind not in ("default", "llama3"):
        raise InputError(f"{key} is of type {kind!r}, which is not supported; default and llama3 are")
    rope = {name: value for name, value in rope.items() if value is not None}
    _refuse_others(rope, {"rope_type", "type", "rope_theta", *_ROPE}, f"{key}: ")
    if kind == "default":
        return theta
    missing = [name for name in _ROPE if name not in rope and name != "original_max_position_embeddings"]
    if missing:
        raise InputError(f"{key}: missing {', '.join(missing)}")
    scaling = {"original_max_position_embeddings": values["max_position_embeddings"], **rope}
    return {"use_scaled_rope": True, **theta, **{field: scaling[name] for name, field in _ROPE.items()}}


def config_json(config: ModelConfig, dtype: DType) -> dict[str, Any]:
    """Return the content of a config.json, in the spelling that all versions of transformers read.

    Args:
        config: The configuration to write.
        dtype: The dtype of the weights.

    Raises:
        InputError: When no model type of transformers fits the configuration.
    """
    if config.wo_bias and not config.qkv_bias:
        raise InputError("no Hugging Face model type has a bias on wo alone; use the format bpe-llama")
    if config.dim % config.n_heads:
        raise InputError(
            f"Hugging Face's Llama requires dim ({config.dim}) to be divisible by n_heads ({config.n_heads});"
            " use the format bpe-llama"
        )
    qwen = config.qkv_bias and not config.wo_bias
    data = {
        "architectures": ["Qwen2ForCausalLM" if qwen else "LlamaForCausalLM"],
        "model_type": "qwen2" if qwen else "llama",
        **{key: getattr(config, field) for key, field in REQUIRED.items()},
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_seq_len,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "tie_word_embeddings": config.tied_embeddings,
        "torch_dtype": dtype_name(dtype),
        "use_cache": True,
    }
    if config.use_scaled_rope:
        data["rope_scaling"] = {
            "rope_type": "llama3",
            **{name: getattr(config, field) for name, field in _ROPE.items()},
        }
    if qwen:
        return data | {"use_sliding_window": False}
    return data | {"attention_bias": config.wo_bias, "mlp_bias": False}


# --- reading and writing ---


def recognises(path: Path) -> bool:
    """Return whether the path is a directory in this format, or its config.json or a file of weights in it."""
    directory = path if path.is_dir() else path.parent
    if not path.is_dir() and path.name != CONFIG and path.suffix not in (".safetensors", ".bin", ".json"):
        return False
    if not (directory / CONFIG).is_file():
        return False
    return bool(_weights_in(directory)) or not any(directory.glob("*.gguf"))


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint that `recognises` accepts.

    Raises:
        InputError: When a file is missing or damaged, the weights are pickled, or the model is not supported.
    """
    directory = path if path.is_dir() else path.parent
    data = read_json(directory / CONFIG)
    config = config_from(directory / CONFIG, config_of, data)
    files = _files(directory)
    kinds = {
        NAMES.to_meta(name) or name: place.kind
        for file in files
        for name, place in read_header(file).places.items()
        if not name.endswith(_DERIVED)
    }
    return Checkpoint(
        config=config,
        dtype=DTYPES.get(kinds.get(EMBEDDINGS, ""), "float32"),
        source=files[0] if len(files) == 1 else directory,
        tokenizer=directory,
        weights=lambda: _weights(files, config),
        kinds=kinds,
        name_of=NAMES.from_meta,
        **read_companions(directory),
    )


def _weights_in(directory: Path) -> list[Path]:
    patterns = ("*.safetensors", f"*{INDEX}", _PICKLES, "*.incomplete")
    return sorted(path for pattern in patterns for path in directory.glob(pattern))


def _files(directory: Path) -> list[Path]:
    """Return the files of the weights, all of which exist."""
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    index = directory / INDEX
    if index.is_file():
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places or not all(_is_file_name(name) for name in places.values()):
            raise InputError(f"{index}: no weight_map from tensors to files in this directory; download it again")
        files = [directory / name for name in sorted(set(places.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise InputError(
                f"{directory}: {len(missing)} of {len(files)} weight files are missing, such as {missing[0]};"
                " the download is incomplete, so run it again"
            )
        return files
    found = _weights_in(directory)
    if any(path.suffix in (".safetensors", ".incomplete") for path in found):
        raise InputError(
            f"{directory}: contains {found[0].name}, but neither {WEIGHTS} nor {INDEX}; the download is incomplete,"
            " so run it again"
        )
    if found:
        raise InputError(
            f"{found[0]}: pickled weights may contain code and are never read; download the repository's safetensors,"
            " or load the model in transformers and call save_pretrained()"
        )
    raise InputError(f"{directory}: contains {CONFIG}, but no weights; expected {WEIGHTS}, or {INDEX} with its files")


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def _weights(files: list[Path], config: ModelConfig) -> Iterator[StoredTensor]:
    """Yield the tensors of some files, with the rows of queries and keys in Meta's order."""
    for file in files:
        for tensor in read_weights(file):
            if tensor.name.endswith(_DERIVED):
                continue
            name = NAMES.to_meta(tensor.name)
            if name is None:
                raise InputError(
                    f"{file}: unknown tensor {tensor.name!r}; a model of this configuration does not have it"
                )
            if is_rotated(name):
                tensor = tensor._replace(data=interleaved_bytes(tensor.data, tensor.shape, config.head_dim))
            yield tensor._replace(name=name)


def write(checkpoint: Checkpoint, path: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a directory that transformers opens, the weights last and one tensor in memory at a time.

    Args:
        checkpoint: The model to write.
        path: The directory.
        shard_bytes: The largest size of a weight file, in bytes. Larger weights are split into several files; a single
            tensor is never split.

    Raises:
        InputError: When no model type of transformers fits the model, or as `checked_tensors` does.
    """
    from model.checkpoint.assemble import bytes_of, checked_tensors

    def theirs() -> Iterator[tuple[str, memoryview]]:
        for name, tensor in checked_tensors(checkpoint):
            yield NAMES.from_meta(name), bytes_of(halved(tensor, config.head_dim) if is_rotated(name) else tensor)

    config, itemsize = checkpoint.config, SIZES[checkpoint.dtype]
    data = config_json(config, checkpoint.dtype)
    path.mkdir(parents=True, exist_ok=True)
    write_companions(checkpoint, path)
    complete_for_transformers(checkpoint, path)
    write_json(path / CONFIG, data)
    shapes = {NAMES.from_meta(name): shape for name, shape in expected_shapes(config).items()}
    shards = _divided(shapes, itemsize, shard_bytes)
    count = len(shards)
    names = (
        [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)] if count > 1 else [WEIGHTS]
    )
    files = {path / name: shard for name, shard in zip(names, shards, strict=True)}
    write_tensors(files, checkpoint.dtype, theirs())
    if count > 1:
        size = sum(map(size_of, shapes.values())) * itemsize
        places = {name: file.name for file, shard in files.items() for name in shard}
        write_json(path / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def _divided(shapes: Mapping[str, tuple[int, ...]], itemsize: int, limit: int) -> list[dict[str, tuple[int, ...]]]:
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, shape in shapes.items():
        bytes = size_of(shape) * itemsize
        if shards[-1] and size + bytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += bytes
    return shards

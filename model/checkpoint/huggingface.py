"""Hugging Face's format: a directory with config.json, safetensors (one file, or several and an index) and a tokenizer.

Tensors have the names of transformers' modules. In queries and keys, the two rows that are rotated together are half a
head apart; in Meta's order they are neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpe.errors import InputError
from bpe.files import write_json
from model.checkpoint import text_part
from model.checkpoint.block_formats import float32_of
from model.checkpoint.companions import complete_for_transformers, read_companions, read_tokenizer, write_companions
from model.checkpoint.config_json import config_json, config_of
from model.checkpoint.mllama import (
    TYPE,
    MllamaNames,
    config_of_mllama,
    mllama_json,
    preprocessor_json,
    stored_shapes,
    with_preprocessor,
)
from model.checkpoint.names import TensorNames, halved, interleaved_bytes, is_rotated
from model.checkpoint.opened import Checkpoint, config_from, read_json, read_optional_json
from model.checkpoint.tensor_files import read_header, read_weights, write_tensors
from model.checkpoint.text_part import config_of_text, text_name
from model.checkpoint.weights import DTYPES, EMBEDDINGS, StoredTensor, expected_shapes, size_of
from model.config import ModelConfig
from model.dtypes import SIZES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREPROCESSOR = "preprocessor_config.json"
DESCRIPTION = f"{CONFIG} with {WEIGHTS}"
SHARD_BYTES = 5 * 10**9
_PICKLES = "pytorch_model*.bin"

_MODULES = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
_FUSED = {
    "self_attn.qkv_proj": ("attention.wq", "attention.wk", "attention.wv"),
    "mlp.gate_up_proj": ("feed_forward.w1", "feed_forward.w3"),
}
"""The matrices that Phi-3 stores below each other."""
_STACKED = {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)}
"""The matrices of all experts, one expert after another, in a file of transformers 5 that was saved with
save_original_format=False."""
_STACKED_ROUTER = "mlp.gate"  # Mixtral's name of it in these files


def names_of(config: ModelConfig) -> TensorNames:
    """Return the names of the tensors of a model. Those of norms and experts differ between families."""
    if config.vision is not None:
        return MllamaNames(config)
    before = {"attention_norm": "input_layernorm"} if config.pre_norm else {}
    after = {"attention_post_norm": "post_attention_layernorm", "ffn_post_norm": "post_feedforward_layernorm"}
    ffn_norm = "pre_feedforward_layernorm" if config.post_norm else "post_attention_layernorm"
    norms = before | ({"ffn_norm": ffn_norm} if config.pre_norm else {}) | (after if config.post_norm else {})
    mixtral = config.qk_norm == "none"  # the family with experts and without these norms
    place = "block_sparse_moe" if mixtral else "mlp"
    own = {
        name: name if mixtral else _MODULES[f"feed_forward.{name}"].removeprefix("mlp.") for name in ("w1", "w2", "w3")
    }
    experts = {f"feed_forward.experts.*.{name}": f"{place}.experts.*.{theirs}" for name, theirs in own.items()}
    experts["feed_forward.router"] = f"{place}.gate"
    return TensorNames("model.layers", _MODULES | norms | (experts if config.n_experts else {}))


NAMES = names_of(ModelConfig.preset("llama3-8b"))
_OUT_BIAS = ".attention.wo.bias"
_DERIVED = "rotary_emb.inv_freq"  # in older files; computed from the configuration


def recognises(path: Path) -> bool:
    """Return whether the path is a directory in this format, or its config.json or a file of weights in it."""
    directory = path if path.is_dir() else path.parent
    if not path.is_dir() and path.name != CONFIG and path.suffix not in (".safetensors", ".bin", ".json"):
        return False
    if not (directory / CONFIG).is_file():
        return False
    return bool(_weights_in(directory)) or not any(directory.glob("*.gguf"))


def open_checkpoint(path: Path, ignore_unknown: bool = False) -> Checkpoint:
    """Open a checkpoint that `recognises` accepts.

    Raises:
        InputError: When a file is missing or damaged, the weights are pickled, or the model is not supported.
    """
    directory = path if path.is_dir() else path.parent
    data = read_json(directory / CONFIG)
    renamed = text_name if data.get("model_type") in text_part.TYPES else _same
    config = read_config(directory / CONFIG, data, ignore_unknown)
    if config.vision is not None:
        reads_images = functools.partial(with_preprocessor, config)
        config = config_from(directory / PREPROCESSOR, reads_images, read_optional_json(directory / PREPROCESSOR))
    files, names = _files(directory), names_of(config)
    places = [
        (name, place.kind)
        for file in files
        for theirs, place in read_header(file).places.items()
        if (name := renamed(theirs)) is not None and not name.endswith(_DERIVED)
    ]
    if renamed is text_name and "lm_head.weight" in dict(places):  # transformers takes it, whatever config.json says
        config = dataclasses.replace(config, tied_embeddings=False)
    wholes = {part: name for name, _ in places for part in joined_parts(name, config)}
    if data.get("model_type") == "phi3":
        wholes = joined_names(config) | wholes
    kinds = {
        meta: kind
        for name, kind in places
        for meta in joined_parts(name, config) or [_to_meta(names, name) or name]
        if config.wo_bias or not meta.endswith(_OUT_BIAS)
    }
    return Checkpoint(
        config=config,
        dtype=DTYPES.get(kinds.get(EMBEDDINGS, ""), "float32"),
        source=files[0] if len(files) == 1 else directory,
        tokenizer=directory,
        weights=lambda: _weights(files, config, renamed),
        kinds=kinds,
        name_of=lambda name: wholes.get(name) or names.from_meta(name),
        **read_companions(directory),
    )


def read_config(path: Path, data: dict[str, Any], ignore_unknown: bool = False) -> ModelConfig:
    """Return the configuration that the content of a config.json describes.

    Args:
        path: The file, which messages name.
        data: Its content.
        ignore_unknown: Warn about keys that are not known, instead of raising.

    Raises:
        InputError: When the model is not supported.
    """
    readers = {TYPE: config_of_mllama, **dict.fromkeys(text_part.TYPES, config_of_text)}
    reader = readers.get(str(data.get("model_type")), config_of)
    return config_from(path, functools.partial(reader, ignore_unknown=ignore_unknown), data)


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


def _same(name: str) -> str:
    return name


def _weights(files: list[Path], config: ModelConfig, renamed: Callable[[str], str | None]) -> Iterator[StoredTensor]:
    """Yield the tensors of some files, with the rows of queries and keys in Meta's order."""
    names, ours, stored = names_of(config), expected_shapes(config), stored_shapes(config)
    for file in files:
        for tensor in read_weights(file):
            plain = renamed(tensor.name)
            if plain is None or plain.endswith(_DERIVED):
                continue
            tensor = tensor._replace(name=plain)
            parts = joined_parts(tensor.name, config)
            for part in _separated(file, tensor, parts, config) if parts else [tensor]:
                name = part.name if parts else _to_meta(names, part.name)
                if name is None:
                    raise InputError(
                        f"{file}: unknown tensor {tensor.name!r}; a model of this configuration does not have it;"
                        f" correct {CONFIG}, or take the file of the same model"
                    )
                if name.endswith(_OUT_BIAS) and not config.wo_bias:  # of `_keeping_split_pattern`
                    _check_zero(file, part)
                    continue
                if is_rotated(name):
                    part = part._replace(data=interleaved_bytes(part.data, part.shape, config))
                if part.shape == stored.get(name):
                    part = part._replace(shape=ours[name])
                yield part._replace(name=name)


def _to_meta(names: TensorNames, name: str) -> str | None:
    """Return Meta's name of a tensor, also of Mixtral's router in a file with stacked experts."""
    place = "block_sparse_moe.gate"
    found = names.to_meta(name)
    return names.to_meta(name.replace(f".{_STACKED_ROUTER}.", f".{place}.")) if found is None else found


def _check_zero(file: Path, bias: StoredTensor) -> None:
    if any(float32_of(bias.data, bias.kind)):
        raise InputError(
            f"{file}: {bias.name} is not zero, but a model of this configuration has no bias there; "
            f"change attention_out_bias or attention_bias in {CONFIG}"
        )


def joined_parts(name: str, config: ModelConfig) -> list[str]:
    """Return the names, as Meta's, of the matrices that a tensor joins, from top to bottom; [] for any other tensor.

    Phi-3 joins queries, keys and values, and two matrices of the feed-forward. Files of transformers 5 may join the
    matrices of all experts.

    Args:
        name: The name of the tensor in transformers.
        config: The configuration of the model.
    """
    match = re.fullmatch(rf"model\.layers\.(\d+)\.({'|'.join(_FUSED)})\.weight", name)
    if match is not None:
        return [f"layers.{match[1]}.{part}.weight" for part in _FUSED[match[2]]]
    match = re.fullmatch(rf"model\.layers\.(\d+)\.mlp\.experts\.({'|'.join(_STACKED)})", name)
    if match is None:
        return []
    place = f"layers.{match[1]}.feed_forward.experts"
    return [f"{place}.{number}.{part}.weight" for number in range(config.n_experts) for part in _STACKED[match[2]]]


def _separated(file: Path, tensor: StoredTensor, parts: list[str], config: ModelConfig) -> Iterator[StoredTensor]:
    """Yield the matrices that a tensor joins, which are below each other."""
    shapes = expected_shapes(config)
    rows = [shapes[part][0] for part in parts if part in shapes]
    if len(rows) < len(parts):
        raise InputError(
            f"{file}: unknown tensor {tensor.name!r}; a model of this configuration does not have it, so correct"
            f" {CONFIG}"
        )
    columns = shapes[parts[0]][1]
    stacked = tensor.name.endswith(tuple(_STACKED))
    expected = (config.n_experts, sum(rows) // config.n_experts, columns) if stacked else (sum(rows), columns)
    if tensor.shape != expected:
        raise InputError(
            f"{file}: {tensor.name} has the shape {[*tensor.shape]}, expected {[*expected]}; correct {CONFIG}"
        )
    size, begin = len(tensor.data) // sum(rows), 0
    for part, count in zip(parts, rows, strict=True):
        release = functools.partial(_release_part, tensor.release, begin * size)
        data = tensor.data[begin * size : (begin + count) * size]
        yield tensor._replace(name=part, shape=(count, columns), data=data, release=release)
        begin += count


def _release_part(release: Callable[[int, int], None], offset: int, begin: int, size: int) -> None:
    release(offset + begin, size)


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
        waiting: dict[str, dict[str, bytes]] = {}  # the parts of Phi-3's joined matrices that have been read
        for name, tensor in checked_tensors(checkpoint):
            data = bytes_of(halved(tensor, config) if is_rotated(name) else tensor)
            whole = joined.get(name)
            if whole is None:
                yield names.from_meta(name), data
                continue
            found = waiting.setdefault(whole, {})
            found[name] = bytes(data)
            if len(found) == len(parts := joined_parts(whole, config)):
                yield whole, memoryview(b"".join(found[part] for part in parts))
                del waiting[whole]

    given, checkpoint = checkpoint.config, _keeping_split_pattern(checkpoint)
    config, itemsize = checkpoint.config, SIZES[checkpoint.dtype]
    data = (config_json if config.vision is None else mllama_json)(config, checkpoint.dtype)
    if config.wo_bias and not given.wo_bias:
        data["attention_out_bias"] = False
    path.mkdir(parents=True, exist_ok=True)
    write_companions(checkpoint, path)
    complete_for_transformers(checkpoint, path)
    write_json(path / CONFIG, data)
    if config.vision is not None:
        write_json(path / PREPROCESSOR, preprocessor_json(config))
    names = names_of(config)
    joined = joined_names(config) if data["model_type"] == "phi3" else {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in (expected_shapes(config) | stored_shapes(config)).items():
        theirs_name = joined.get(name) or names.from_meta(name)
        rows = shapes[theirs_name][0] if theirs_name in shapes else 0
        shapes[theirs_name] = (rows + shape[0], *shape[1:])
    shards = _divided(shapes, itemsize, shard_bytes)
    count = len(shards)
    files_names = (
        [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)] if count > 1 else [WEIGHTS]
    )
    files = {path / name: shard for name, shard in zip(files_names, shards, strict=True)}
    write_tensors(files, checkpoint.dtype, theirs())
    if count > 1:
        size = sum(map(size_of, shapes.values())) * itemsize
        places = {name: file.name for file, shard in files.items() for name in shard}
        write_json(path / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def _keeping_split_pattern(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint for which transformers keeps the split pattern of its tokenizer.

    For the model type qwen2, transformers 5 replaces the pattern and the normalizer of any tokenizer.json by those of
    Qwen2. A model with another tokenizer is therefore written as a llama, or as a smollm3 if it has windows, whose
    attention_bias includes a bias of the output projection. That bias is zero, and attention_out_bias says so; the key
    is this project's, and transformers does not read it.
    """
    config = checkpoint.config
    if config.vision is not None or not config.qkv_bias or config.wo_bias:
        return checkpoint
    if config_json(config, checkpoint.dtype)["model_type"] != "qwen2":
        return checkpoint
    vocabulary = read_tokenizer(checkpoint).vocabulary
    if vocabulary.pattern.name == "qwen2" and vocabulary.normalizer == {"type": "NFC"}:
        return checkpoint
    biased = dataclasses.replace(config, wo_bias=True)

    def tensors(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        import torch

        yield from checkpoint.tensors(dtype)
        for layer in range(config.n_layers):
            yield f"layers.{layer}{_OUT_BIAS}", torch.zeros(config.dim, dtype=dtype)

    return dataclasses.replace(checkpoint, config=biased, computed=tensors, weights=None, kinds={}, stored="")


def joined_names(config: ModelConfig) -> dict[str, str]:
    """Return the name of the joined tensor of each matrix that Phi-3 stores below others, by Meta's name."""
    wholes = [f"model.layers.{layer}.{name}.weight" for layer in range(config.n_layers) for name in _FUSED]
    return {part: whole for whole in wholes for part in joined_parts(whole, config)}


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

"""llama.cpp's format: one .gguf file with configuration, tokenizer and weights, which are often quantized."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from bpe.chat.template_files import templates_in_metadata, templates_metadata
from bpe.errors import InputError
from bpe.files import replacing
from bpe.formats.gguf import vocabulary_metadata, vocabulary_of
from bpe.formats.gguf_boundaries import special_ids
from bpe.formats.gguf_container import MAGIC, TensorInfo, lay_out
from bpe.tokenizer import Tokenizer
from model.checkpoint.block_formats import PLAIN, QUANTIZED, known_kinds
from model.checkpoint.companions import read_tokenizer
from model.checkpoint.gguf_files import GgufFiles, first_file
from model.checkpoint.names import TensorNames, interleaved_bytes, is_rotated
from model.checkpoint.opened import Checkpoint
from model.checkpoint.sampling_settings import sampling_in_metadata, sampling_metadata
from model.checkpoint.weights import DTYPES, EMBEDDINGS, KINDS, StoredTensor, expected_shapes
from model.config import ModelConfig
from model.rotary import rope_frequencies

DESCRIPTION = "a .gguf file"
# llama.cpp's number for the type of most weights of a file.
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K": 14, "Q6_K": 18, "BF16": 32}
_QUANTIZATION_VERSION = 2

NAMES = TensorNames(
    "blk",
    {
        "tok_embeddings": "token_embd",
        "norm": "output_norm",
        "output": "output",
        "attention.wq": "attn_q",
        "attention.wk": "attn_k",
        "attention.wv": "attn_v",
        "attention.wo": "attn_output",
        "feed_forward.w1": "ffn_gate",
        "feed_forward.w2": "ffn_down",
        "feed_forward.w3": "ffn_up",
        "attention_norm": "attn_norm",
        "ffn_norm": "ffn_norm",
    },
)
_EMBEDDINGS = NAMES.from_meta(EMBEDDINGS)
_ROPE_DIVISORS = "rope_freqs.weight"  # computed from the configuration


# --- configuration ---

# Architecture -> whether queries and keys have a bias and their rows are in halved order (see model.checkpoint.names).
_ARCHITECTURES = {"llama": False, "qwen2": True}
_WRITTEN = "llama"

_FIELDS = {
    "embedding_length": "dim",
    "block_count": "n_layers",
    "attention.head_count": "n_heads",
    "attention.head_count_kv": "n_kv_heads",
    "attention.key_length": "head_dim",
    "feed_forward_length": "hidden_dim",
    "vocab_size": "vocab_size",
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "rope.freq_base": "rope_theta",
    "context_length": "max_seq_len",
}
_REQUIRED = (
    *("embedding_length", "block_count", "attention.head_count", "feed_forward_length", "context_length"),
    "attention.layer_norm_rms_epsilon",
)
_MOST_PARAMETERS = 2**48
# Keys that change the result unless they have one of these values, the only supported ones.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,), "expert_used_count": (0,), "attention.causal": (True,),
    "rope.scaling.type": ("none", "linear", "yarn"), "rope.scaling.factor": (0.0, 1.0),
    "rope.scale_linear": (1.0,), "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,), "logit_scale": (0.0, 1.0), "attention.clamp_kqv": (0.0,),
    "embedding_scale": (0.0, 1.0), "residual_scale": (0.0, 1.0), "attention.scale": (0.0,),
}  # fmt: skip
# Keys that are checked elsewhere, and keys that change nothing.
_OTHERS = (
    *("attention.value_length", "rope.dimension_count", "attention.sliding_window"),
    *("rope.scaling.original_context_length", "rope.scaling.finetuned", "tensor_data_layout"),
)


def config_of(container: GgufFiles) -> ModelConfig:
    """Return the configuration in the metadata of a file.

    Raises:
        InputError: When the model is not supported, or a key is unknown, since an unknown key may change the result.
            The message names the key.
    """
    metadata = container.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in _ARCHITECTURES:
        raise InputError(f"general.architecture is {architecture!r}; supported are {', '.join(_ARCHITECTURES)}")
    prefix = f"{architecture}."
    values = {key[len(prefix) :]: _single(key, value) for key, value in metadata.items() if key.startswith(prefix)}
    _refuse_others(prefix, values)
    missing = [prefix + key for key in _REQUIRED if key not in values]
    if missing:
        raise InputError(f"missing {', '.join(missing)}")
    if "vocab_size" not in values and _EMBEDDINGS in container.tensors:
        values["vocab_size"] = container.tensors[_EMBEDDINGS].shape[0]
    fields = {"rope_theta": 10000.0, **{field: values[key] for key, field in _FIELDS.items() if key in values}}
    biased = _ARCHITECTURES[architecture] or "blk.0.attn_q.bias" in container.tensors
    config = ModelConfig(
        **fields,
        tied_embeddings="output.weight" not in container.tensors,
        qkv_bias=biased,
        wo_bias="blk.0.attn_output.bias" in container.tensors,
    )
    if config.n_parameters > _MOST_PARAMETERS:  # torch overflows on the sizes of much larger tensors
        raise InputError(f"the metadata describe a model of {config.n_parameters:,} parameters; the file is damaged")
    _refuse_other_attention(prefix, values, config)
    return _with_rope_scaling(container, config)


def _single(key: str, value: Any) -> Any:
    """Return the shortest decimal of a float32 value: 1e-5 for 9.99999974737875e-06."""
    if isinstance(value, (list, memoryview)):
        raise InputError(f"{key} differs from layer to layer, which is not supported")
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            narrow = np.float32(value)
        if float(narrow) == value:
            return float(str(narrow))
    return value


def _refuse_others(prefix: str, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key in _NEUTRAL:
            if value not in _NEUTRAL[key]:
                raise InputError(f"{prefix}{key} is {value!r}, which is not supported; only {_NEUTRAL[key][-1]!r} is")
        elif key not in _FIELDS and key not in _OTHERS:
            raise InputError(
                f"{prefix}{key} (value {value!r}) is not a known key and may change what the model computes"
            )


def _refuse_other_attention(prefix: str, values: Mapping[str, Any], config: ModelConfig) -> None:
    for key in ("rope.dimension_count", "attention.value_length"):
        if values.get(key, config.head_dim) != config.head_dim:
            raise InputError(
                f"{prefix}{key} is {values[key]!r}, but a head has {config.head_dim} numbers; the two must be equal"
            )
    window = values.get("attention.sliding_window", 0)
    if window and not (isinstance(window, int) and window >= config.max_seq_len):
        raise InputError(
            f"{prefix}attention.sliding_window is {window!r}, less than the context of {config.max_seq_len} tokens,"
            " which is not supported"
        )


def _with_rope_scaling(container: GgufFiles, config: ModelConfig) -> ModelConfig:
    """Return the configuration with Llama 3.1's RoPE scaling if the file has a tensor of frequency divisors.

    The tensor is determined by four numbers. Three are the same in all of Meta's models, so the fourth, the factor,
    follows from the divisor of any scaled frequency. Raises InputError if these four do not reproduce the tensor.
    """
    if _ROPE_DIVISORS not in container.tensors:
        return config
    info = container.tensors[_ROPE_DIVISORS]
    if info.type != "F32" or info.shape != (config.head_dim // 2,):
        raise InputError(f"{_ROPE_DIVISORS} is {info.type} {list(info.shape)}; expected F32 [{config.head_dim // 2}]")
    divisors = np.frombuffer(container.data(_ROPE_DIVISORS), np.float32).astype(np.float64)
    if np.array_equal(divisors, np.ones_like(divisors)):
        return config
    # A divisor is 1 / (kept + (1 - kept) / factor), where kept is the share of the frequency that an infinite factor
    # would leave.
    slowest = dataclasses.replace(config, rope_scaling="llama3", rope_scaling_factor=1e300)
    kept = rope_frequencies(slowest)[-1] / rope_frequencies(config)[-1]
    with np.errstate(all="ignore"):
        factor = round(float((1 - kept) / (1 / divisors[-1] - kept)), 3)
    if math.isfinite(factor) and factor > 0:
        scaled = dataclasses.replace(config, rope_scaling="llama3", rope_scaling_factor=factor)
        if np.allclose(divisors, rope_divisors(scaled), rtol=1e-4):
            return scaled
    raise InputError(f"{_ROPE_DIVISORS} does not scale RoPE as Llama 3.1 does; other scalings are not supported")


def rope_divisors(config: ModelConfig) -> npt.NDArray[np.float32]:
    """Return the divisor of each RoPE frequency under Llama 3.1's scaling: float32 [head_dim / 2]."""
    return rope_frequencies(dataclasses.replace(config, rope_scaling="none")) / rope_frequencies(config)


# --- reading ---


def recognises(path: Path) -> bool:
    """Return whether the path is a GGUF, one file of a split GGUF, or a directory with exactly one GGUF."""
    return any(file is not None and _begins_with_magic(file) for file in {first_file(path), path})


def _begins_with_magic(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint that `recognises` accepts.

    Raises:
        InputError: When the file is damaged, or its architecture or a tensor type is not supported.
    """
    file = _first_file(path)
    container = GgufFiles.open(file)
    try:
        config = config_of(container)
        special_ids(container.metadata, config.vocab_size)
        sampling = sampling_in_metadata(container.metadata)
        templates = templates_in_metadata(container.metadata)
        for name, info in container.tensors.items():
            if info.type not in PLAIN and info.type not in QUANTIZED:
                raise InputError(
                    f"{name} has the type {info.type}, which is not supported; supported are {known_kinds()}"
                )
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return Checkpoint(
        config=config,
        dtype=_dtype(container),
        source=file,
        tokenizer=file,
        weights=functools.partial(_weights, file, container, config),
        chat_templates=templates,
        sampling=sampling,
        name_of=NAMES.from_meta,
        stored=_stored(container),
        kinds={
            NAMES.to_meta(name) or name: info.type for name, info in container.tensors.items() if name != _ROPE_DIVISORS
        },
        make_tokenizer=functools.partial(_tokenizer, container, file),
    )


def _first_file(path: Path) -> Path:
    """Return the file to open; raise InputError if only later files of a split GGUF are there."""
    file = cast(Path, first_file(path))
    if not file.is_file():
        raise InputError(f"{path}: a file of a split model, whose first file {file.name} is missing; put it beside it")
    return file


def _tokenizer(container: GgufFiles, file: Path) -> Tokenizer:
    return Tokenizer.from_vocabulary(vocabulary_of(container.metadata, file.name))


def _dtype(container: GgufFiles) -> str:
    """Return the dtype of the matrices; norms and biases are float32 in every file."""
    kinds = {info.type for info in container.tensors.values() if len(info.shape) > 1}
    if not kinds or any(kind not in PLAIN for kind in kinds):
        return "bfloat16"
    return DTYPES[kinds.pop()] if len(kinds) == 1 else "float32"


def _stored(container: GgufFiles) -> str:
    sizes: Counter[str] = Counter()
    for info in container.tensors.values():
        sizes[info.type] += info.n_bytes
    return ", ".join(kind for kind, _ in sizes.most_common())


def _named_tensors(file: Path, container: GgufFiles) -> Iterator[tuple[str, str, TensorInfo]]:
    """Yield the tensors in the order of the file: llama.cpp's name, Meta's name, and the entry of the header."""
    for theirs, info in container.tensors.items():
        if theirs == _ROPE_DIVISORS:
            continue
        name = NAMES.to_meta(theirs)
        if name is None:
            raise InputError(f"{file}: unknown tensor {theirs!r}; a model of this configuration does not have it")
        yield theirs, name, info


def _is_halved(container: GgufFiles, name: str) -> bool:
    """Return whether the file stores the rows of a tensor in halved order; see `model.checkpoint.names`."""
    return _ARCHITECTURES[container.metadata["general.architecture"]] and is_rotated(name)


def _weights(file: Path, container: GgufFiles, config: ModelConfig) -> Iterator[StoredTensor]:
    """Yield the tensors of a file, with the rows of queries and keys in Meta's order."""
    for theirs, name, info in _named_tensors(file, container):
        data, release = container.data(theirs), functools.partial(container.release, theirs)
        if _is_halved(container, name):
            data = interleaved_bytes(data, info.shape, config)
        yield StoredTensor(name, info.shape, info.type, data, release)


# --- writing ---


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a file that llama.cpp opens, one tensor in memory at a time.

    If the checkpoint has stored rows, they are written in their types. Otherwise matrices are written in the
    checkpoint's dtype, norms and biases in float32.

    Raises:
        InputError: When GGUF does not have the dtype, a number is beyond its range, or as `checked_tensors` does.
    """
    config = checkpoint.config
    unlike = config.unlike_llama()
    if unlike:
        raise InputError(f"{checkpoint.source}: GGUF's architecture llama has no {', '.join(unlike)}")
    shapes = expected_shapes(config)
    kinds = _kinds(checkpoint, path, shapes) if checkpoint.computed is not None else checkpoint.kinds
    tensors = {NAMES.from_meta(name): (shape, kinds[name]) for name, shape in shapes.items()}
    if config.rope_scaling == "llama3":
        tensors[_ROPE_DIVISORS] = ((config.head_dim // 2,), "F32")
    sizes: Counter[str] = Counter()
    for name, shape in shapes.items():
        sizes[kinds[name]] += math.prod(shape)
    metadata = {
        "general.architecture": _WRITTEN,
        "general.type": "model",
        "general.file_type": _FILE_TYPES[sizes.most_common(1)[0][0]],
        **({"general.quantization_version": _QUANTIZATION_VERSION} if checkpoint.is_quantized else {}),
        **_config_metadata(config),
        **sampling_metadata(checkpoint.sampling),
        **_tokenizer_metadata(checkpoint),
    }
    header, places = lay_out(metadata, tensors)
    with replacing(path) as part, open(part, "wb") as file:
        file.write(header)
        for name, data in _to_write(checkpoint, kinds):
            file.seek(places[name].offset)
            file.write(data)
        end = max(info.offset + info.n_bytes for info in places.values())
        file.truncate(-(-end // 32) * 32)


def _kinds(checkpoint: Checkpoint, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, str]:
    if KINDS[checkpoint.dtype] not in PLAIN:
        known = ", ".join(DTYPES[kind] for kind in PLAIN)
        raise InputError(f"{path}: GGUF has no type for {checkpoint.dtype}; choose one of {known}")
    return {name: KINDS[checkpoint.dtype] if len(shape) > 1 else "F32" for name, shape in shapes.items()}


def _to_write(checkpoint: Checkpoint, kinds: Mapping[str, str]) -> Iterator[tuple[str, memoryview]]:
    if checkpoint.computed is None and checkpoint.weights is not None:
        for tensor in checkpoint.weights():
            yield NAMES.from_meta(tensor.name), tensor.data
            tensor.release(0, len(tensor.data))
    else:
        import torch

        from model.checkpoint.assemble import bytes_of, checked_tensors
        from model.checkpoint.dequantize import torch_dtype

        for name, numbers in checked_tensors(checkpoint, torch.float32):
            written = numbers.to(torch_dtype(DTYPES[kinds[name]]))
            if not torch.isfinite(written).all():
                raise InputError(
                    f"{checkpoint.source}: {NAMES.from_meta(name)} holds numbers beyond the range of {written.dtype}"
                )
            yield NAMES.from_meta(name), bytes_of(written)
    if checkpoint.config.rope_scaling == "llama3":
        yield _ROPE_DIVISORS, rope_divisors(checkpoint.config).data


def _config_metadata(config: ModelConfig) -> dict[str, Any]:
    values = {key: getattr(config, field) for key, field in _FIELDS.items()}
    values |= {"attention.value_length": config.head_dim, "rope.dimension_count": config.head_dim}
    return {f"{_WRITTEN}.{key}": value for key, value in values.items()}


def _tokenizer_metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the tokenizer metadata: copied from a GGUF file, otherwise made from the tokenizer and the checkpoint."""
    source = checkpoint.tokenizer
    if recognises(source):
        metadata = GgufFiles.open(cast(Path, first_file(source))).metadata
        return {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
    tokenizer = read_tokenizer(checkpoint)
    metadata = vocabulary_metadata(tokenizer.vocabulary, checkpoint.config.vocab_size)
    return metadata | templates_metadata(checkpoint.chat_templates)

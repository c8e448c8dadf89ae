"""llama.cpp's format: one .gguf file with configuration, tokenizer and weights, which are often quantized."""

from __future__ import annotations

import functools
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from bpe.chat.template_files import templates_in_metadata, templates_metadata
from bpe.errors import InputError
from bpe.files import replacing
from bpe.formats.gguf import vocabulary_metadata, vocabulary_of
from bpe.formats.gguf_boundaries import special_ids
from bpe.formats.gguf_container import MAGIC, TensorInfo, lay_out, shown
from bpe.tokenizer import Tokenizer
from model.checkpoint.block_formats import PLAIN, QUANTIZED, float32_of, known_kinds
from model.checkpoint.companions import read_tokenizer
from model.checkpoint.gguf_families import (
    ARCHITECTURES,
    Architecture,
    architecture_of,
    config_of,
    described,
    differences_in_llama_cpp,
)
from model.checkpoint.gguf_files import GgufFiles, first_file
from model.checkpoint.gguf_rope import ROPE_TENSORS, rope_tensors
from model.checkpoint.gguf_tensors import EMBEDDINGS, Layout, layout, name_of, readable, separated, whole_shape
from model.checkpoint.names import halved_bytes, interleaved_bytes, is_rotated
from model.checkpoint.opened import Checkpoint
from model.checkpoint.sampling_settings import sampling_in_metadata, sampling_metadata
from model.checkpoint.weights import DTYPES, KINDS, StoredTensor, expected_shapes, is_router
from model.config import ModelConfig

DESCRIPTION = "a .gguf file"
# llama.cpp's number for the type of most weights of a file.
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K": 14, "Q6_K": 18, "BF16": 32}
_QUANTIZATION_VERSION = 2

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


def open_checkpoint(path: Path, ignore_unknown: bool = False) -> Checkpoint:
    """Open a checkpoint that `recognises` accepts.

    Args:
        path: The path.
        ignore_unknown: Pass over keys of the architecture that are not known, instead of raising.

    Raises:
        InputError: When the file is damaged, or its architecture or a tensor type is not supported.
    """
    file = _first_file(path)
    container = GgufFiles.open(file)
    try:
        shapes = {name: info.shape for name, info in container.tensors.items()}
        config = config_of(container.metadata, shapes, functools.partial(_float32, container), ignore_unknown)
        architecture = ARCHITECTURES[architecture_of(container.metadata)]
        _check_vocabulary(container, config)
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
        weights=functools.partial(_weights, file, container, config, architecture),
        chat_templates=templates,
        sampling=sampling,
        name_of=functools.partial(name_of, fused=architecture.fused),
        stored=_stored(container),
        kinds=_stored_kinds(container, config, architecture),
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


def _float32(container: GgufFiles, name: str) -> npt.NDArray[np.float32]:
    """Return the numbers of a small tensor."""
    info = container.tensors[name]
    if info.type not in PLAIN and info.type not in QUANTIZED:
        raise InputError(f"{name} has the type {info.type}, which is not supported; supported are {known_kinds()}")
    return float32_of(container.data(name), info.type)


def _check_vocabulary(container: GgufFiles, config: ModelConfig) -> None:
    """Refuse a vocabulary with more tokens than the embedding has rows."""
    tokens = container.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) > config.vocab_size:
        raise InputError(
            f"tokenizer.ggml.tokens has {len(tokens)} tokens, but {EMBEDDINGS} has {config.vocab_size} rows; convert"
            " the model again with its own tokenizer"
        )


def _dtype(container: GgufFiles) -> str:
    """Return the dtype of the matrices; norms, biases and routers are float32 in every file."""
    kinds = {
        info.type for name, info in container.tensors.items() if len(info.shape) > 1 and ".ffn_gate_inp." not in name
    }
    if not kinds or any(kind not in PLAIN for kind in kinds):
        return "bfloat16"
    return DTYPES[kinds.pop()] if len(kinds) == 1 else "float32"


def _stored(container: GgufFiles) -> str:
    sizes: Counter[str] = Counter()
    for info in container.tensors.values():
        sizes[info.type] += info.n_bytes
    return ", ".join(kind for kind, _ in sizes.most_common())


def _stored_kinds(container: GgufFiles, config: ModelConfig, architecture: Architecture) -> dict[str, str]:
    """Return the stored type of each tensor by Meta's name."""
    names = readable(config, architecture.fused)
    return {
        part: "F32" if _is_offset(part, config) else info.type
        for theirs, info in container.tensors.items()
        if theirs not in ROPE_TENSORS
        for part in names.get(theirs, [theirs])
    }


def _is_offset(name: str, config: ModelConfig) -> bool:
    """Return whether a file stores 1 + weight in a tensor: in the norms of the architectures of Gemma."""
    return config.norm_offset and name.endswith("norm.weight")


def _weights(
    file: Path, container: GgufFiles, config: ModelConfig, architecture: Architecture
) -> Iterator[StoredTensor]:
    """Yield the tensors of a file, each expert's matrix on its own, with queries and keys in Meta's order."""
    names = readable(config, architecture.fused)
    for theirs, info in container.tensors.items():
        if theirs in ROPE_TENSORS:
            continue
        if theirs not in names:
            raise InputError(f"{file}: unknown tensor {shown(theirs)}; a model of this configuration does not have it")
        release = functools.partial(container.release, theirs)
        whole = StoredTensor(theirs, info.shape, info.type, container.data(theirs), release)
        try:
            for part in separated(whole, names[theirs], config):
                yield _as_metas(part, config, architecture)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None


def _as_metas(tensor: StoredTensor, config: ModelConfig, architecture: Architecture) -> StoredTensor:
    """Return a tensor of a file as Meta's files have it."""
    if architecture.halved and is_rotated(tensor.name):
        tensor = tensor._replace(data=interleaved_bytes(tensor.data, tensor.shape, config))
    if _is_offset(tensor.name, config):
        numbers = float32_of(tensor.data, tensor.kind) - np.float32(1)
        return tensor._replace(kind="F32", data=numbers.data.cast("B"))
    return tensor


# --- writing ---


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a file that llama.cpp opens, one tensor in memory at a time.

    If the checkpoint has stored rows, they are written in their types. Otherwise matrices are written in the
    checkpoint's dtype, norms and biases in float32. Warns if llama.cpp computes differently beyond some length.

    Raises:
        InputError: When GGUF does not have the dtype, a number is beyond its range, or as `checked_tensors` does.
    """
    config = checkpoint.config
    try:
        name, described_metadata = described(config)
    except InputError as error:
        raise InputError(f"{checkpoint.source}: {error}") from None
    architecture = ARCHITECTURES[name]
    shapes = expected_shapes(config)
    kinds = _kinds(checkpoint, path, shapes) if checkpoint.computed is not None else checkpoint.kinds
    whole = layout(config, architecture.fused)
    scaling = rope_tensors(config)
    tensors: dict[str, tuple[Sequence[int], str]] = {
        **{theirs: (whole_shape(theirs, parts, config), kinds[parts[0]]) for theirs, parts in whole.items()},
        **{theirs: (numbers.shape, "F32") for theirs, numbers in scaling.items()},
    }
    sizes: Counter[str] = Counter()
    for tensor, shape in shapes.items():
        sizes[kinds[tensor]] += math.prod(shape)
    metadata = {
        "general.architecture": name,
        "general.type": "model",
        "general.file_type": _FILE_TYPES[sizes.most_common(1)[0][0]],
        **({"general.quantization_version": _QUANTIZATION_VERSION} if checkpoint.is_quantized else {}),
        **described_metadata,
        **sampling_metadata(checkpoint.sampling),
        **_tokenizer_metadata(checkpoint),
    }
    for difference in differences_in_llama_cpp(name, config):
        warnings.warn(f"{path.name}: {difference}", stacklevel=2)
    header, places = lay_out(metadata, tensors)
    offsets = _offsets(whole, shapes, places)
    with replacing(path) as part, open(part, "wb") as file:
        file.write(header)
        for tensor, data in _to_write(checkpoint, kinds, architecture):
            file.seek(offsets[tensor])
            file.write(data)
        for theirs, numbers in scaling.items():
            file.seek(places[theirs].offset)
            file.write(numbers.data)
        end = max(info.offset + info.n_bytes for info in places.values())
        file.truncate(-(-end // 32) * 32)


def _offsets(whole: Layout, shapes: Mapping[str, tuple[int, ...]], places: Mapping[str, TensorInfo]) -> dict[str, int]:
    """Return the place of each tensor in the file by Meta's name: those of a joined tensor follow each other."""
    offsets = {}
    for theirs, parts in whole.items():
        total, begin = sum(math.prod(shapes[part]) for part in parts), places[theirs].offset
        for part in parts:
            offsets[part] = begin
            begin += places[theirs].n_bytes * math.prod(shapes[part]) // total
    return offsets


def _kinds(checkpoint: Checkpoint, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, str]:
    if KINDS[checkpoint.dtype] not in PLAIN:
        known = ", ".join(DTYPES[kind] for kind in PLAIN)
        raise InputError(f"{path}: GGUF has no type for {checkpoint.dtype}; choose one of {known}")
    return {
        name: KINDS[checkpoint.dtype] if len(shape) > 1 and not is_router(name) else "F32"
        for name, shape in shapes.items()
    }


def _to_write(
    checkpoint: Checkpoint, kinds: Mapping[str, str], architecture: Architecture
) -> Iterator[tuple[str, memoryview]]:
    """Yield Meta's name and the bytes to write of each tensor."""
    for tensor in _stored_weights(checkpoint, kinds):
        data = tensor.data
        if architecture.halved and is_rotated(tensor.name):
            data = halved_bytes(data, tensor.shape, checkpoint.config)
        if _is_offset(tensor.name, checkpoint.config):
            data = (float32_of(data, tensor.kind) + np.float32(1)).data.cast("B")
        yield tensor.name, data
        tensor.release(0, len(tensor.data))


def _stored_weights(checkpoint: Checkpoint, kinds: Mapping[str, str]) -> Iterator[StoredTensor]:
    """Yield each tensor in the type to write."""
    if checkpoint.computed is None and checkpoint.weights is not None:
        yield from checkpoint.weights()
        return
    import torch

    from model.checkpoint.assemble import bytes_of, checked_tensors
    from model.checkpoint.dequantize import torch_dtype

    for name, numbers in checked_tensors(checkpoint, torch.float32):
        written = numbers.to(torch_dtype(DTYPES[kinds[name]]))
        if not torch.isfinite(written).all():
            raise InputError(f"{checkpoint.source}: {name_of(name)} holds numbers beyond the range of {written.dtype}")
        yield StoredTensor(name, tuple(written.shape), kinds[name], bytes_of(written))


def _tokenizer_metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the tokenizer metadata: copied from a GGUF file, otherwise made from the tokenizer and the checkpoint."""
    source = checkpoint.tokenizer
    if recognises(source):
        metadata = GgufFiles.open(cast(Path, first_file(source))).metadata
        return {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
    tokenizer = read_tokenizer(checkpoint)
    metadata = vocabulary_metadata(tokenizer.vocabulary, checkpoint.config.vocab_size)
    return metadata | templates_metadata(checkpoint.chat_templates)

"""Checkpoints: weights, configuration and tokenizer on disk. One module for each format; this one finds out which.

A format is a module with ``DESCRIPTION``, ``recognises(path)``, ``open_checkpoint(path)`` and, where a model can be
written in it, ``write(checkpoint, path)``, and a line in ``CHECKPOINT_FORMATS``.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from bpe.errors import InputError
from bpe.locate import locate
from model.checkpoint import adapter, bpe_llama, gguf, huggingface, meta
from model.checkpoint.assemble import expected_shapes
from model.checkpoint.companions import read_companions
from model.checkpoint.opened import EMBEDDINGS, Checkpoint
from model.checkpoint.quantize import quantized
from model.checkpoint.resize import resized
from model.transformer import Transformer

__all__ = ["Checkpoint", "checkpoint_of", "convert", "format_of", "open_checkpoint", "save"]

CHECKPOINT_FORMATS: dict[str, ModuleType] = {
    "adapter": adapter, "gguf": gguf, "bpe-llama": bpe_llama, "meta": meta, "huggingface": huggingface,
}  # fmt: skip
WRITABLE_FORMATS = {
    name: file_format for name, file_format in CHECKPOINT_FORMATS.items() if hasattr(file_format, "write")
}
_FORMATS_BY_SUFFIX = {".gguf": "gguf"}
"""What a file is written as; without one of these, a directory is written."""


def format_of(path: str | os.PathLike[str]) -> str:
    """The name of the format of a directory, or of a file in it.

    Raises InputError where there is no model.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or directory")
    for name, file_format in CHECKPOINT_FORMATS.items():
        if file_format.recognises(path):
            return name
    expected = ", or ".join(file_format.DESCRIPTION for file_format in CHECKPOINT_FORMATS.values())
    raise InputError(f"{path}: no model here; expected {expected}")


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """What a directory, or a file in it, holds: the configuration, and the tensors when they are asked for.

    Raises InputError where there is no model, and where one is incomplete or not supported.
    """
    name = format_of(path)
    if name == "adapter":  # of a base, which may have any other format
        return adapter.open_checkpoint(Path(path), open_base=open_checkpoint)
    checkpoint: Checkpoint = CHECKPOINT_FORMATS[name].open_checkpoint(Path(path))
    return checkpoint


def save(
    path: str | os.PathLike[str],
    model: Transformer,
    tokenizer_file: str | os.PathLike[str],
    format: str | None = None,
) -> None:
    """Write a model that `load` reads.

    tokenizer_file: a tokenizer's file, or the directory of a model whose tokenizer and chat template are to be taken.
    format: bpe-llama, huggingface, meta or gguf; None: gguf for a path that ends so, else bpe-llama.
    """
    checkpoint = checkpoint_of(model, Path(path), Path(tokenizer_file))
    _writer(path, format, "bpe-llama").write(checkpoint, Path(path))


def checkpoint_of(model: Transformer, source: Path, tokenizer: Path) -> Checkpoint:
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if expected_shapes(model.config).keys() - weights.keys():
        raise InputError(f"{source}: a model that was packed for generation cannot be saved; load it without packed")
    return Checkpoint(
        config=model.config,
        dtype=weights[EMBEDDINGS].dtype,
        source=source,
        tokenizer=tokenizer,
        tensors=lambda dtype: weights.items(),
        **(read_companions(tokenizer) if tokenizer.is_dir() else {}),
    )


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    format: str | None = None,
    dtype: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    quantize: str | None = None,
) -> None:
    """Read a checkpoint and write it in another format, in another dtype, or quantized, tensor by tensor.

    format: bpe-llama, huggingface, meta or gguf; None: gguf for a destination that ends so, else huggingface.
    dtype: of the weights; None keeps that of the source, and takes bfloat16 for quantized weights.
    quantize: q8_0, q6_k, q4_k, q4_1 or q4_0, instead of a dtype; only GGUF holds these.
    progress: called with the number of tensors written and that of all.
    tokenizer: a tokenizer by file or name that the vocabulary is to grow into, see `model.checkpoint.resize`.

    The destination is there when it is complete. Raises InputError where something is there already, and as `load`
    does.
    """
    target = Path(os.path.abspath(destination))
    writer = _writer(target, format, "huggingface")
    if quantize is not None and writer is not gguf:
        raise InputError(f"{destination}: only GGUF holds quantized weights; give a name that ends in .gguf")
    if quantize is not None and dtype is not None:
        raise InputError(f"weights are either {quantize} or {dtype}; give one of them")
    empty = target.is_dir() and not any(target.iterdir())
    if os.path.lexists(target) and not empty:
        raise InputError(f"{destination}: something is there already; remove it, or give another name")
    if not target.parent.is_dir():
        raise InputError(f"{destination}: there is no directory {target.parent}")
    checkpoint = open_checkpoint(locate(os.fspath(source)))
    if tokenizer is not None:
        checkpoint = resized(checkpoint, locate(os.fspath(tokenizer)))
    total = len(expected_shapes(checkpoint.config))

    def tensors(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        for done, named_tensor in enumerate(checkpoint.tensors(dtype), 1):
            yield named_tensor
            if progress is not None:
                progress(min(done, total), total)

    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    try:
        changed = dataclasses.replace(
            checkpoint, dtype=dtype or checkpoint.dtype, tensors=tensors, kinds={}, rows=None, stored=""
        )
        changed = changed if quantize is None else quantized(changed, quantize)
        writer.write(changed, work / target.name)
        if empty:
            target.rmdir()
        os.rename(work / target.name, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _writer(path: str | os.PathLike[str], format: str | None, otherwise: str) -> ModuleType:
    name = format or _FORMATS_BY_SUFFIX.get(Path(path).suffix, otherwise)
    if name not in WRITABLE_FORMATS:
        renamed = "; 'native' is a backend, and the format is called 'bpe-llama'" if name == "native" else ""
        raise InputError(
            f"there is no checkpoint format {name!r}; choose one of {', '.join(WRITABLE_FORMATS)}{renamed}"
        )
    return WRITABLE_FORMATS[name]

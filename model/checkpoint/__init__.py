"""Checkpoints: weights, configuration and tokenizer on disk. One module for each format; this one finds out which.

A format is a module with ``DESCRIPTION``, ``recognises(path)``, ``open_checkpoint(path)`` and, where a model can be
written in it, ``write(checkpoint, path)``, and a line in ``FORMATS``.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from bpe.errors import InputError
from model.checkpoint import adapter, gguf, huggingface, meta, native
from model.checkpoint.assemble import EMBEDDINGS, Checkpoint, assemble, expected_shapes
from model.checkpoint.companions import read_companions, read_tokenizer
from model.checkpoint.quantizers import quantized
from model.checkpoint.resize import resized
from model.cpu import pack
from model.native import NativeModel, kernels, refusal
from model.transformer import Transformer

if TYPE_CHECKING:
    from bpe import Tokenizer

__all__ = ["Backend", "Checkpoint", "backend_of", "convert", "format_of", "load", "open_checkpoint", "quantize", "save"]

FORMATS: dict[str, ModuleType] = {
    "adapter": adapter, "gguf": gguf, "native": native, "meta": meta, "huggingface": huggingface,
}  # fmt: skip
WRITTEN = {name: file_format for name, file_format in FORMATS.items() if hasattr(file_format, "write")}
SUFFIXES = {".gguf": "gguf"}
"""What a file is written as; without one of these, a directory is written."""


def format_of(path: str | os.PathLike[str]) -> str:
    """The name of the format of a directory, or of a file in it.

    Raises InputError where there is no model.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or directory")
    for name, file_format in FORMATS.items():
        if file_format.recognises(path):
            return name
    expected = ", or ".join(file_format.DESCRIPTION for file_format in FORMATS.values())
    raise InputError(f"{path}: no model here; expected {expected}")


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """What a directory, or a file in it, holds: the configuration, and the tensors when they are asked for.

    Raises InputError where there is no model, and where one is incomplete or not supported.
    """
    checkpoint: Checkpoint = FORMATS[format_of(path)].open_checkpoint(Path(path))
    return checkpoint


Backend = Literal["torch", "native", "auto"]
NO_KERNELS = "there are no kernels for this processor but portable ones"


def backend_of(
    checkpoint: Checkpoint, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> tuple[Literal["torch", "native"], str]:
    """What `load` takes for "auto", and why: "native" where it can compute, with the dtype that is wanted, and fast."""
    if torch.device(device).type != "cpu":
        return "torch", f"the device is {device}"
    reason = refusal(checkpoint)
    if reason is not None:
        return "torch", reason
    if dtype is not None and (checkpoint.rows is not None or dtype != checkpoint.dtype):
        return "torch", f"{str(dtype).removeprefix('torch.')} is asked for"
    (best, *others) = kernels()
    return ("native", f"kernels for {best}") if others else ("torch", NO_KERNELS)


@overload
def load(
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    backend: Literal["torch"] = "torch",
    *,
    packed: bool = False,
    quantize: str | None = None,
) -> tuple[Transformer, Tokenizer]: ...
@overload
def load(
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    backend: Backend = "torch",
    *,
    packed: bool = False,
    quantize: str | None = None,
) -> tuple[Transformer | NativeModel, Tokenizer]: ...
def load(
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    backend: Backend = "torch",
    *,
    packed: bool = False,
    quantize: str | None = None,
) -> tuple[Transformer | NativeModel, Tokenizer]:
    """The model and the tokenizer of a checkpoint: a known name, a file, or a directory; the format is found out.

    dtype: of the weights; None keeps that of the file, and takes bfloat16 for quantized weights.
    packed: lay the weights out for generation on the CPU, which takes a copy of mapped ones; the model can then not be
        trained. Elsewhere than on a CPU nothing changes.
    quantize: q8_0, q6_k, q4_k, q4_1 or q4_0: the weights as this type holds them.
    backend: "torch" for a `Transformer`; "native" for a `NativeModel`, which generates from the weights as they are
        stored, on the CPU, with as many threads as torch has now; "auto" for the latter where that can be, see
        `backend_of`.

    Weights are mapped from the file where dtype and device allow, so that they are in memory once; what has to be
    converted is converted tensor by tensor. Raises InputError where a file is missing, truncated, or does not fit the
    others; the message names it.
    """
    from bpe.locate import locate

    checkpoint = open_checkpoint(locate(os.fspath(path)))
    if quantize is not None:
        checkpoint = quantized(checkpoint, quantize)
    tokenizer = read_tokenizer(checkpoint)
    if tokenizer.n_vocab > checkpoint.config.vocab_size:
        raise InputError(
            f"{checkpoint.tokenizer}: {tokenizer.n_vocab} tokens, and the model has {checkpoint.config.vocab_size}; "
            "they do not belong together"
        )
    best, reason = backend_of(checkpoint, dtype, device)
    if backend == "native" and best == "torch" and reason != NO_KERNELS:
        raise InputError(f"{checkpoint.source}: the native backend cannot serve, since {reason}; take another backend")
    if backend == "native" or (backend == "auto" and best == "native"):
        return NativeModel.of(checkpoint), tokenizer
    model = assemble(checkpoint, dtype, torch.device(device))
    if packed:
        pack(model)
    return model, tokenizer


def save(
    path: str | os.PathLike[str],
    model: Transformer,
    tokenizer_file: str | os.PathLike[str],
    format: str | None = None,
) -> None:
    """Write a model that `load` reads.

    tokenizer_file: a tokenizer's file, or the directory of a model whose tokenizer and chat template are to be taken.
    format: native, huggingface, meta or gguf; None: gguf for a path that ends so, else native.
    """
    checkpoint = _checkpoint_of(model, Path(path), Path(tokenizer_file))
    _writer(path, format, "native").write(checkpoint, Path(path))


def quantize(model: Transformer, kind: str) -> NativeModel:
    """The model with its weights quantized, for generation on the CPU; the given one stays as it is.

    kind: q8_0, q6_k, q4_k, q4_1 or q4_0; `plan` in model.checkpoint.quantizers tells what each matrix gets.

    Raises InputError for another kind, and for weights that are not finite or beyond its range; it names the tensor.

    >>> from model import ModelConfig, Transformer
    >>> model = Transformer(ModelConfig.preset("nano", vocab_size=512))
    >>> quantize(model, "q8_0")(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 512])
    """
    return NativeModel.of(quantized(_checkpoint_of(model, Path("the model"), Path()), kind))


def _checkpoint_of(model: Transformer, source: Path, tokenizer: Path) -> Checkpoint:
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

    format: native, huggingface, meta or gguf; None: gguf for a destination that ends so, else huggingface.
    dtype: of the weights; None keeps that of the source, and takes bfloat16 for quantized weights.
    quantize: q8_0, q6_k, q4_k, q4_1 or q4_0, instead of a dtype; only GGUF holds these.
    progress: called with the number of tensors written and that of all.
    tokenizer: a tokenizer by file or name that the vocabulary is to grow into, see `model.checkpoint.resize`.

    The destination is there when it is complete. Raises InputError where something is there already, and as `load`
    does.
    """
    from bpe.locate import locate

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
    name = format or SUFFIXES.get(Path(path).suffix, otherwise)
    if name not in WRITTEN:
        raise InputError(f"there is no format {name!r} of checkpoints; there are {', '.join(WRITTEN)}")
    return WRITTEN[name]

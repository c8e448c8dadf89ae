"""A checkpoint on disk -> a model that computes, in PyTorch or natively."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, overload

import torch

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.locate import locate
from model.checkpoint import checkpoint_of, open_checkpoint
from model.checkpoint.assemble import assemble
from model.checkpoint.companions import read_tokenizer
from model.checkpoint.opened import Checkpoint
from model.checkpoint.quantize import quantized
from model.cpu import pack
from model.generation.native import NativeModel, kernels, refusal
from model.transformer import Transformer

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


def quantize(model: Transformer, kind: str) -> NativeModel:
    """The model with its weights quantized, for generation on the CPU; the given one stays as it is.

    kind: q8_0, q6_k, q4_k, q4_1 or q4_0; `plan` in model.checkpoint.quantize tells what each matrix gets.

    Raises InputError for another kind, and for weights that are not finite or beyond its range; it names the tensor.

    >>> from model import ModelConfig, Transformer
    >>> model = Transformer(ModelConfig.preset("nano", vocab_size=512))
    >>> quantize(model, "q8_0")(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 512])
    """
    return NativeModel.of(quantized(checkpoint_of(model, Path("the model"), Path()), kind))

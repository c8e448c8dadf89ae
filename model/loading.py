"""Load a checkpoint as a model that computes, in PyTorch or with native kernels.

This module is not called `load`: importing a module of that name would hide the function `model.load`.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union, overload

from bpe import Tokenizer
from bpe.arguments import checked
from bpe.errors import InputError
from bpe.locate import locate
from model.checkpoint import checkpoint_of, open_checkpoint
from model.checkpoint.companions import fitting_tokenizer
from model.checkpoint.opened import Checkpoint
from model.device import choose
from model.dtypes import DType, dtype_name
from model.generation.native import NativeModel, chosen_kernel, kernels, refusal
from model.threads import check_threads, default_threads
from model.torch_needed import is_installed, require_torch

if TYPE_CHECKING:
    import torch

    from model.transformer import Transformer

Backend = Literal["torch", "native", "auto"]
Device = Union[str, "torch.device"]
NO_KERNELS = "there are only portable kernels for this processor"
_NO_TORCH = "PyTorch is not installed"


def backend_of(
    checkpoint: Checkpoint, dtype: DType | None = None, device: Device = "cpu"
) -> tuple[Literal["torch", "native"], str]:
    """Return the backend that `load` chooses for "auto", and the reason. This does not import torch.

    "native" is chosen if it can compute with the stored weights in the requested dtype and has fast kernels.

    Args:
        checkpoint: The opened checkpoint.
        dtype: The requested dtype of the weights; None accepts the stored types.
        device: The requested device.
    """
    if str(device).partition(":")[0] != "cpu":
        return "torch", f"the device is {device}"
    reason = refusal(checkpoint)
    if reason is not None:
        return "torch", reason
    if dtype is not None and (checkpoint.is_quantized or dtype_name(dtype) != checkpoint.dtype):
        return "torch", f"{dtype_name(dtype)} is requested"
    if len(kernels()) > 1:
        return "native", f"kernels for {chosen_kernel()}"
    return ("torch", NO_KERNELS) if is_installed() else ("native", f"{NO_KERNELS}, and {_NO_TORCH}")


@overload
def load(
    path: str | os.PathLike[str],
    dtype: DType | None = None,
    device: Device = "cpu",
    backend: Literal["torch"] = "torch",
    *,
    packed: bool = False,
    quantize: str | None = None,
    threads: int | None = None,
    ignore_unknown: bool = False,
) -> tuple[Transformer, Tokenizer]: ...


@overload
def load(
    path: str | os.PathLike[str],
    dtype: DType | None = None,
    device: Device = "cpu",
    backend: Backend = "torch",
    *,
    packed: bool = False,
    quantize: str | None = None,
    threads: int | None = None,
    ignore_unknown: bool = False,
) -> tuple[Transformer | NativeModel, Tokenizer]: ...


@checked
def load(
    path: str | os.PathLike[str],
    dtype: DType | None = None,
    device: Device = "cpu",
    backend: Backend = "torch",
    *,
    packed: bool = False,
    quantize: str | None = None,
    threads: int | None = None,
    ignore_unknown: bool = False,
) -> tuple[Transformer | NativeModel, Tokenizer]:
    """Load the model and the tokenizer of a checkpoint.

    Weights are mapped from the file if dtype and device allow, so they are in memory once. Other weights are converted
    tensor by tensor.

    Args:
        path: A file, a directory, a known name or the name of a repository on the hub ("org/name",
            "org/name:file.gguf"). The format is detected.
        dtype: The dtype of the weights: torch's, or its name, such as "bfloat16". Defaults to the dtype of the file, or
            bfloat16 for quantized weights.
        device: The device of the weights. "auto" chooses CUDA, MPS or the CPU; see `model.device.choose`.
        backend: "torch" returns a `Transformer`. "native" returns a `NativeModel`, which generates on the CPU from the
            weights as they are stored, and does not import torch. "auto" chooses between the two; see `backend_of`.
        packed: Lay out the weights for generation on a CPU. This copies mapped weights, and the model can no longer be
            trained or saved. On other devices it has no effect.
        quantize: "q8_0", "q6_k", "q4_k", "q4_1" or "q4_0": quantize the weights to this type. This needs torch.
        threads: The number of CPU threads: of the native model, or of torch in this process. Defaults to
            `model.threads.default_threads`.
        ignore_unknown: Warn about keys of the configuration that are not known, instead of raising.

    Returns:
        The model and its tokenizer.

    Raises:
        InputError: When a file is missing, damaged or does not fit the others, the backend does not support the
            checkpoint, or there is no such device. The message names the file.
    """
    if threads is not None:
        check_threads(threads)
    if backend not in ("torch", "native", "auto"):
        raise InputError(f"there is no backend {backend!r}; choose one of torch, native, auto")
    place = "cpu" if backend == "native" and str(device) == "auto" else choose(device).name
    checkpoint = open_checkpoint(locate(os.fspath(path), "model"), ignore_unknown)
    if quantize is not None:
        require_torch(f"{checkpoint.source}: quantizing it")
        from model.checkpoint.quantize import quantized

        checkpoint = quantized(checkpoint, quantize)
    best, reason = backend_of(checkpoint, dtype, place)
    if backend != "torch" and best == "native":
        return _native_and_tokenizer(checkpoint, threads)
    tokenizer = fitting_tokenizer(checkpoint)
    if backend == "native":
        if reason != NO_KERNELS:
            raise InputError(f"{checkpoint.source}: the native backend cannot be used: {reason}; use the torch backend")
        return NativeModel.of(checkpoint, threads=threads), tokenizer
    require_torch(f"{checkpoint.source}: the torch backend ({reason if best == 'torch' else 'as requested'})")
    import torch

    from model.checkpoint.assemble import assemble
    from model.checkpoint.dequantize import torch_dtype
    from model.cpu import pack

    if threads is not None:
        torch.set_num_threads(threads)
    model = assemble(checkpoint, None if dtype is None else torch_dtype(dtype), torch.device(place))
    if packed:
        pack(model)
    return model, tokenizer


def _native_and_tokenizer(checkpoint: Checkpoint, threads: int | None) -> tuple[NativeModel, Tokenizer]:
    """Pack the weights while the tokenizer is read, which takes about as long. Its errors come first."""
    if checkpoint.computed is not None:  # with torch, whose settings belong to this thread
        tokenizer = fitting_tokenizer(checkpoint)
        return NativeModel.of(checkpoint, threads=threads), tokenizer
    threads = default_threads() if threads is None else threads
    made: list[NativeModel | BaseException] = []

    def pack() -> None:
        try:
            made.append(NativeModel.of(checkpoint, threads=threads))
        except BaseException as error:
            made.append(error)

    packing = threading.Thread(target=pack, name="model.loading")
    packing.start()
    try:
        tokenizer = fitting_tokenizer(checkpoint)
    finally:
        packing.join()
    if isinstance(made[0], BaseException):
        raise made[0]
    return made[0], tokenizer


@checked
def quantize(model: Transformer, kind: str) -> NativeModel:
    """Return a quantized copy of a model for generation on the CPU. The given model is unchanged.

    Args:
        model: The model.
        kind: "q8_0", "q6_k", "q4_k", "q4_1" or "q4_0"; `model.checkpoint.quantize.plan` chooses the type of each
            matrix.

    Raises:
        InputError: When the kind is unknown, or a weight is not finite or beyond the range of the type; the message
            names the tensor.

    >>> import torch
    >>> from model import ModelConfig, Transformer
    >>> model = Transformer(ModelConfig.preset("nano", vocab_size=512))
    >>> quantize(model, "q8_0")(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 512])
    """
    from model.checkpoint.quantize import quantized

    return NativeModel.of(quantized(checkpoint_of(model, Path("the model"), Path()), kind))

"""Checkpoints: the weights, configuration and tokenizer of a model on disk. One module for each format.

A format is a module with ``DESCRIPTION``, ``recognises(path)`` and ``open_checkpoint(path)``, plus
``write(checkpoint, path)`` if models can be written in it, and has one line in ``CHECKPOINT_FORMATS``. This package
detects the format, saves models and converts between formats.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from bpe import Tokenizer
from bpe.arguments import checked
from bpe.errors import InputError
from bpe.files import read_json
from bpe.kinds import instead
from bpe.locate import locate
from bpe.progress import Phase, Progress, phase, shown
from model.checkpoint import adapter, bpe_llama, gguf, huggingface, meta
from model.checkpoint.companions import check_fits, read_companions, read_tokenizer
from model.checkpoint.opened import Checkpoint
from model.checkpoint.weights import EMBEDDINGS, expected_shapes
from model.dtypes import DType, dtype_name
from model.torch_needed import require_torch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from model.transformer import Transformer

__all__ = ["Checkpoint", "checkpoint_of", "convert", "format_of", "open_checkpoint", "save"]

CHECKPOINT_FORMATS: dict[str, ModuleType] = {
    "adapter": adapter, "gguf": gguf, "bpe-llama": bpe_llama, "meta": meta, "huggingface": huggingface,
}  # fmt: skip
"""The formats by name, in the order in which they are tried."""
WRITABLE_FORMATS = {name: module for name, module in CHECKPOINT_FORMATS.items() if hasattr(module, "write")}
_FORMATS_BY_SUFFIX = {".gguf": "gguf"}  # a path with another suffix is written as a directory


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the name of the format of a directory, or of a file in it.

    Raises:
        InputError: When the path does not exist or holds no model.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    for name, file_format in CHECKPOINT_FORMATS.items():
        if file_format.recognises(path):
            return name
    if _is_unfinished_run(path):
        raise InputError(
            f"{path}: the training of this model is not finished; to resume it, run the command that began it again"
        )
    expected = ", or ".join(file_format.DESCRIPTION for file_format in CHECKPOINT_FORMATS.values())
    raise InputError(
        f"{path}: no model here{instead(path, 'model') or _damaged_gguf(path) or f'; expected {expected}'}"
    )


def _damaged_gguf(path: Path) -> str:
    """Return that a file ending in .gguf has another content, or an empty string for other paths."""
    if path.suffix.lower() != ".gguf" or not path.is_file():
        return ""
    with path.open("rb") as file:
        start = file.read(4)
    found = f"begins with the bytes {start.hex(' ')}" if start else "is empty"
    return f"; a GGUF begins with GGUF, but this file {found}; download or convert it again"


def _is_unfinished_run(path: Path) -> bool:
    """Return whether a directory is that of a training that is under way or was interrupted."""
    record = path / "run.json"  # see `model.training.run_directory`
    with suppress(InputError):
        return record.is_file() and read_json(record).get("finished") is False
    return False


def open_checkpoint(path: str | os.PathLike[str], ignore_unknown: bool = False) -> Checkpoint:
    """Open a checkpoint: read its configuration now, and its tensors when they are asked for.

    Args:
        path: A directory, or a file in it. The format is detected.
        ignore_unknown: Warn about keys of the configuration that are not known, instead of raising. An unknown key may
            change what the model computes.

    Raises:
        InputError: When there is no model, or the model is incomplete or not supported.
    """
    name = format_of(path)
    if name == "adapter":  # its base may have any other format
        open_base = functools.partial(open_checkpoint, ignore_unknown=ignore_unknown)
        return adapter.open_checkpoint(Path(path), open_base=open_base)
    checkpoint: Checkpoint = CHECKPOINT_FORMATS[name].open_checkpoint(Path(path), ignore_unknown)
    return checkpoint


def open_adapter(path: str | os.PathLike[str], ignore_unknown: bool = False) -> adapter.Parts:
    """Open a LoRA adapter and its base as two; see `model.checkpoint.adapter.open_parts` and `open_checkpoint`."""
    return adapter.open_parts(Path(path), functools.partial(open_checkpoint, ignore_unknown=ignore_unknown))


@checked
def save(
    path: str | os.PathLike[str],
    model: Transformer,
    tokenizer_file: str | os.PathLike[str],
    format: str | None = None,
    make_tokenizer: Callable[[], Tokenizer] | None = None,
) -> None:
    """Write a model that `load` reads.

    Args:
        path: The directory to write, or the file for GGUF.
        model: The model. A model packed for generation cannot be saved.
        tokenizer_file: A tokenizer file, or the directory of a model whose tokenizer and chat template are copied.
        format: "bpe-llama", "huggingface", "meta" or "gguf". Defaults to gguf for a path that ends in .gguf, otherwise
            to bpe-llama.
        make_tokenizer: Makes the tokenizer in the file, if it begins or ends texts differently than the file says.

    Raises:
        InputError: When the format is unknown, the model is packed, or the format cannot hold the model.
    """
    checkpoint = checkpoint_of(model, Path(path), Path(tokenizer_file))
    if make_tokenizer is not None:
        checkpoint = dataclasses.replace(checkpoint, make_tokenizer=make_tokenizer)
    _writer(path, format, "bpe-llama").write(checkpoint, Path(path))


def checkpoint_of(model: Transformer, source: Path, tokenizer: Path) -> Checkpoint:
    """Return a model in memory as a checkpoint.

    Args:
        model: The model, whose tensors are shared, not copied.
        source: The path that error messages about the weights name.
        tokenizer: A tokenizer file, or the directory of a model.

    Raises:
        InputError: When the model was packed for generation.
    """
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if expected_shapes(model.config).keys() - weights.keys():
        raise InputError(f"{source}: a model packed for generation cannot be saved; load it with packed=False")
    return Checkpoint(
        config=model.config,
        dtype=dtype_name(weights[EMBEDDINGS].dtype),
        source=source,
        tokenizer=tokenizer,
        computed=lambda dtype: weights.items(),
        **(read_companions(tokenizer) if tokenizer.is_dir() else {}),
    )


@checked
def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    format: str | None = None,
    dtype: DType | None = None,
    progress: Callable[[int, int], None] | Progress = None,
    tokenizer: str | os.PathLike[str] | None = None,
    quantize: str | None = None,
    ignore_unknown: bool = False,
) -> None:
    """Convert a checkpoint to another format or dtype, or quantize it, one tensor at a time.

    The destination appears only when it is complete.

    Args:
        source: A path or a known name.
        destination: A path that does not exist yet, or an empty directory.
        format: "bpe-llama", "huggingface", "meta" or "gguf". Defaults to gguf for a destination that ends in .gguf,
            otherwise to huggingface.
        dtype: The dtype of the weights. Defaults to the dtype of the source, or bfloat16 if the source is quantized.
        progress: True shows the progress on a terminal or in a notebook, and a stream there. A callback is called with
            the number of tensors written and the number of all tensors.
        tokenizer: A tokenizer, by file or name, that the vocabulary grows into; see `model.checkpoint.resize`.
        quantize: "q8_0", "q6_k", "q4_k", "q4_1" or "q4_0", instead of a dtype. Only GGUF holds these types.
        ignore_unknown: As for `open_checkpoint`. What is written no longer has the unknown keys.

    Raises:
        InputError: When the destination exists, the arguments contradict each other, or `load` would raise for the
            source.
    """
    require_torch(f"converting {os.fspath(source)}")
    from model.checkpoint.quantize import quantized
    from model.checkpoint.resize import resized

    target = Path(os.path.abspath(destination))
    writer = _writer(target, format, "huggingface")
    _check_destination(destination, target, writer, dtype, quantize)
    with shown(progress), phase("converting", unit="tensors") as converting:
        checkpoint = open_checkpoint(locate(os.fspath(source), "model"), ignore_unknown)
        _check_tokenizer(checkpoint)
        if tokenizer is not None:
            checkpoint = resized(checkpoint, locate(os.fspath(tokenizer)))
        changed = dataclasses.replace(
            checkpoint,
            dtype=checkpoint.dtype if dtype is None else dtype_name(dtype),
            computed=_with_progress(checkpoint, converting, progress if callable(progress) else None),
            weights=None,
            kinds={},
            stored="",
        )
        if quantize is not None:
            changed = quantized(changed, quantize)
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
        try:
            writer.write(changed, work / target.name)
            if target.is_dir():  # an empty one; anything else was refused above
                target.rmdir()
            os.rename(work / target.name, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _check_tokenizer(checkpoint: Checkpoint) -> None:
    """Refuse a tokenizer that does not fit the model."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is read again when it is written
            tokenizer = read_tokenizer(checkpoint)
    except InputError:  # a tokenizer that is only copied, such as ranks whose split pattern the caller names
        return
    check_fits(checkpoint, tokenizer)


def _check_destination(
    destination: str | os.PathLike[str],
    target: Path,
    writer: ModuleType,
    dtype: DType | None,
    quantize: str | None,
) -> None:
    if quantize is not None and writer is not gguf:
        raise InputError(f"{destination}: only GGUF holds quantized weights; give a name that ends in .gguf")
    if quantize is not None and dtype is not None:
        raise InputError(f"weights are either {quantize} or {dtype}; give only one of the two")
    empty = target.is_dir() and not any(target.iterdir())
    if os.path.lexists(target) and not empty:
        raise InputError(f"{destination}: already exists; remove it, or give another name")
    if not target.parent.is_dir():
        raise InputError(f"{destination}: the directory {target.parent} does not exist")


def _with_progress(
    checkpoint: Checkpoint, converting: Phase, progress: Callable[[int, int], None] | None
) -> Callable[[torch.dtype], Iterator[tuple[str, Tensor]]]:
    """Return the checkpoint's `tensors`, which report each tensor."""
    total = len(expected_shapes(checkpoint.config))

    def tensors(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        for done, named_tensor in enumerate(checkpoint.tensors(dtype), 1):
            yield named_tensor
            converting.update(min(done, total), total=total)
            if progress is not None:
                progress(min(done, total), total)

    return tensors


def _writer(path: str | os.PathLike[str], format: str | None, otherwise: str) -> ModuleType:
    name = format or _FORMATS_BY_SUFFIX.get(Path(path).suffix, otherwise)
    if name not in WRITABLE_FORMATS:
        renamed = "; 'native' is a backend, and the format is called 'bpe-llama'" if name == "native" else ""
        raise InputError(
            f"there is no checkpoint format {name!r}; choose one of {', '.join(WRITABLE_FORMATS)}{renamed}"
        )
    return WRITABLE_FORMATS[name]

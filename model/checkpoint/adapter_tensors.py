"""The tensors of a PEFT adapter: what each changes in which tensor of the base."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex
import torch
from torch import Tensor

from bpe.errors import InputError
from model.checkpoint.assemble import Fingerprint
from model.checkpoint.dequantize import WEIGHT_DTYPES, tensors_of
from model.checkpoint.huggingface import joined_parts, names_of
from model.checkpoint.names import TensorNames, interleaved, is_rotated
from model.checkpoint.opened import Checkpoint
from model.checkpoint.tensor_files import read_weights
from model.checkpoint.weights import EMBEDDINGS, TIED, expected_shapes
from model.config import ModelConfig
from model.lora import merged

PREFIX = "base_model.model."

_KINDS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "embedding_a",
    "lora_embedding_B": "embedding_b",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "token_adapter.trainable_tokens_delta": "rows",
    "base_layer.weight": "base",
    "base_layer.bias": "base",
    "original_module.weight": "base",
    "modules_to_save.weight": "whole",
    "modules_to_save.bias": "whole",
    "weight": "whole",
    "bias": "whole",
}
"""The ends of PEFT's names, and what their tensors are; see `Change`."""
_NAME = re.compile(rf"{re.escape(PREFIX)}(.+?)\.({'|'.join(map(re.escape, _KINDS))})")


@dataclass
class Change:
    """What an adapter changes in one tensor of its base. The parts apply in the order in which they are listed."""

    base: Tensor | None = None
    """A tensor that takes the place of the base's, also where the base uses it twice."""
    whole: Tensor | None = None
    """A tensor that takes the place of the base's, of a module that was trained as a whole (modules_to_save)."""
    rows: Tensor | None = None
    """Rows that take the places `places` (trainable_token_indices). [tokens, dim]"""
    places: list[int] | None = None
    a: Tensor | None = None
    """LoRA's A. [rank, in]"""
    b: Tensor | None = None
    """LoRA's B. [out, rank]"""
    scale: float = 1.0
    """The factor of the product B A."""
    magnitude: Tensor | None = None
    """The norm of each row of the result (DoRA; Liu et al. 2024, arXiv:2402.09353), [out]; for embeddings, of each
    column, [dim]."""
    columns: bool = False
    """Whether `magnitude` has the norms of columns."""

    def applied(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the tensor of the base with the change, in this dtype if it is computed."""
        for other in (self.base, self.whole):
            tensor = tensor if other is None else other
        if self.rows is not None:
            tensor = tensor.to(dtype, copy=True)
            tensor[self.places] = self.rows.to(dtype)
        if self.a is not None and self.b is not None:
            wide = torch.promote_types(tensor.dtype, torch.float32)
            result = merged(tensor, self.a, self.b, self.scale, wide)
            if self.magnitude is not None:
                along = 0 if self.columns else 1
                norm = torch.linalg.vector_norm(result, dim=along, keepdim=True)
                result = result * self.magnitude.to(wide).unsqueeze(along) / norm
            tensor = result.to(dtype)
        return tensor

    def parts(self) -> dict[str, Tensor]:
        """Return the tensors of the change by field."""
        return {name: part for name, part in vars(self).items() if isinstance(part, Tensor)}


Changes = dict[str, Change]
"""The changes by Meta's name of the changed tensor, such as "layers.0.attention.wq.weight"."""


def read_changes(path: Path, base: Checkpoint, values: Mapping[str, Any]) -> tuple[Changes, int]:
    """Read what an adapter changes in its base.

    An adapter may hold whole embeddings of another number of rows, because tokens were added before the training.

    Args:
        path: The file of the adapter's tensors.
        base: The base model.
        values: The content of adapter_config.json.

    Returns:
        The changes, and the number of rows of the embeddings with them.

    Raises:
        InputError: When the file is missing or damaged, or a tensor does not fit the base or the configuration.
    """
    if not path.is_file():
        pickled = (path.parent / "adapter_model.bin").is_file()
        remedy = "; pickled weights are never read, so save the adapter again with PEFT" if pickled else ""
        raise InputError(f"{path}: no such file{remedy}")
    names = names_of(base.config)
    tensors = [
        (name, *_meaning(name, names, base.config), tensor)
        for name, tensor in tensors_of(read_weights(path), torch.float32)
    ]
    sizes = {
        len(tensor)
        for _, kind, _, metas, tensor in tensors
        if kind in ("base", "whole") and metas in ([EMBEDDINGS], [TIED]) and tensor.dim() == 2
    }
    size = sizes.pop() if len(sizes) == 1 else base.config.vocab_size
    shapes = expected_shapes(dataclasses.replace(base.config, vocab_size=size))
    shapes.setdefault(TIED, shapes[EMBEDDINGS])
    changes: Changes = {}
    modules: dict[str, tuple[str, list[str]]] = {}
    for name, kind, module, metas, tensor in tensors:
        fits = metas and all(meta in shapes for meta in metas)
        if not fits or (kind in ("a", "b") and metas == [EMBEDDINGS]) or (kind == "rows" and len(metas) > 1):
            raise InputError(f"{path}: the tensor {name!r} fits no matrix of {base.source}; is it the right base?")
        if tensor.dtype not in WEIGHT_DTYPES.values() or not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name} holds {tensor.dtype}, or contains NaN or infinity; the file is damaged")
        if kind.startswith("embedding"):  # W + (B A)^T = W + A^T B^T
            kind, tensor = {"embedding_a": "b", "embedding_b": "a"}[kind], tensor.mT
        counts = [shapes[meta][0] for meta in metas]
        shape = (sum(counts), *shapes[metas[0]][1:])
        if not _fits(kind, tensor, shape, metas == [EMBEDDINGS]):
            raise InputError(
                f"{path}: {name} has the shape {list(tensor.shape)}, which does not fit {base.name_of(metas[0])}"
                f" {list(shape)} of {base.source}; is it the right base?"
            )
        parts = [tensor] * len(metas) if kind == "a" or len(metas) == 1 else _separated(tensor, counts)
        for meta, part in zip(metas, parts, strict=True):
            change = changes.setdefault(meta, Change(columns=meta == EMBEDDINGS))
            if modules.setdefault(meta, (module, metas))[0] != module:
                raise InputError(f"{path}: {name} changes the same matrix as {modules[meta][0]}; remove one of the two")
            rotated = is_rotated(meta) and kind != "a"
            setattr(change, kind, interleaved(part, base.config) if rotated else part)
    for meta, change in changes.items():
        _complete(path, modules[meta][0], change, values, size)
    _check_modules(path, changes, values, {meta: module for meta, (module, _) in modules.items()})
    for meta, (_, metas) in modules.items():
        if len(metas) > 1 and _is_unchanged(_keep_own_block(changes[meta], metas.index(meta), len(metas), values["r"])):
            del changes[meta]
    return changes, size


def joined_matrices(matrices: Sequence[tuple[Tensor, Tensor] | None], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return one pair A and B for matrices that are stored below each other, with the same product B A.

    The A matrices are below each other, and B has the B matrices as blocks on its diagonal. `read_changes` separates
    them again.

    Args:
        matrices: A [rank, in] and B [out, rank] of each matrix; None for a matrix that is not adapted.
        rows: The number of rows of each matrix.
    """
    first, _ = next(pair for pair in matrices if pair is not None)
    zeros = [(torch.zeros_like(first), first.new_zeros(count, len(first))) for count in rows]
    pairs = [zero if pair is None else pair for pair, zero in zip(matrices, zeros, strict=True)]
    whole = first.new_zeros(sum(rows), len(pairs) * len(first))
    for index, (part, (_, b)) in enumerate(zip(_separated(whole, rows), pairs, strict=True)):
        part[:, index * len(first) : (index + 1) * len(first)] = b
    return torch.cat([a for a, _ in pairs]), whole


def _separated(tensor: Tensor, rows: Sequence[int]) -> list[Tensor]:
    """Return views of these numbers of rows, from top to bottom."""
    ends = [*itertools.accumulate(rows)]
    return [tensor[end - count : end] for end, count in zip(ends, rows, strict=True)]


def _keep_own_block(change: Change, index: int, count: int, rank: int) -> Change:
    """Remove the parts of A and B that `joined_matrices` added for the other matrices, in place."""
    a, b = change.a, change.b
    if a is None or b is None or change.magnitude is not None or len(a) != count * rank:
        return change
    own = slice(index * rank, (index + 1) * rank)
    others = b.clone()
    others[:, own] = 0
    if not others.any():
        change.a, change.b = a[own], b[:, own]
    return change


def _is_unchanged(change: Change) -> bool:
    """Return whether a change is LoRA of which both matrices are zero: a matrix that is not adapted."""
    parts = change.parts()
    return parts.keys() == {"a", "b"} and not any(bool(part.any()) for part in parts.values())


def _meaning(name: str, names: TensorNames, config: ModelConfig) -> tuple[str, str, list[str]]:
    """Return what a tensor changes.

    Returns:
        The field of a `Change` that the tensor is, the name of its module, and Meta's names of the tensors that it
        changes, more than one for the joined matrices of Phi-3. Empty for an unknown name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return "", "", []
    suffix = "bias" if match[2].endswith("bias") else "weight"
    whole = f"{match[1]}.{suffix}"
    meta = names.to_meta(whole)
    return _KINDS[match[2]], match[1], joined_parts(whole, config) if meta is None else [meta]


def _fits(kind: str, tensor: Tensor, shape: tuple[int, ...], columns: bool) -> bool:
    """Return whether a tensor, as a part of a `Change`, has the right shape for a tensor of the base."""
    if kind in ("base", "whole"):
        return tensor.shape == shape
    if kind == "magnitude":
        return tensor.shape == (shape[1:] if columns else shape[:1])
    if kind == "b":
        return tensor.dim() == 2 and tensor.shape[0] == shape[0]
    return len(shape) == tensor.dim() == 2 and tensor.shape[1] == shape[1]  # of A, and of rows


def _complete(path: Path, module: str, change: Change, values: Mapping[str, Any], size: int) -> None:
    """Set the scale and the places of a change from the configuration; raise InputError if a part is missing."""
    a, b = change.a, change.b
    if a is not None or b is not None or change.magnitude is not None:
        rank = _of_pattern(path, values.get("rank_pattern"), module, values["r"])
        if a is None or b is None or {a.shape[0], b.shape[1]} != {rank}:
            raise InputError(
                f"{path}: {module} needs two matrices, lora_A and lora_B, of the rank {rank} given in"
                " adapter_config.json"
            )
        alpha = _of_pattern(path, values.get("alpha_pattern"), module, values["lora_alpha"])
        change.scale = alpha / (math.sqrt(rank) if values.get("use_rslora") else rank)
        if (change.magnitude is not None) != bool(values.get("use_dora")):
            raise InputError(f"{path}: use_dora is {values.get('use_dora')}, but the tensors of {module} say otherwise")
    if change.rows is not None:
        change.places = _places(path, module, values.get("trainable_token_indices"), change.rows, size)


def _of_pattern(path: Path, patterns: Any, module: str, default: Any) -> Any:
    """Return the value of the first pattern that matches a module, as PEFT does, or else the default."""
    for pattern, value in (patterns or {}).items():
        try:
            if regex.match(rf"(.*\.)?({pattern})$", module, timeout=1.0):
                return value
        except TimeoutError:
            raise InputError(f"{path}: matching the pattern {pattern!r} with {module} takes too long") from None
    return default


def _places(path: Path, module: str, given: Any, rows: Tensor, size: int) -> list[int]:
    """Return the ids whose rows an adapter holds: a list for the embeddings, or a list by the name of the module."""
    if isinstance(given, Mapping):
        given = next((ids for name, ids in given.items() if f".{module}".endswith(f".{name}")), None)
    count = len(rows)
    if not isinstance(given, list) or len(given) != count or not all(type(id) is int and id >= 0 for id in given):
        raise InputError(f"{path}: {count} rows for {module}, but trainable_token_indices does not list {count} ids")
    if max(given, default=0) >= size:
        raise InputError(f"{path}: trainable_token_indices has the id {max(given)}, but {module} has {size} rows")
    return given


def _check_modules(path: Path, changes: Changes, values: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Check that each module of modules_to_save is there. A whole tensor of another module is one of the base."""
    modules = values.get("modules_to_save") or []
    for module in modules:
        if not any(change.whole is not None and names[meta].endswith(module) for meta, change in changes.items()):
            raise InputError(f"{path}: no tensor of {module}, which modules_to_save of adapter_config.json lists")
    for meta, change in changes.items():
        if change.whole is not None and not any(names[meta].endswith(module) for module in modules):
            change.base, change.whole = change.whole, None


def merged_tensors(
    directory: Path, base: Checkpoint, changes: Changes, unties: bool, learned_on: str | None
) -> Callable[[torch.dtype], Iterator[tuple[str, Tensor]]]:
    """Return what yields the tensors of the base with the changes, given the wanted dtype.

    Args:
        directory: The directory of the adapter, for the warning about a wrong base.
        base: The base model.
        changes: The changes.
        unties: Whether embeddings and output head, one matrix in the base, are two after the changes.
        learned_on: The hash of the weights that the adapter was trained on, if it is known.
    """
    unchanged = Change()

    def tensors(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        found = Fingerprint(base.config)
        for name, tensor in base.tensors(torch.float32 if learned_on else dtype):
            if learned_on:
                found.add(name, tensor)
            if not base.config.tied_embeddings or name not in (EMBEDDINGS, TIED):
                yield name, changes.get(name, unchanged).applied(tensor, dtype)
            elif name == EMBEDDINGS:
                for twin, change in zip((EMBEDDINGS, TIED), twins(changes), strict=True):
                    if twin == EMBEDDINGS or unties:
                        yield twin, change.applied(tensor, dtype)
        if learned_on and found.hexdigest() != learned_on:
            warnings.warn(
                f"{directory}: trained on other weights than those of {base.source}; is it the right base?",
                stacklevel=2,
            )

    return tensors


def twins(changes: Changes) -> tuple[Change, Change]:
    """Return the changes of embeddings and output head that are one matrix in the base.

    A new matrix for the base, and new rows for tokens, change both. LoRA matrices, and the copies that PEFT makes of
    modules_to_save, change one.
    """
    pair = [dataclasses.replace(changes.get(name, Change())) for name in (EMBEDDINGS, TIED)]
    for change, other in zip(pair, pair[::-1], strict=True):
        change.base = other.base if change.base is None else change.base
        if change.rows is None:
            change.rows, change.places = other.rows, other.places
    return pair[0], pair[1]


def is_tied_after(changes: Changes) -> bool:
    """Return whether embeddings and output head, one matrix in the base, are still one after the changes."""
    embeddings, output = (change.parts() for change in twins(changes))
    return embeddings.keys() == output.keys() and all(torch.equal(embeddings[name], output[name]) for name in output)


def require_both(path: Path, changes: Changes, base: Checkpoint) -> None:
    """Raise InputError unless embeddings and output head are both whole in an adapter that changes their size."""
    pair = (
        twins(changes) if base.config.tied_embeddings else [changes.get(name, Change()) for name in (EMBEDDINGS, TIED)]
    )
    if any(change.base is None and change.whole is None for change in pair):
        raise InputError(
            f"{path}: embeddings and output head have another number of rows than those of {base.source}, but only one"
            " of the two is in the file; resize the vocabulary of the base first (bpe convert --resize-vocab)"
        )

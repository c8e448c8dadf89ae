"""The names of tensors in each file format, and the order of the rows of queries and keys.

Inside the project, tensors have Meta's names ("layers.3.attention.wq.weight") and Meta's row order. A format that
differs translates its names with a `TensorNames` and its rows with `interleaved` and `halved`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

Rows = TypeVar("Rows", "Tensor", npt.NDArray[Any])

_ROTATED = (".attention.wq", ".attention.wk", ".attention.q_norm", ".attention.k_norm")


@dataclass(frozen=True)
class TensorNames:
    """The names of tensors in one file format, translated from and to Meta's names.

    >>> names = TensorNames("blk", {"attention.wq": "attn_q"})
    >>> names.from_meta("layers.3.attention.wq.weight")
    'blk.3.attn_q.weight'
    >>> names.to_meta("blk.3.attn_q.weight")
    'layers.3.attention.wq.weight'
    """

    layers: str
    """What the format calls Meta's "layers"."""
    modules: Mapping[str, str]
    """The format's name of each module by Meta's name of it, without the layer in front and the suffix behind. "*" is
    the number of an expert."""
    _meta: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_meta", {theirs: meta for meta, theirs in self.modules.items()})

    def from_meta(self, name: str) -> str:
        """Return the format's name of a tensor; a name that is not Meta's is returned unchanged."""
        return _renamed(name, "layers", self.layers, self.modules) or name

    def to_meta(self, name: str) -> str | None:
        """Return Meta's name of a tensor, or None for a name that the format does not have."""
        return _renamed(name, self.layers, "layers", self._meta)


def _renamed(name: str, layers: str, new_layers: str, modules: Mapping[str, str]) -> str | None:
    match = re.fullmatch(rf"(?:{re.escape(layers)}\.(\d+)\.)?(.+)\.(weight|bias)", name)
    if match is None:
        return None
    module, expert = match[2], re.search(r"\.(\d+)\.", match[2])
    if expert is not None:
        module = module.replace(expert[0], ".*.")
    if module not in modules:
        return None
    layer = "" if match[1] is None else f"{new_layers}.{match[1]}."
    renamed = modules[module] if expert is None else modules[module].replace("*", expert[1])
    return f"{layer}{renamed}.{match[3]}"


def is_rotated(name: str) -> bool:
    """Return whether a tensor, under Meta's name, is rotated: the weight or bias of queries or keys, or of their norm.

    Hugging Face's format, and GGUF files of some architectures, store the rows of these tensors in another order.
    """
    return name.rsplit(".", 1)[0].endswith(_ROTATED) and not name.startswith("vision.")


def interleaved(tensor: Rows, config: ModelConfig) -> Rows:
    """Return rows in Meta's order: the two rows of each rotated pair are neighbours.

    Args:
        tensor: Rows in halved order, [heads * head_dim, ...]: within each head, all first rows, then all second rows,
            then the rows that are not rotated.
        config: The configuration, which has the sizes of a head and of its rotated part.

    Returns:
        The same rows in Meta's order. A tensor whose shape does not fit is returned unchanged; the check of shapes
        reports it later.
    """
    return _reordered(tensor, config, _interleaved_order)


def interleaved_bytes(data: memoryview, shape: tuple[int, ...], config: ModelConfig) -> memoryview:
    """Return the bytes of rows in Meta's order; see `interleaved`. Each row is moved as a whole, whatever its type.

    Args:
        data: The bytes of the rows.
        shape: The shape of the tensor.
        config: The configuration.
    """
    return _moved(data, shape, config, interleaved)


def halved_bytes(data: memoryview, shape: tuple[int, ...], config: ModelConfig) -> memoryview:
    """Return the bytes of rows in halved order: the inverse of `interleaved_bytes`."""
    return _moved(data, shape, config, halved)


def _moved(
    data: memoryview,
    shape: tuple[int, ...],
    config: ModelConfig,
    order: Callable[[npt.NDArray[Any], ModelConfig], npt.NDArray[Any]],
) -> memoryview:
    if not shape or not shape[0]:
        return data
    rows = order(np.frombuffer(data, np.uint8).reshape(shape[0], -1), config)
    return np.ascontiguousarray(rows).data.cast("B")


def halved(tensor: Rows, config: ModelConfig) -> Rows:
    """Return rows [heads * head_dim, ...] in halved order: the inverse of `interleaved`."""
    return _reordered(tensor, config, _halved_order)


def _interleaved_order(rotated: Rows) -> Rows:
    """Reorder [heads, rotated, ...] from halves to pairs."""
    rows: Rows = rotated.reshape(len(rotated), 2, -1, *rotated.shape[2:]).swapaxes(1, 2).reshape(rotated.shape)
    return rows


def _halved_order(rotated: Rows) -> Rows:
    """Reorder [heads, rotated, ...] from pairs to halves."""
    rows: Rows = rotated.reshape(len(rotated), -1, 2, *rotated.shape[2:]).swapaxes(1, 2).reshape(rotated.shape)
    return rows


def _reordered(tensor: Rows, config: ModelConfig, order: Callable[[Rows], Rows]) -> Rows:
    """Return a tensor with the rotated rows of each head in another order."""
    if len(tensor.shape) == 0 or tensor.shape[0] == 0 or tensor.shape[0] % config.head_dim:
        return tensor
    heads = tensor.reshape(-1, config.head_dim, *tensor.shape[1:])
    if config.rotated_dim == config.head_dim:
        rows: Rows = order(heads).reshape(tensor.shape)
        return rows
    changed: Rows = heads.copy() if isinstance(heads, np.ndarray) else heads.clone()
    changed[:, : config.rotated_dim] = order(heads[:, : config.rotated_dim])
    return changed.reshape(tensor.shape)

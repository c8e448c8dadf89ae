"""The tensors of a GGUF: llama.cpp's names, and which of Meta's matrices a tensor joins."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from bpe.errors import InputError
from model.checkpoint.names import TensorNames
from model.checkpoint.weights import StoredTensor, expected_shapes, size_of
from model.config import ModelConfig

EMBEDDINGS, OUTPUT = "token_embd.weight", "output.weight"
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
        "attention.q_norm": "attn_q_norm",
        "attention.k_norm": "attn_k_norm",
        "feed_forward.router": "ffn_gate_inp",
        "feed_forward.w1": "ffn_gate",
        "feed_forward.w2": "ffn_down",
        "feed_forward.w3": "ffn_up",
        "attention_norm": "attn_norm",
        "ffn_norm": "ffn_norm",
        "attention_post_norm": "post_attention_norm",
        "ffn_post_norm": "post_ffw_norm",
    },
)
"""The names of the tensors that hold one of Meta's each."""
_FUSED = {
    "attention.wq": "attn_qkv",
    "attention.wk": "attn_qkv",
    "attention.wv": "attn_qkv",
    "feed_forward.w1": "ffn_up",
    "feed_forward.w3": "ffn_up",
}
_EXPERTS = {"w1": "gate", "w2": "down", "w3": "up"}

Layout = dict[str, list[str]]
"""Meta's names of the matrices that a tensor holds, one after the other, by llama.cpp's name."""


def name_of(name: str, fused: bool = False) -> str:
    """Return the name of the tensor that holds one of Meta's; a name that is not Meta's is returned unchanged.

    Args:
        name: Meta's name.
        fused: Whether the file joins matrices, as those of Phi-3 do.
    """
    expert = _expert(name)
    if expert is not None:
        return f"blk.{expert[1]}.ffn_{_EXPERTS[expert[3]]}_exps.{expert[4]}"
    match = re.fullmatch(r"layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if fused and match is not None and match[2] in _FUSED:
        return f"blk.{match[1]}.{_FUSED[match[2]]}.{match[3]}"
    return NAMES.from_meta(name)


def _expert(name: str) -> re.Match[str] | None:
    return re.fullmatch(r"layers\.(\d+)\.feed_forward\.experts\.(\d+)\.(w[123])\.(weight|bias)", name)


def layout(config: ModelConfig, fused: bool = False) -> Layout:
    """Return the tensors of a model: stacks of experts and, if `fused`, joined matrices."""
    tensors: Layout = {}
    for name in expected_shapes(config):
        tensors.setdefault(name_of(name, fused), []).append(name)
    return tensors


def readable(config: ModelConfig, fused: bool) -> Layout:
    """Return `layout` with the other names under which files have the same matrices.

    Files of any architecture may join queries, keys and values or keep them apart, and old files have a tensor for each
    expert.
    """
    single: Layout = {}
    for name in expected_shapes(config):
        expert = _expert(name)
        if expert is not None:
            single[f"blk.{expert[1]}.ffn_{_EXPERTS[expert[3]]}.{expert[2]}.{expert[4]}"] = [name]
    joined = {theirs: parts for theirs, parts in layout(config, not fused).items() if ".ffn_" not in theirs}
    return {**single, **joined, **layout(config, fused)}


def whole_shape(theirs: str, parts: Sequence[str], config: ModelConfig) -> tuple[int, ...]:
    """Return the shape of a tensor of a layout: experts are stacked, other matrices are below each other."""
    shapes = [expected_shapes_of(config)[part] for part in parts]
    if "_exps." in theirs:
        return (len(parts), *shapes[0])
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


@functools.lru_cache(maxsize=4)
def expected_shapes_of(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Return `expected_shapes`, which takes long for a model of many experts."""
    return expected_shapes(config)


def separated(tensor: StoredTensor, parts: Sequence[str], config: ModelConfig) -> Iterator[StoredTensor]:
    """Yield the matrices that a tensor holds.

    Args:
        tensor: The tensor, under llama.cpp's name.
        parts: Meta's names of the matrices.
        config: The configuration.

    Raises:
        InputError: When the tensor does not have the shape of its matrices.
    """
    stack = "_exps." in tensor.name
    if len(parts) == 1 and not stack:  # the check of the weights compares the shape
        yield tensor._replace(name=parts[0])
        return
    expected = whole_shape(tensor.name, parts, config)
    if tensor.shape != expected:
        reason = f"; expert_count is {config.n_experts}, so the file is damaged or the key is wrong" if stack else ""
        raise InputError(f"{tensor.name} has the shape {[*tensor.shape]}, expected {[*expected]}{reason}")
    begin = 0
    for part in parts:
        shape = expected_shapes_of(config)[part]
        size = len(tensor.data) * size_of(shape) // size_of(expected)
        release = functools.partial(_release_part, tensor.release, begin)
        yield tensor._replace(name=part, shape=shape, data=tensor.data[begin : begin + size], release=release)
        begin += size


def _release_part(release: Callable[[int, int], None], offset: int, begin: int, size: int) -> None:
    release(offset + begin, size)

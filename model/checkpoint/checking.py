"""The check that a checkpoint has the tensors of its model: each of them once, with the right shape."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bpe.errors import InputError
from model.checkpoint.block_formats import float32_of
from model.checkpoint.opened import Checkpoint
from model.checkpoint.weights import EMBEDDINGS, TIED, StoredTensor, expected_shapes


class TensorCheck:
    """The tensors of a checkpoint that have been found, and those that are missing."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.expected = expected_shapes(checkpoint.config)
        self._tied = (EMBEDDINGS, TIED) if checkpoint.config.tied_embeddings else ()
        self._missing = dict.fromkeys(self.expected)
        self._seen: set[str] = set()

    def admit(self, name: str, shape: tuple[int, ...]) -> str:
        """Record a tensor, and return its name in the file.

        Raises:
            InputError: When it is unknown, misshapen or found twice; the message names it and the file.
        """
        source, theirs = self._checkpoint.source, self._checkpoint.name_of(name)
        expected = self.expected[EMBEDDINGS] if name in self._tied else self.expected.get(name)
        if expected is None:
            raise InputError(
                f"{source}: unknown tensor {theirs!r}; a model of this configuration does not have it;"
                " the configuration is wrong, or the file belongs to another model"
            )
        if name in self._seen:
            raise InputError(f"{source}: the tensor {theirs!r} occurs twice")
        if shape != expected:
            raise InputError(
                f"{source}: {theirs} has the shape {[*shape]}, expected {[*expected]};"
                " the configuration is wrong, or the file belongs to another model"
            )
        self._seen.add(name)
        self._missing.pop(name, None)
        return theirs

    def is_tied(self, name: str) -> bool:
        """Return whether a tensor is one of the two names of tied embeddings."""
        return name in self._tied

    def differing(self) -> InputError:
        """Return the error for an output matrix that differs from the embeddings that it is tied to."""
        output, embeddings = map(self._checkpoint.name_of, (TIED, EMBEDDINGS))
        return InputError(
            f"{self._checkpoint.source}: {output} differs from {embeddings}, but the configuration ties them;"
            " correct the configuration, or take the file of the same model"
        )

    def finish(self) -> None:
        """Raise InputError if a tensor is missing; the message names it and the file."""
        if self._missing:
            missing = [*dict.fromkeys(map(self._checkpoint.name_of, self._missing))]  # experts may share a tensor
            names = ", ".join(missing[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise InputError(
                f"{self._checkpoint.source}: missing {names}{more}; the file is incomplete, or belongs to another model"
            )


def checked_weights(checkpoint: Checkpoint) -> Iterator[StoredTensor]:
    """Yield every tensor of `expected_shapes` once, as it is stored, in the order of the file.

    Raises:
        InputError: When a tensor is missing (found only at the end), unknown, misshapen or duplicated, or an output
            matrix differs from the embeddings that it is tied to. The message names the tensor and the file.
    """
    assert checkpoint.weights is not None
    check = TensorCheck(checkpoint)
    twin: StoredTensor | None = None
    for tensor in checkpoint.weights():
        check.admit(tensor.name, tensor.shape)
        if check.is_tied(tensor.name):
            if twin is not None and not _are_equal(twin, tensor):
                raise check.differing()
            twin = tensor
        if tensor.name in check.expected:
            yield tensor
    check.finish()


def _are_equal(one: StoredTensor, other: StoredTensor) -> bool:
    if one.kind == other.kind and np.array_equal(np.frombuffer(one.data, "u1"), np.frombuffer(other.data, "u1")):
        return True
    return np.array_equal(float32_of(one.data, one.kind), float32_of(other.data, other.kind))

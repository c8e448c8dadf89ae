"""The numbered checkpoints of a run: written whole or not at all, read back bit for bit.

`checkpoints/step-000400/` holds what training needs to resume after 400 steps:

    shard-00001-model-00001-of-00001.safetensors ...  tensors; each rank writes its own
    state.json      plain numbers, and the size of each file; written last

Three things are called checkpoints in this field, and here, too. This file has those of a run. `model.checkpoint` loads
and saves model files. The setting `checkpoint_activations` recomputes activations instead of storing them.

The tensors go through torch.distributed.checkpoint, so any number of ranks can read a checkpoint that another number
of ranks has written. They are stored as safetensors instead of in its own format, whose index is a pickle.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from bpe.errors import InputError
from bpe.files import write_json
from model.training.parallel import Parallel

STATE = "state.json"


class RunCheckpoints:
    """The checkpoints in a directory, of which the newest few are kept.

    Whatever is wrong with a checkpoint raises an InputError that names its path. The other checkpoints stay untouched.
    """

    def __init__(self, directory: Path, keep: int, parallel: Parallel) -> None:
        """Take a directory, which need not exist.

        Args:
            directory: Directory of the checkpoints.
            keep: Number of checkpoints to keep.
            parallel: The processes that save and load together. All of them must call each method that saves or loads.
        """
        self.directory, self.keep, self.parallel = directory, keep, parallel

    def newest(self) -> Path | None:
        """Return the checkpoint with the highest step, or None when there is none."""
        return next(reversed(self._all()), None)

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint under a temporary name, rename it, and only then delete the oldest checkpoints.

        Args:
            step: Number of steps made, which names the checkpoint.
            tensors: Tensors by name.
            state: Plain numbers, to be written as JSON.

        Returns:
            The path of the checkpoint.

        Raises:
            OSError: When the disk is full, for instance. The earlier checkpoints are still there then.
        """
        final, part = self.directory / f"step-{step:06}", self.directory / f".step-{step:06}.part"
        if self.parallel.is_main:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        self.parallel.barrier()
        try:
            writer = HuggingFaceStorageWriter(str(part), save_distributed=True)
            self._call(save, dict(tensors), storage_writer=writer)
            if self.parallel.is_main:
                files = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
                write_json(part / STATE, {**state, "files": files})
                shutil.rmtree(final, ignore_errors=True)
                part.rename(final)
                _sync(self.directory)
                for old in self._all()[: -self.keep]:
                    shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            if error.errno is None or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, str(final)) from error  # torch names no file
        finally:
            if self.parallel.is_main:
                shutil.rmtree(part, ignore_errors=True)
        self.parallel.barrier()
        return final

    def read_state(self, checkpoint: Path) -> dict[str, Any]:
        """Return the plain numbers of a checkpoint.

        Raises:
            InputError: When a file of the checkpoint is missing, unreadable or not of the size that was written.
        """
        try:
            state = json.loads((checkpoint / STATE).read_bytes())
            files = dict(state.pop("files"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(checkpoint / STATE, f"cannot be read ({error})") from None
        for name, size in files.items():
            path = checkpoint / Path(name).name  # the name alone, so that no file outside is looked at
            found = path.stat().st_size if path.is_file() else None
            if found is None:
                raise self._damaged(path, "is missing")
            if found != size:
                raise self._damaged(path, f"has {found:,} bytes instead of the {size:,} that were written")
        assert isinstance(state, dict)
        return state

    def update_state(self, checkpoint: Path, **changes: Any) -> None:
        """Change some of the plain numbers of a checkpoint."""
        if self.parallel.is_main:
            state = json.loads((checkpoint / STATE).read_bytes())
            write_json(checkpoint / STATE, {**state, **changes})
        self.parallel.barrier()

    def load(self, checkpoint: Path, tensors: Mapping[str, Tensor]) -> None:
        """Fill tensors with those that were saved under their names.

        Each rank may hold another part of a tensor than the rank that saved it.

        Raises:
            InputError: When the checkpoint is damaged, or its tensors have other names or shapes.
        """
        reader = HuggingFaceStorageReader(str(checkpoint))
        try:
            saved = reader.read_metadata().state_dict_metadata
            for name in sorted(tensors.keys() | saved.keys()):
                self._check_shape(checkpoint, name, saved.get(name), tensors.get(name))
            self._call(load, dict(tensors), storage_reader=reader)
        except (OSError, RuntimeError, ValueError, KeyError, AssertionError, SafetensorError) as error:
            if isinstance(error, InputError):
                raise
            raise self._damaged(checkpoint, f"cannot be read ({error})") from None

    def _check_shape(self, checkpoint: Path, name: str, saved: Any, wanted: Tensor | None) -> None:
        found = list(saved.size) if isinstance(saved, TensorStorageMetadata) else None
        if wanted is None:
            raise self._damaged(checkpoint, f"holds the tensor {name}, which this model does not have")
        if found is None:
            raise self._damaged(checkpoint, f"lacks the tensor {name}")
        if found != list(wanted.shape):
            raise self._damaged(checkpoint, f"{name} has the shape {found}, but this model needs {list(wanted.shape)}")

    def _all(self) -> list[Path]:
        """Return all checkpoints by rising step."""
        found = [path for path in self.directory.glob("step-*") if re.fullmatch(r"step-\d{6,}", path.name)]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def _call(self, function: Any, *arguments: Any, **options: Any) -> None:
        """Call a function of torch.distributed.checkpoint, and raise the exception that a failure is wrapped around."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a warning to each single process
                function(*arguments, no_dist=self.parallel.size == 1, **options)
        except CheckpointException as error:
            cause = next(iter(error.failures.values()))[0]
            raise cause from None

    def _damaged(self, path: Path, problem: str) -> InputError:
        checkpoint = path if path.is_dir() else path.parent
        return InputError(
            f"{path}: {problem}; delete {checkpoint} to resume from the checkpoint before it, or restart the run"
        )


def _sync(directory: Path) -> None:
    """Make renames within a directory survive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

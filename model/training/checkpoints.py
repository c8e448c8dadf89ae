"""The numbered checkpoints of a run: written whole or not at all, read back bit for bit.

`checkpoints/step-000400/` holds what training needs to go on after 400 steps:

    shard-00001-model-00001-of-00001.safetensors ...  the tensors, of each rank its own
    state.json      plain numbers, and the size of each file; written last

The tensors go through torch.distributed.checkpoint, so a checkpoint of several ranks is read by any number of them, and
they lie in safetensors rather than in its own format, whose index is a pickle.
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


class Checkpoints:
    """The checkpoints in a directory, of which the newest few are kept.

    Everything that is wrong with a checkpoint is an InputError that names it; the others are left as they are.
    """

    def __init__(self, directory: Path, keep: int, parallel: Parallel) -> None:
        self.directory, self.keep, self.parallel = directory, keep, parallel

    def newest(self) -> Path | None:
        """The one of the highest step; None when there is none."""
        return next(reversed(self._all()), None)

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, give it its name, and only then delete the oldest.

        Raises OSError when the disk is full, ...; what was there before is still there then.
        """
        final, part = self.directory / f"step-{step:06}", self.directory / f".step-{step:06}.part"
        if self.parallel.is_main:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        self.parallel.barrier()
        try:
            writer = HuggingFaceStorageWriter(str(part), save_distributed=True)
            self._unwrapped(save, dict(tensors), storage_writer=writer)
            if self.parallel.is_main:
                files = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
                write_json(part / STATE, {**state, "files": files})
                shutil.rmtree(final, ignore_errors=True)
                part.rename(final)
                _sync(self.directory)
                for old in self._all()[: -self.keep]:
                    shutil.rmtree(old, ignore_errors=True)
        finally:
            if self.parallel.is_main:
                shutil.rmtree(part, ignore_errors=True)
        self.parallel.barrier()
        return final

    def read_state(self, checkpoint: Path) -> dict[str, Any]:
        """The plain numbers of a checkpoint whose files are all there, and whole."""
        try:
            state = json.loads((checkpoint / STATE).read_bytes())
            files = dict(state.pop("files"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(checkpoint / STATE, f"cannot be read ({error})") from None
        for name, size in files.items():
            path = checkpoint / Path(name).name  # only names, so that nothing outside is looked at
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                is_what = "missing" if found is None else f"{found:,} bytes, where {size:,} were written"
                raise self._damaged(path, is_what)
        assert isinstance(state, dict)
        return state

    def update_state(self, checkpoint: Path, **changes: Any) -> None:
        """Change some of the plain numbers of a checkpoint."""
        if self.parallel.is_main:
            state = json.loads((checkpoint / STATE).read_bytes())
            write_json(checkpoint / STATE, {**state, **changes})
        self.parallel.barrier()

    def load(self, checkpoint: Path, tensors: Mapping[str, Tensor]) -> None:
        """Fill tensors with what was saved under their names, whichever ranks hold which part of them now and then."""
        reader = HuggingFaceStorageReader(str(checkpoint))
        try:
            saved = reader.read_metadata().state_dict_metadata
            for name in sorted(tensors.keys() | saved.keys()):
                before, now = saved.get(name), tensors.get(name)
                was = list(before.size) if isinstance(before, TensorStorageMetadata) else "nothing"
                wanted = "nothing" if now is None else list(now.shape)
                if was != wanted:
                    raise self._damaged(checkpoint, f"{name} is {was}, and this model wants {wanted}")
            self._unwrapped(load, dict(tensors), storage_reader=reader)
        except (OSError, RuntimeError, ValueError, KeyError, AssertionError, SafetensorError) as error:
            if isinstance(error, InputError):
                raise
            raise self._damaged(checkpoint, f"cannot be read ({error})") from None

    def _all(self) -> list[Path]:
        """By their number."""
        found = [path for path in self.directory.glob("step-*") if re.fullmatch(r"step-\d{6,}", path.name)]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def _unwrapped(self, function: Any, *arguments: Any, **options: Any) -> None:
        """Call a function of torch.distributed.checkpoint; its failure is the exception that made it fail."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "torch.distributed is disabled")  # which is said of one alone
                function(*arguments, no_dist=self.parallel.size == 1, **options)
        except CheckpointException as error:
            cause = next(iter(error.failures.values()))[0]
            raise cause from None

    def _damaged(self, path: Path, what: str) -> InputError:
        checkpoint = path if path.is_dir() else path.parent
        return InputError(f"{path}: {what}; delete {checkpoint} to go on from the checkpoint before it, or restart")


def _sync(directory: Path) -> None:
    """Make the names in a directory last beyond a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

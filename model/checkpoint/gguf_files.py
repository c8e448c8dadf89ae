"""The content of a GGUF in one file, or split into several by llama.cpp's gguf-split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bpe.errors import InputError
from bpe.formats.gguf_container import ALIGNMENT, Container, TensorInfo, shown
from bpe.gguf_split import firsts, parts_of

_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"


class GgufFiles:
    """The metadata of the first file, and the tensors of all files, with the interface of `Container`."""

    def __init__(self, containers: Sequence[Container]) -> None:
        self.metadata: dict[str, Any] = {
            key: value for key, value in containers[0].metadata.items() if not key.startswith("split.")
        }
        self._containers = {name: container for container in containers for name in container.tensors}
        self.tensors: dict[str, TensorInfo] = {
            name: container.tensors[name] for name, container in self._containers.items()
        }

    @classmethod
    def open(cls, path: Path) -> GgufFiles:
        """Map the file, and the other files of a split model.

        Args:
            path: The file, or the first file of a split model.

        Raises:
            InputError: When a file is missing or damaged, or the files do not belong together; the message names it.
        """
        container = Container.open(path)
        count = container.metadata.get(_COUNT, 1)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"{path}: {_COUNT} is {shown(count)}; expected a number of files")
        paths = [path.with_name(name) for name in parts_of(path.name)]
        if count == 1:
            beside = [other.name for other in paths[1:] if other.is_file()]
            if beside:
                raise InputError(
                    f"{path}: a whole model, not the first file of a split one, although {beside[0]} lies beside it;"
                    " give the two other names"
                )
            return cls([container])
        if len(paths) != count:
            raise InputError(
                f"{path}: one of {count} files of a split model, but its name does not end in"
                f" -00001-of-{count:05}.gguf; give the files the names that they had, or join them"
                " with llama-gguf-split --merge"
            )
        missing = [other.name for other in paths if not other.is_file()]
        if missing:
            raise InputError(
                f"{path}: {len(missing)} of {count} files of this model are missing, such as {missing[0]}; put them"
                " into the same directory"
            )
        containers = [container, *map(Container.open, paths[1:])]
        for number, (other, opened) in enumerate(zip(paths, containers, strict=True)):
            if opened.metadata.get(_COUNT) != count or opened.metadata.get(_NUMBER) != number:
                raise InputError(f"{other}: not file {number + 1} of the {count} files of {path.name}")
            _refuse_other_metadata(other, opened, container, path)
        files = cls(containers)
        total = container.metadata.get(_TENSORS, len(files.tensors))
        if total != len(files.tensors) or total != sum(len(opened.tensors) for opened in containers):
            raise InputError(
                f"{path}: the {count} files have {len(files.tensors)} tensors, but the first file names {total};"
                " the files do not belong together"
            )
        return files

    def data(self, name: str) -> memoryview:
        """Return the bytes of a tensor, without a copy."""
        return self._containers[name].data(name)

    def release(self, name: str, begin: int, size: int) -> None:
        """Free the memory of a part of a tensor, which is read again when it is used again."""
        self._containers[name].release(self.tensors[name].offset + begin, size)


def _refuse_other_metadata(path: Path, part: Container, first: Container, first_path: Path) -> None:
    """Raise InputError if a later file describes another model. gguf-split writes only the keys of the split to it."""
    for key, value in part.metadata.items():
        if key not in (_NUMBER, ALIGNMENT) and value != first.metadata.get(key):
            wanted = f"is {shown(first.metadata[key])}" if key in first.metadata else "is missing"
            raise InputError(
                f"{path}: {key} is {shown(value)}, but {wanted} in {first_path.name}; the files do not belong together"
            )


def first_file(path: Path) -> Path | None:
    """Return the file, or the first file, of the GGUF that a path names; None for a directory without just one GGUF."""
    if not path.is_dir():
        return path.with_name(parts_of(path.name)[0]) if path.name.endswith(".gguf") else path
    found = firsts(file.name for file in path.glob("*.gguf"))
    return path / found[0] if len(found) == 1 else None

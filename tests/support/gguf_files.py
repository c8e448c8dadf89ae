"""GGUF files that are changed or split for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bpe.formats.gguf_container import Container, lay_out


def change(
    path: Path,
    metadata: dict[str, Any] | None = None,
    tensors: dict[str, torch.Tensor | None] | None = None,
    kinds: dict[str, str] | None = None,
) -> Path:
    """Rewrite a file with some values and tensors replaced, or removed if they are None."""
    container = Container.open(path)
    values = {key: value for key, value in {**container.metadata, **(metadata or {})}.items() if value is not None}
    content: dict[str, tuple[tuple[int, ...], str, bytes]] = {
        name: (info.shape, info.type, bytes(container.data(name))) for name, info in container.tensors.items()
    }
    for name, tensor in (tensors or {}).items():
        content.pop(name, None)
        if tensor is not None:
            content[name] = (tuple(tensor.shape), "F32", tensor.float().contiguous().numpy().tobytes())
    for name, kind in (kinds or {}).items():
        content[name] = (content[name][0], kind, content[name][2])
    before, places = lay_out(values, {name: (shape, kind) for name, (shape, kind, _) in content.items()})
    whole = bytearray(before)
    for name, info in places.items():
        whole.extend(bytes(info.offset - len(whole)))
        whole.extend(content[name][2][: info.n_bytes].ljust(info.n_bytes, b"\0"))
    path.write_bytes(whole)
    return path


def split(file: Path, into: Path, count: int = 3, **changes: Any) -> list[Path]:
    """Split a file as llama.cpp's gguf-split does: all metadata are in the first file."""
    container = Container.open(file)
    names, paths = [*container.tensors], []
    into.mkdir()
    for number in range(count):
        own = names[number * len(names) // count : (number + 1) * len(names) // count]
        metadata = {"split.no": number, "split.count": count, "split.tensors.count": len(names), **changes}
        metadata = {**(container.metadata if number == 0 else {}), **metadata}
        header, places = lay_out(metadata, {name: container.tensors[name][:2] for name in own})
        content = bytearray(max(info.offset + info.n_bytes for info in places.values()))
        content[: len(header)] = header
        for name, info in places.items():
            content[info.offset : info.offset + info.n_bytes] = container.data(name)
        paths.append(into / f"model-{number + 1:05}-of-{count:05}.gguf")
        paths[-1].write_bytes(content)
    return paths
